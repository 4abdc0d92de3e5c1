"""Lightning's ClusterEnvironment of this job, for Fabric and Trainer: it starts no processes and makes no guess.

Facts: runs of Lightning 2.6 under torchrun, Slurm and Open MPI.
"""

import sys
from importlib import import_module
from typing import Any

from colossalai_env._job import Job
from colossalai_env.errors import NotYetKnown, WrongDevices
from colossalai_env.spec import DistSpec

PACKAGES = ("lightning.fabric", "lightning_fabric")
"""Lightning comes twice: as `lightning`, and as `pytorch_lightning`, each with classes of its own."""


def cluster_environment(who: Job | DistSpec) -> Any:  # noqa: ANN401 - a class of a package that need not be there
    """Return what goes into ``Fabric(plugins=[...])`` or ``Trainer(plugins=[...])``, with a strategy such as ``"ddp"``.

    Handed a spec, Lightning makes the process group itself, and raises `NotYetKnown` where the launcher does not say
    what that takes. It raises `WrongDevices` where its `devices` and `num_nodes` are another world than the launcher's.
    """
    spec = who.spec if isinstance(who, Job) else who
    used = [name for name in PACKAGES if name in sys.modules] or [_installed()]
    bases = [import_module(f"{name}.plugins.environments").ClusterEnvironment for name in used]
    made: type[_Launched] = type("ColossalaiEnvironment", (_Launched, *bases), {})
    return made(spec)


def _installed() -> str:
    from importlib.util import find_spec

    return PACKAGES[0] if find_spec("lightning") is not None else PACKAGES[1]


def _advice(spec: DistSpec) -> str:
    here, nodes = spec.local_world_size, spec.num_nodes or (1 if spec.one_node else None)
    if here is not None and nodes is not None and here * nodes == spec.world_size:
        return f"give devices={here}, num_nodes={nodes}"
    if here is not None and (nodes is not None or spec.world_size % here):
        return "start as many processes on each node: Lightning can count no others"
    return f"give the processes of a node as devices, and the nodes as num_nodes, {spec.world_size} in all"


class _Launched:
    """The methods of a ClusterEnvironment."""

    def __init__(self, spec: DistSpec) -> None:
        super().__init__()
        self._spec = spec
        self._variables = spec.to_env()

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._known("MASTER_ADDR", "host of rank 0")

    @property
    def main_port(self) -> int:
        return int(self._known("MASTER_PORT", "port of rank 0"))

    @staticmethod
    def detect() -> bool:
        """Tell Lightning to take this one only where it is handed over."""
        return False

    def world_size(self) -> int:
        return self._spec.world_size

    def set_world_size(self, size: int) -> None:
        """Keep the world size: Lightning sets what it computes from `devices` and `num_nodes`."""

    def global_rank(self) -> int:
        return self._spec.rank

    def set_global_rank(self, rank: int) -> None:
        """Keep the rank: Lightning sets node rank times devices plus local rank, which not every layout has."""

    def local_rank(self) -> int:
        return int(self._known("LOCAL_RANK", "local rank"))

    def node_rank(self) -> int:
        return 0 if self._spec.one_node else int(self._known("NODE_RANK", "node rank"))

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Raise `WrongDevices` where Lightning is told another world than the launcher's."""
        spec = self._spec
        here = spec.local_world_size or num_devices
        if num_devices * num_nodes != spec.world_size or num_devices != here:
            told = f"devices={num_devices}, num_nodes={num_nodes}"
            raise WrongDevices("Lightning", told, str(spec), _advice(spec))

    def teardown(self) -> None:
        """Leave everything as it is."""

    def _known(self, variable: str, field: str) -> str:
        if variable not in self._variables:
            raise NotYetKnown(self._spec.resolver, field, self._spec.rank, "cluster_environment")
        return self._variables[variable]
