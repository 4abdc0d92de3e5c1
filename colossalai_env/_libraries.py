"""Libraries that read RANK and its kin by themselves, and overlook a group whose ranks stand in no such variable."""

from collections.abc import Collection

from .environ import Environ
from .errors import listed
from .spec import DistSpec

READERS = {
    "accelerate": "Accelerate",
    "deepspeed": "DeepSpeed",
    "lightning.fabric": "Lightning",
    "lightning_fabric": "Lightning",
    "transformers.trainer": "the Trainer of transformers",
}
"""Modules that are imported where a library is used, and its name for people.

Facts: runs of Accelerate 1.15, DeepSpeed 0.19, Lightning 2.6 and transformers 5.24 on top of a group, without the
variables: the ranks trained apart, or took themselves for another rank, or DeepSpeed raised.
"""

READ = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""What they read first."""


def overlooked(spec: DistSpec, environ: Environ, imported: Collection[str]) -> tuple[str, ...]:
    """Return a warning where a library is imported that may overlook the group of several ranks."""
    names = list(dict.fromkeys(name for module, name in READERS.items() if module in imported))
    right = spec.to_env() if names and spec.world_size > 1 else {}
    wrong = [name for name in READ if name in right and environ.get(name) != right[name]]
    if not wrong:
        return ()
    warning = (
        f"{listed(names)} {'read' if len(names) > 1 else 'reads'} {listed(READ)}, and {listed(wrong)} "
        f"{'are' if len(wrong) > 1 else 'is'} not set to what this rank is: each process may take itself for a single "
        "one, or for another rank, without an error: call init_from_env(export=True), or job.export()"
    )
    return (warning,)
