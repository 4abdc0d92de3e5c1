"""All faults, one table."""

from .cases import deaths, disagreements, duplicates, missing_ranks, port_conflicts, restarts
from .model import Fault

FAULTS: tuple[Fault, ...] = (
    *missing_ranks.FAULTS,
    *duplicates.FAULTS,
    *disagreements.FAULTS,
    *port_conflicts.FAULTS,
    *deaths.FAULTS,
    *restarts.FAULTS,
)
