"""The launch interface: each form of Colossal-AI's page as a real script, and each wrong use with its own error."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import colossalai_env as colossalai
from colossalai_env.errors import IncompleteArguments, WrongLauncher
from tests.processes import Ended, Processes, free_port, run
from tests.warm import torchrun, warm

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent.parent / "examples" / "launch"
FORMS = pytest.mark.parametrize("config", [[], ["--config", SCRIPTS / "config.py"]], ids=["dict", "file"])


def assert_trained(ended: list[Ended], size: int, resolver: str) -> None:
    assert not any(process.code for process in ended), ended
    said = [line for process in ended for line in process.lines(f"{size} processes, {resolver}: loss ")]
    assert len(said) == 1
    assert float(said[0]) < 0.1


@FORMS
def test_the_native_form_trains(config: list[str | Path]) -> None:
    port = str(free_port())
    with Processes() as processes:
        for rank in ("1", "0"):
            where = ["--host", "localhost", "--port", port, "--world_size", "2", "--rank", rank, "--backend", "gloo"]
            processes.start([warm(), SCRIPTS / "native.py", *where, *config])
        assert_trained(processes.wait(), 2, "cli-args")


@FORMS
def test_the_torchrun_form_trains_on_one_node(config: list[str | Path]) -> None:
    command: list[str | Path] = [
        *torchrun(),
        "--standalone",
        "--nproc-per-node=2",
        SCRIPTS / "from_torch.py",
        "--backend=gloo",
        *config,
    ]
    assert_trained([run(command)], 2, "torch")


def test_the_torchrun_form_trains_under_two_agents() -> None:
    where = ["--master-addr=127.0.0.1", f"--master-port={free_port()}", "--nnodes=2", "--nproc-per-node=1"]
    with Processes() as processes:
        for node in ("0", "1"):
            processes.start([*torchrun(), *where, f"--node-rank={node}", SCRIPTS / "from_torch.py", "--backend=gloo"])
        assert_trained(processes.wait(), 2, "torch")


def test_the_parser_takes_dashes_and_further_arguments() -> None:
    parser = colossalai.get_default_parser()
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args(["--world-size", "4", "--local-rank=1", "--rank", "2", "--epochs", "3", "--port", "29500"])
    assert (args.world_size, args.local_rank, args.rank, args.port) == (4, 1, 2, 29500)
    assert (args.epochs, args.backend, args.config, args.host) == (3, "nccl", None, None)
    assert colossalai.get_default_parser().parse_args(["--world_size", "4"]).world_size == 4


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rank", "1.0"], "argument --rank: expected a whole number"),
        (["--world_size", "0"], "argument --world_size/--world-size: expected"),
        (["--port", "99999"], "argument --port: expected"),
    ],
)
def test_the_parser_refuses_what_is_no_number(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        colossalai.get_default_parser().parse_args(words)
    assert complaint in capsys.readouterr().err


CALL = """
import logging, sys
import colossalai_env as colossalai
logging.basicConfig(level="INFO", format="LOG %(message)s", stream=sys.stdout)
job = colossalai.{call}
import random, torch
import numpy
draws = [random.random(), numpy.random.rand(), torch.rand(()).item()]
sys.stdout.write(f"DRAWS {{draws}}\\nCONFIG {{job.config!r}} {{job.local_rank}} {{job.backend}}\\n")
"""


def called(call: str, env: dict[str, str] | None = None) -> Ended:
    return run([warm(), "-c", CALL.format(call=call)], env)


def test_one_process_has_its_config_its_seed_and_one_line_in_the_log() -> None:
    call = "launch({'lr': 1}, 0, 1, 'localhost', 29500, backend='gloo', seed=%d, verbose=%s)"
    ended = [called(call % (7, True)), called(call % (7, False)), called(call % (8, True))]
    assert {process.code for process in ended} == {0}
    draws = [process.lines("DRAWS ") for process in ended]
    assert draws[0] == draws[1] != draws[2]
    assert ended[0].lines("CONFIG ") == ["Config({'lr': 1}) 0 gloo"]
    assert [len(process.lines("LOG ")) for process in ended] == [1, 0, 1]


TORCH = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_STEP_NODELIST": "n1",
}


@pytest.mark.parametrize(
    ("call", "env", "said"),
    [
        (
            "launch_from_torch({})",
            {},
            "no launcher: start it with torchrun, or call launch(config, rank, world_size, h",
        ),
        (
            "launch_from_torch({})",
            SLURM,
            "started by srun: start it with torchrun, or call launch_from_slurm(config, h",
        ),
        ("launch_from_slurm({})", TORCH, "started by torchrun: start it with srun, or call launch_from_torch(config)"),
        ("launch_from_openmpi({}, 'h', 1234)", {}, "or call launch(config, rank, world_size, host, port)"),
        (
            "launch_from_slurm({})",
            {**SLURM, **TORCH, "WORLD_SIZE": "4", "RANK": "3"},
            "torch, which is nearer, says rank 3 of 4, and slurm says rank 1 of 2. This one seems to be st",
        ),
        (
            "launch_from_torch({})",
            {**SLURM, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"},
            "slurm says rank 1 of 2 (SLURM_PROCID, SLURM_STEP_NUM_TASKS): RANK seems to have been set too early",
        ),
        ("launch_from_torch(None)", TORCH, "config=None: a config is required, a path or a dict"),
        ("launch_from_torch('absent.py')", TORCH, "absent.py: it cannot be read: No such file"),
        ("launch_from_torch({})", TORCH, "NCCL needs a GPU and none is visible: use --backend gloo"),
        ("launch_from_torch({}, backend='mcll')", TORCH, "torch knows no backend 'mcll': use one of"),
        ("launch({}, 5, 2, 'localhost', 29500)", {}, "rank counts from 0 and must be below world_size (rank 5)"),
        (
            "launch({}, None, 2, 'localhost', 29500)",
            {},
            "--world_size and --host and --port given, but nothing says --r",
        ),
        ("launch({}, 0, None, 'localhost', 29500)", {}, "nothing says --world_size"),
        ("launch({}, -1, -1, 'localhost', 29500)", TORCH, "nothing says --rank and --world_size"),
    ],
)
def test_wrong_use_ends_at_once_with_what_to_type(call: str, env: dict[str, str], said: str) -> None:
    ended = called(call, env)
    assert ended.code == 1
    assert said in ended.err


def test_a_call_without_a_config_is_a_usual_type_error() -> None:
    unchecked: Any = colossalai.launch_from_torch
    with pytest.raises(TypeError, match="config"):
        unchecked()


def test_an_unreadable_config_on_one_rank_is_told_to_the_others(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("lr = 1 +\n")
    port = str(free_port())
    with Processes() as processes:
        for rank in ("0", "1"):
            where = ["--host=127.0.0.1", f"--port={port}", "--world_size=2", f"--rank={rank}", "--backend=gloo"]
            where += ["--config", str(config)] if rank == "1" else []
            processes.start([warm(), SCRIPTS / "native.py", *where])
        ended = processes.wait()
    assert [process.code for process in ended] == [1, 1]
    assert all(f"{config}, line 1: invalid syntax" in process.err for process in ended)


def test_importing_and_parsing_set_no_variable_and_need_no_torch() -> None:
    program = (
        "import os, sys; before = dict(os.environ)\n"
        "import colossalai_env as c; c.get_default_parser(); c.load_config({})\n"
        "assert os.environ == before and 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_launch_names_what_is_missing_before_it_looks_anywhere() -> None:
    unchecked: Any = colossalai.launch
    with pytest.raises(IncompleteArguments, match=r"^nothing says --rank and --world_size and --host and --port: give"):
        unchecked({}, None, None, None, None)
    with pytest.raises(WrongLauncher, match="launch_from_openmpi"):
        colossalai.launch_from_openmpi({})
