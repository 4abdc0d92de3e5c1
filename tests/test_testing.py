"""The kit: what its strategies draw, how launches are replayed and played."""

import subprocess
import sys

import pytest
from colossalai_env_slurm import SLURM
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from colossalai_env import Claim, DistSpec, NotMine, Unusable
from colossalai_env.testing import Layout, environs, layouts


@given(st.from_type(DistSpec))
def test_a_spec_is_drawn_for_its_type(spec: DistSpec) -> None:
    assert None not in {spec.local_rank, spec.local_world_size, spec.node_rank, spec.num_nodes, spec.host, spec.port}


@given(layouts(64))
def test_the_ranks_of_a_drawn_launch_are_all_of_its_processes(layout: Layout) -> None:
    specs = [layout.spec(rank) for rank in range(layout.world_size)]
    assert [spec.rank for spec in specs] == list(range(layout.world_size))
    places = {(spec.node_rank, spec.local_rank) for spec in specs}
    assert places == {(spec.node_rank, index) for spec in specs for index in range(spec.local_world_size or 0)}


FOUND = settings(max_examples=5000, database=None, derandomize=True, phases=[Phase.generate])


@pytest.mark.parametrize("nodes", [(0, 0, 1), (0, 1, 0, 1), (0, 1, 1, 0), (0, 0, 1, 1, 0, 1)])
def test_launches_are_uneven_cyclic_and_of_any_other_order(nodes: tuple[int, ...]) -> None:
    find(layouts(6), lambda layout: layout.nodes == nodes, settings=FOUND)


def test_local_ranks_need_not_follow_the_ranks() -> None:
    find(layouts(4), lambda layout: layout.local_ranks == (0, 2, 1), settings=FOUND)


@pytest.mark.parametrize("kind", [Claim, NotMine, Unusable])
def test_environments_are_whole_or_broken(kind: type[object]) -> None:
    find(environs(SLURM), lambda environ: isinstance(SLURM.resolve(environ), kind), settings=FOUND)


def test_environments_hold_other_launchers_leftovers() -> None:
    find(environs(SLURM), lambda environ: "TORCHELASTIC_RUN_ID" in environ, settings=FOUND)


def test_hypothesis_and_pytest_start_without_this_library() -> None:
    program = "import hypothesis, pytest, sys; sys.exit(any(name.startswith('colossalai_env') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_kit_imports_neither_torch_nor_pytest() -> None:
    program = "import colossalai_env.testing, sys; sys.exit(bool({'torch', 'numpy', 'pytest'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", program], check=True)
