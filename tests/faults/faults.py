"""All faults, one table."""

from .cases import absence, again, doubles, ends, minds, rivals
from .model import Fault

FAULTS: tuple[Fault, ...] = (
    *absence.FAULTS,
    *doubles.FAULTS,
    *minds.FAULTS,
    *rivals.FAULTS,
    *ends.FAULTS,
    *again.FAULTS,
)
