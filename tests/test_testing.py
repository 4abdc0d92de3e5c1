"""The kit: what its strategies draw, how launches are replayed and played."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
from colossalai_env_args import CLI_ARGS
from colossalai_env_aws_batch import AWS_BATCH
from colossalai_env_hydra import HYDRA
from colossalai_env_openmpi import OPENMPI
from colossalai_env_slurm import SLURM
from colossalai_env_torch import TORCH
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from colossalai_env import DistSpec
from colossalai_env.errors import InvalidSpec
from colossalai_env.resolver import Claim, Invalid, Layer, NoMatch, Resolver, var
from colossalai_env.testing import BrokenLaw, Capture, Layout, captures, environs, launch_as, layouts, replay
from tests.processes import free_port
from tests.warm import warm

pytestmark = pytest.mark.slow


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


SHAPES: dict[str, Callable[[tuple[int, ...]], bool]] = {
    "uneven": lambda nodes: nodes == (0, 0, 1),
    "cyclic": lambda nodes: nodes == (0, 1, 0, 1),
    "in planes of two": lambda nodes: nodes == (0, 0, 1, 1, 0, 1),
    "in any other order": lambda nodes: len(nodes) > 2 and nodes[0] != nodes[1] == nodes[2] and nodes[0] in nodes[3:],
    "led by another node than the first": lambda nodes: nodes[0] != 0,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_launches_are_drawn_of_every_shape(shape: str) -> None:
    find(layouts(6), lambda layout: SHAPES[shape](layout.nodes), settings=FOUND)


def test_local_ranks_need_not_follow_the_ranks() -> None:
    def follow(layout: Layout) -> bool:
        counted = attrs.evolve(layout, local_ranks=None)
        return all(layout.spec(rank) == counted.spec(rank) for rank in range(layout.world_size))

    find(layouts(4), lambda layout: not follow(layout), settings=FOUND)


@pytest.mark.parametrize("kind", [Claim, NoMatch, Invalid])
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


def capture(name: str) -> Capture:
    return next(capture for capture in captures() if capture.scenario == name)


def test_a_replayed_launch_is_the_specs_of_its_ranks() -> None:
    specs = replay(HYDRA, capture("impi_wrapped"))
    assert [spec.rank for spec in sorted(specs, key=lambda spec: spec.rank)] == list(range(6))


def test_a_lie_about_a_recorded_launch_is_told_with_task_field_and_truth() -> None:
    liar = attrs.evolve(HYDRA, local_rank=HYDRA.rank)
    with pytest.raises(BrokenLaw, match=r"hydra: .*task \d of impi_wrapped, on gpu-"):
        replay(liar, capture("impi_wrapped"))


def test_a_place_that_is_no_world_must_be_refused() -> None:
    refused = next(one for one in captures() if "several tasks were asked for" in one.tasks[0].truth.get("why", ""))
    assert replay("slurm", refused) == ()
    number = var("SLURM_JOB_ID", read=lambda _: 0)
    eager = Resolver(name="eager", layer=Layer.STEP, detect="SLURM_JOB_ID", rank=number, world_size=var("SLURM_NTASKS"))
    with pytest.raises(BrokenLaw, match="is no world"):
        replay(eager, refused)


TWO_NODES = Layout(("gpu-a01", "gpu-a02"), (0, 1, 0, 1))
WHO = "import json, colossalai_env as c; s = c.resolve(); print(json.dumps([s.rank, s.local_rank, s.host, s.resolver]))"


@pytest.mark.parametrize(
    ("resolver", "job_id", "host"),
    [
        (SLURM, "7.0", "127.0.0.1"),
        (TORCH, "bed/0", "127.0.0.1"),
        (HYDRA, "u", "127.0.0.1"),
        (CLI_ARGS, None, "127.0.0.1"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_processes_are_started_as_the_launcher_would(resolver: Resolver, job_id: str | None, host: str) -> None:
    ended = launch_as(resolver, attrs.evolve(TWO_NODES, job_id=job_id), [sys.executable, "-c", WHO])
    assert [one.code for one in ended] == [0] * 4, ended
    told = [json.loads(one.out) for one in ended]
    assert told == [[rank, local, host, resolver.name] for rank, local in enumerate([0, 0, 1, 1])]


@pytest.mark.parametrize(
    ("resolver", "job_id"), [(TORCH, "bed/0"), (HYDRA, "u"), (OPENMPI, "7")], ids=["torch", "hydra", "openmpi"]
)
def test_code_for_several_nodes_runs_on_one_machine(resolver: Resolver, job_id: str) -> None:
    """Hydra and Open MPI say no node's number: there one local rank for two tells that these are two nodes."""
    layout = attrs.evolve(TWO_NODES, port=free_port(), job_id=job_id)
    ended = launch_as(resolver, layout, [warm(), "tests/programs/sum.py"], seconds=120)
    assert [one.code for one in ended] == [0] * 4, ended
    told = [json.loads(one.out.split("TOLD ")[1]) for one in ended]
    assert [(one["sum"], one["node_rank"], one["num_nodes"]) for one in told] == [
        (10, rank % 2, 2) for rank in range(4)
    ]


def test_what_does_not_end_in_time_is_killed_with_what_it_started(tmp_path: Path) -> None:
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    program = f"import subprocess, sys; print('here', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    (ended,) = launch_as(HYDRA, Layout(("n0",), (0,), job_id="u"), [sys.executable, "-c", program], seconds=8)
    assert (ended.code, ended.out) == (None, "here\n")
    pid = int((tmp_path / "pid").read_text())
    with suppress(ProcessLookupError):  # it has ended
        descriptor = os.pidfd_open(pid)
        assert select.select([descriptor], [], [], 30)[0], f"{pid} still runs"
        os.close(descriptor)


def test_other_launchers_variables_around_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    (ended,) = launch_as(SLURM, Layout(("n0",), (0,), job_id="7.0"), [sys.executable, "-c", WHO])
    assert json.loads(ended.out) == [0, 0, "127.0.0.1", "slurm"]


def test_an_agents_store_is_refused_since_nobody_would_serve_it() -> None:
    with pytest.raises(ValueError, match="agent_store is True: no agent"):
        launch_as(TORCH, Layout(("n0",), (0,), job_id="a/0", agent_store=True), ["true"])


def test_variables_that_hide_the_launchers_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="hide slurm's"):
        launch_as(SLURM, Layout(("n0",), (0,), job_id="7.0"), ["true"], env={"TORCHELASTIC_RUN_ID": "x"})


def test_the_processes_of_a_launch_are_told_one_main_node() -> None:
    layout = Layout(("n0", "n1", "n2"), (1, 0, 2), job_id="7")
    program = "import os; print(os.environ['AWS_BATCH_JOB_NODE_INDEX'], os.environ['AWS_BATCH_JOB_MAIN_NODE_INDEX'])"
    ended = launch_as(AWS_BATCH, layout, [sys.executable, "-c", program])
    assert [one.out for one in ended] == ["1 1\n", "0 1\n", "2 1\n"]
    with pytest.raises(InvalidSpec, match="only aws-batch's main node leaves the order"):
        launch_as(AWS_BATCH, attrs.evolve(layout, nodes=(2, 1, 0)), ["true"])
