"""Launchers around each other: the recorded launch inside of an emulated one, and the other way round."""

from typing import ClassVar

from colossalai_env import resolve
from colossalai_env.testing import Capture, Layout, captures
from colossalai_env.testing.examples import Examples

TORCHRUN, MPIRUN, SRUN, SAGEMAKER = "torchrun_standalone", "openmpi5_here", "slurm_block", "sagemaker_two_hosts"

LAUNCH = Layout(hosts=("n0", "n1", "n2", "n3", "n4"), nodes=(0, 1, 2, 3, 4), port=29519, job_id="10.0.0.7/7")
"""One process on each node, which every launcher can start; its size is none of a recorded launch."""


def recorded(scenario: str) -> Capture:
    """Return a recorded launch."""
    return next(one for one in captures() if one.scenario == scenario)


class Nested(Examples):
    """A contract's further law, for a table whose layer is known."""

    inside: ClassVar[tuple[str, ...]]
    """Recorded launches that may be inside of one of this launcher's processes."""
    around: ClassVar[tuple[str, ...]]
    """Recorded launches that may be around it."""

    def test_the_inner_one_of_two_launchers_wins(self) -> None:
        for rank in (0, 3):
            own = dict(self.resolver.emulate(LAUNCH.spec(rank)).variables)
            for scenario in self.inside:
                task = recorded(scenario).tasks[-1]
                spec = resolve(env=own | task.variables)
                assert (spec.rank, spec.world_size) == (task.truth["rank"], task.truth["world_size"]), scenario
            for scenario in self.around:
                spec = resolve(env=recorded(scenario).tasks[-1].variables | own)
                assert (spec.resolver, spec.rank, spec.world_size) == (self.resolver.name, rank, 5), scenario


class OfMpi(Nested):
    """mpirun and its kin."""

    inside = (TORCHRUN,)
    around = (SRUN, SAGEMAKER)


class OfSteps(Nested):
    """A scheduler's step."""

    inside = (TORCHRUN, MPIRUN)
    around = (SAGEMAKER,)


class OfPlatforms(Nested):
    """A platform that starts containers."""

    inside = (TORCHRUN, MPIRUN, SRUN)
    around = ()
