"""init_from_env() in real processes: under torchrun, by hand, by arguments, and alone."""

import json
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import TORCHRUN, Ended, Processes, free_port, run, wait_until_listening
from tests.warm import torchrun, warm

pytestmark = pytest.mark.slow

SUM = Path(__file__).parent / "programs" / "sum.py"


def told(ended: list[Ended]) -> list[dict[str, Any]]:
    """Return what all ranks printed, by rank; each must have ended well and in silence."""
    for process in ended:
        assert process.code == 0, process.err
        assert "Warning" not in process.err
    return sorted(
        (json.loads(line) for process in ended for line in process.lines("TOLD ")), key=lambda one: one["rank"]
    )


def assert_world(ranks: list[dict[str, Any]], size: int, resolver: str) -> None:
    """Hold what all ranks say against a world on one host."""
    host = socket.gethostname()
    assert [one["rank"] for one in ranks] == list(range(size))
    for one in ranks:
        assert one["sum"] == size * (size + 1) / 2
        assert (one["world_size"], one["resolver"], one["environ"]) == (size, resolver, True)
        assert one["peers"] == [[other["rank"], other["local_rank"], host] for other in ranks]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_torchrun_standalone(count: int) -> None:
    starter = TORCHRUN if count == 2 else torchrun()
    ranks = told([run([*starter, "--standalone", f"--nproc-per-node={count}", SUM])])
    assert_world(ranks, count, "torch")
    assert [one["local_rank"] for one in ranks] == list(range(count))


@pytest.mark.parametrize(
    "rendezvous",
    [["--rdzv-backend=c10d", "--rdzv-id=seven"], ["--rdzv-backend=static"]],
    ids=["c10d", "static"],
)
def test_two_torchrun_agents_on_one_host_of_unequal_size(rendezvous: list[str]) -> None:
    with Processes() as processes:
        port = free_port()
        for node, count in enumerate([2, 1]):
            where = ["--node-rank", str(node), "--nnodes=2", f"--nproc-per-node={count}"]
            if "c10d" in rendezvous[0]:
                where += [f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1"]
            else:
                where += ["--master-addr=127.0.0.1", f"--master-port={port}"]
            processes.start([*torchrun(), *rendezvous, *where, SUM])
        ranks = told(processes.wait())
    assert_world(ranks, 3, "torch")
    assert {one["num_nodes"] for one in ranks} == {2}
    assert sorted(one["local_world_size"] for one in ranks) == [1, 2, 2]


def test_a_worker_that_crashes_once_rejoins_with_the_others() -> None:
    command = [*torchrun(), "--standalone", "--nproc-per-node=2", "--max-restarts=1", str(SUM), "--crash-once"]
    ended = run(command)
    assert ended.code == 0, ended.err
    ranks = sorted((json.loads(line) for line in ended.lines("TOLD ")), key=lambda one: one["rank"])[-2:]
    assert_world(ranks, 2, "torch")
    assert all(one["job_id"].endswith("/1") for one in ranks)


def test_the_old_launch_module_with_and_without_use_env() -> None:
    launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.launch", "--nproc-per-node=2"]
    for options in (launch, [*launch, "--use-env"]):
        ended = run([*options, f"--master-port={free_port()}", str(SUM)], {"PYTHON_EXEC": warm()})
        assert ended.code == 0, ended.err
        ranks = sorted((json.loads(line) for line in ended.lines("TOLD ")), key=lambda one: one["rank"])
        assert_world(ranks, 2, "torch")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_arguments_by_hand_also_with_ipv6(host: str) -> None:
    with Processes() as processes:
        port = free_port()
        for rank in (1, 0):
            identity = ["--rank", str(rank), "--world_size=2", f"--host={host}", f"--port={port}"]
            processes.start([warm(), SUM, *identity])
        ranks = told(processes.wait())
    assert_world(ranks, 2, "cli-args")
    assert [(one["local_rank"], one["local_world_size"], one["num_nodes"]) for one in ranks] == [(0, 2, 1), (1, 2, 1)]
    assert ranks[0]["host"] == host


def test_variables_by_hand_without_a_local_rank() -> None:
    with Processes() as processes:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for rank in range(2):
            processes.start([warm(), SUM], {"RANK": str(rank), **shared})
        ranks = told(processes.wait())
    assert_world(ranks, 2, "torch")
    assert [one["local_rank"] for one in ranks] == [0, 1]


def test_a_slurm_step_on_one_node_meets_on_loopback_at_a_port_of_its_own() -> None:
    step = {
        "SLURM_JOB_ID": "212", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "0",
        "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "no-such-node[7]",
    }  # fmt: skip
    with Processes() as processes:
        for rank in "01":
            processes.start([warm(), SUM], {**step, "SLURM_PROCID": rank, "SLURM_LOCALID": rank})
        ranks = told(processes.wait())
    assert_world(ranks, 2, "slurm")
    assert {one["host"] for one in ranks} == {"127.0.0.1"}


def test_the_roll_call_can_be_left_out_where_the_launcher_says_all() -> None:
    program = """
import colossalai_env, torch
job = colossalai_env.init_from_env(timeout=120)
total = torch.ones(1)
torch.distributed.all_reduce(total)
print(f"TOLD {total.item()} {job.local_rank} {len(job.topology)}\\n", end="")
"""
    off = {"COLOSSALAI_ENV_ROLL_CALL": "off"}
    ended = run([*torchrun(), "--standalone", "--nproc-per-node=2", "--no-python", warm(), "-c", program], off)
    assert ended.code == 0, ended.err
    assert sorted(ended.lines("TOLD ")) == ["2.0 0 0", "2.0 1 0"]


BATCHED, NUMBERED = "GLOO_ENABLE_STORE_V2_API", "GLOO_ENABLE_RANK_AS_SEQUENCE_NUMBER"


@pytest.mark.parametrize(
    ("own", "during"),
    [
        ({}, ["1", "1"]),
        ({BATCHED: "0"}, ["0", "1"]),
        ({NUMBERED: "0"}, ["1", "1"]),
        ({"COLOSSALAI_ENV_ROLL_CALL": "off"}, ["1", ""]),
    ],
)
def test_gloo_is_told_how_to_read_all_addresses_and_the_users_own_words_are_back_when_the_group_is_made(
    own: dict[str, str], during: list[str], tmp_path: Path
) -> None:
    """Gloo asks the C library while the group is made; whatever the program starts later is told nothing.

    The ranks have to agree on what numbers their connections have, so that is not left to each one's variables.
    """
    config = tmp_path / "config.py"
    config.write_text(f"""
import ctypes
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
during = [(getenv(name) or b"").decode() for name in ({BATCHED.encode()!r}, {NUMBERED.encode()!r})]
""")
    program = f"""
import os, subprocess, sys, colossalai_env
before = dict(os.environ)
with colossalai_env.init_from_env(timeout=120, config=sys.argv[1]) as job:
    assert dict(os.environ) == before
    later = [subprocess.run(["printenv", name], capture_output=True, text=True) for name in ({BATCHED!r}, {NUMBERED!r})]
    print(f"TOLD {{[*job.config.during]}} {{[child.stdout.strip() for child in later]}}\\n", end="")
"""
    command = [*torchrun(), "--standalone", "--nproc-per-node=2", "--no-python", warm(), "-c", program]
    ended = run([*command, config], own)
    assert ended.code == 0, ended.err
    assert ended.lines("TOLD ") == [f"{during} {[own.get(BATCHED, ''), own.get(NUMBERED, '')]}"] * 2


def test_what_gloo_is_told_is_taken_back_where_rank_0_cannot_listen() -> None:
    program = """
import subprocess, colossalai_env
try:
    colossalai_env.init_from_env(timeout=120)
except colossalai_env.errors.PortTaken:
    names = ["GLOO_ENABLE_STORE_V2_API", "GLOO_ENABLE_RANK_AS_SEQUENCE_NUMBER", "GLOO_SOCKET_IFNAME"]
    child = subprocess.run(["printenv", *names], capture_output=True, text=True)
    print(f"TOLD {child.stdout.split()} {child.returncode}\\n", end="")
"""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        rank0 = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ended = run([warm(), "-c", program], rank0)
    assert ended.lines("TOLD ") == ["[] 1"], ended.err


@pytest.mark.xdist_group("name server")
@pytest.mark.skipif(os.geteuid() != 0, reason="another host name and resolv.conf need root")
def test_a_process_that_is_alone_does_not_wait_for_a_name_server(tmp_path: Path) -> None:
    """Gloo looks its host's own name up, and a name server that is silent took 10 s for it."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.9\n")
    there = f"hostname odd-host; for f in hosts resolv.conf; do mount --bind {tmp_path}/$f /etc/$f; done; exec "
    program = """
import colossalai_env, torch
with colossalai_env.init_from_env():
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
print(f"TOLD {total.item()}")
"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nameserver:
        nameserver.bind(("127.0.0.9", 53))
        ended = run(["unshare", "--mount", "--uts", "sh", "-ec", f'{there} "$@"', "sh", sys.executable, "-c", program])
        with pytest.raises(BlockingIOError):
            nameserver.recv(1, socket.MSG_DONTWAIT)
    assert ended.lines("TOLD ") == ["1.0"], ended.err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a thread does")
def test_a_thread_of_gloo_that_has_still_to_free_what_python_gave_it_does_so_before_the_group_goes() -> None:
    """Else torch may join it with the GIL held, for which it waits."""
    program = """
import ctypes, hashlib, threading, colossalai_env
named, freed = threading.Event(), []
def work():
    ctypes.CDLL(None).prctl(15, b"pt_gloo_runloop")  # the name of gloo's threads
    named.set()
    hashlib.sha256(bytes(1 << 28))  # without the GIL
    freed.append(True)
job = colossalai_env.init_from_env(timeout=120)
thread = threading.Thread(target=work)
thread.start()
named.wait()
job.close()
print(f"TOLD {freed}\\n", end="")
"""
    ended = run([warm(), "-c", program])
    assert ended.code == 0, ended.err
    assert ended.lines("TOLD ") == ["[True]"]


def test_an_interface_that_is_not_there_is_named_with_those_that_are() -> None:
    program = """
import colossalai_env
try:
    colossalai_env.init_from_env(rank=0, world_size=1)
except colossalai_env.errors.GroupFailed as error:
    print(f"TOLD {error}\\n", end="")
"""
    ended = run([warm(), "-c", program], {"GLOO_SOCKET_IFNAME": "lo,nowhere0.7"})
    (said,) = ended.lines("TOLD ")
    assert "Unable to find address for: nowhere0.7" in said
    assert "GLOO_SOCKET_IFNAME is 'lo,nowhere0.7'" in said
    assert "on this host these have one: lo" in said
    assert said.endswith("unset it, or name the one that joins the nodes.")


def test_a_rank_that_is_interrupted_when_its_group_is_made_leaves_none_behind() -> None:
    program = """
import colossalai_env, torch
from colossalai_env._rendezvous.formed import Gathered
connect = Gathered.connect
def interrupted(*args):
    connect(*args).settle()  # before that, the other rank's connect would fail of it
    raise KeyboardInterrupt
Gathered.connect = interrupted
try:
    colossalai_env.init_from_env(timeout=120)
except KeyboardInterrupt:
    print(f"TOLD {torch.distributed.is_initialized()}\\n", end="")
"""
    ended = run([*torchrun(), "--standalone", "--nproc-per-node=2", "--no-python", warm(), "-c", program])
    assert ended.code == 0, ended.err
    assert ended.lines("TOLD ") == ["False"] * 2


def test_a_rank_that_was_killed_when_its_group_was_made_does_not_hold_up_the_end_of_another() -> None:
    """It could not say any more that it has its group, and nobody ends the other: no launcher has started them."""
    program = """
import os, signal, colossalai_env
from colossalai_env._rendezvous import formed
if os.environ["RANK"] == "1":
    formed.announce = lambda rank: os.kill(os.getpid(), signal.SIGKILL)
colossalai_env.init_from_env(timeout=120)
"""
    with Processes() as processes:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for rank in ("0", "1"):
            processes.start([warm(), "-c", program], {"RANK": rank, **shared})
        first, second = processes.wait(60)
    assert (first.code, second.code) == (0, -signal.SIGKILL), first.err


@pytest.mark.parametrize("stop", ["SIGTERM", "SIGINT"])
def test_a_signal_is_served_though_the_code_that_it_interrupts_drops_it(stop: str, tmp_path: Path) -> None:
    """As torch's own import does: an exception in it while it looks for NumPy is a warning."""
    config = tmp_path / "config.py"
    config.write_text(f"""
import os, signal, threading
try:
    os.kill(os.getpid(), signal.{stop})
except BaseException:
    pass
threading.Event().wait(30)
""")
    program = "import sys, colossalai_env; colossalai_env.init_from_env(timeout=120, config=sys.argv[1] or None)"
    with Processes() as processes:
        port = free_port()
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.start([sys.executable, "-c", program, ""], {"RANK": "0", **shared})
        wait_until_listening(port)
        processes.start([sys.executable, "-c", program, str(config)], {"RANK": "1", **shared})
        waiting, stopped = processes.wait(20)
    assert stopped.code == -getattr(signal, stop)
    name = {"SIGTERM": "SIGTERM", "SIGINT": "Ctrl-C"}[stop]
    assert re.search(rf"RankFailed: rank 1 \(pid \d+ on .*\) failed: was stopped by {name}", waiting.err)


def test_a_rank_that_fails_while_rank_0_imports_torch_is_heard_when_that_is_done(tmp_path: Path) -> None:
    """Its own error does not wait for so long, but what it says stays in the socket at which rank 0 listens."""
    gate = tmp_path / "rank 1 has ended"
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "torch.py").write_text(f"""
import importlib, os, sys, time
while not os.path.exists({str(gate)!r}):
    time.sleep(0.05)
sys.path.remove({str(slow)!r})
del sys.modules["torch"]
sys.modules["torch"] = importlib.import_module("torch")
""")
    program = "import colossalai_env; colossalai_env.init_from_env(timeout=120)"
    with Processes() as processes:
        port = free_port()
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.start([sys.executable, "-c", program], {"RANK": "0", "PYTHONPATH": str(slow), **shared})
        wait_until_listening(port)
        processes.start([sys.executable, "-c", program], {"RANK": "1", "LOCAL_RANK": "x", **shared}).wait(60)
        gate.touch()
        first, second = processes.wait(60)
    assert "MalformedVariable: torch: LOCAL_RANK is 'x'" in second.err
    assert re.search(r"RankFailed: rank 1 \(pid \d+ on .*\) failed: torch: LOCAL_RANK is 'x'", first.err)


def test_sigterm_ends_the_process_though_the_others_cannot_be_told() -> None:
    program = """
import os, signal
from colossalai_env._signals import interruptible
def tell(why): raise OSError(why)
with interruptible(tell):
    os.kill(os.getpid(), signal.SIGTERM)
"""
    assert run([sys.executable, "-c", program]).code == -signal.SIGTERM


@pytest.mark.xdist_group("name server")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_a_name_server_that_never_answers_delays_torch_and_is_named_but_stops_nobody(tmp_path: Path) -> None:
    """Torch looks an address's name up before it connects to it, and glibc waits twice 5 s for an answer."""
    settings = tmp_path / "resolv.conf"
    settings.write_text("nameserver 127.0.0.9\n")
    mounted = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f"mount --bind {settings} /etc/resolv.conf && exec {sys.executable} {SUM}",
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, Processes() as processes:
        silent.bind(("127.0.0.9", 53))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for rank in range(2):
            processes.start(mounted, {"RANK": str(rank), **shared})
        ended = processes.wait()
    assert_world(told(ended), 2, "torch")
    for process in ended:
        assert re.search(
            r"torch's store took \d+\.\d s to connect to 127.0.0.1:\d+; .* colossalai-env doctor", process.err
        )


def test_a_process_alone_needs_no_socket() -> None:
    program = """
import socket
def refuse(*_): raise AssertionError("a socket")
socket.socket.bind = socket.socket.connect = refuse
exec(open({path!r}).read())
"""
    ranks = told([run([warm(), "-c", program.format(path=str(SUM))])])
    assert_world(ranks, 1, "single-process")


def test_a_second_init_names_the_first_and_close_makes_room_for_another() -> None:
    program = """
import colossalai_env, torch.distributed as dist
job = colossalai_env.init_from_env()
try:
    colossalai_env.init_from_env()
except colossalai_env.errors.AlreadyInitialized as error:
    assert "<string>:3" in str(error) and "close()" in str(error), error
job.close(); job.close()
assert not dist.is_initialized()
again = colossalai_env.init_from_env()
assert dist.is_initialized()
"""
    ended = run([warm(), "-c", program])
    assert (ended.code, ended.err) == (0, "")


def test_a_call_while_another_joins_is_told_so(tmp_path: Path) -> None:
    """In two threads both would be the same rank; here a thread of the first call's config calls a second time."""
    config = tmp_path / "config.py"
    config.write_text("""
import threading, colossalai_env
told = []
def call():
    try:
        colossalai_env.init_from_env()
    except colossalai_env.ColossalaiEnvError as error:
        told.append(f"{type(error).__name__}: {error}")
thread = threading.Thread(target=call)
thread.start()
thread.join()
(told,) = told
del thread, call, threading, colossalai_env
""")
    program = "import sys, colossalai_env; print(colossalai_env.init_from_env(config=sys.argv[1]).config.told)"
    ended = run([sys.executable, "-c", program, str(config)])
    assert ended.out.startswith("AlreadyInitialized: this process is already joining its job, by a call"), ended.err


def test_a_group_made_without_us_is_not_taken_over() -> None:
    program = """
import colossalai_env, torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
try:
    colossalai_env.init_from_env()
except colossalai_env.errors.AlreadyInitialized as error:
    assert "without this library" in str(error), error
else:
    raise SystemExit(1)
"""
    assert run([warm(), "-c", program]).code == 0


def test_open_mpi_over_several_nodes_without_an_address_says_what_to_add() -> None:
    ompi = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    ended = run([sys.executable, "-c", "import colossalai_env; colossalai_env.init_from_env(timeout=3)"], ompi)
    assert ended.code == 1
    assert "export MASTER_ADDR and MASTER_PORT on every rank, or add --host" in ended.err


@pytest.mark.parametrize(
    "call",
    [
        "init_from_env(timeout=1)",
        "resolve(rank=3)",
        "launch('nowhere.py', 0, 1, '127.0.0.1', 29500, backend='gloo')",
        "launch_from_torch({})",
        "load_config('nowhere.py')",
    ],
)
def test_an_error_ends_at_the_callers_line(call: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"import colossalai_env\ncolossalai_env.{call}\n")
    ended = run([sys.executable, script], {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"})
    frames = [line for line in ended.err.splitlines() if line.startswith('  File "')]
    assert f'{script}", line 2' in frames[0], ended.err
    assert len(frames) == 2, ended.err
    assert ended.err.splitlines()[-1].startswith("colossalai_env.errors."), ended.err


def test_the_whole_traceback_of_an_error_is_logged_for_whoever_asks() -> None:
    program = """
import logging, colossalai_env
logging.basicConfig(level=logging.DEBUG)
colossalai_env.resolve(env={"RANK": "x", "WORLD_SIZE": "2"})
"""
    assert "in _decide" in run([sys.executable, "-c", program]).err


def test_after_an_error_in_the_block_the_group_is_left_alone() -> None:
    program = """
import colossalai_env, torch.distributed as dist
try:
    with colossalai_env.init_from_env():
        raise ValueError("mine")
except ValueError:
    assert dist.is_initialized()
raise KeyError("the end")
"""
    ended = run([warm(), "-c", program])
    assert ended.code == 1
    assert ended.err.strip().endswith("KeyError: 'the end'")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_on_a_host_of_ipv6_alone_all_ranks_meet_and_are_told_what_gloo_lacks() -> None:
    """What gloo falls back to, 127.0.0.1, is not there (torch 2.13)."""
    program = """
import colossalai_env
try:
    colossalai_env.init_from_env(timeout=30)
except colossalai_env.errors.GroupFailed as error:
    print(f"TOLD {error}\\n", end="")
"""
    script = 'ip link set lo up; ip -4 addr flush dev lo; for rank in 0 1; do RANK=$rank "$@" & done; wait'
    said = {"WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "29500"}
    with Processes() as processes:
        processes.start(["unshare", "--net", "bash", "-c", script, "bash", sys.executable, "-c", program], said)
        [ended] = processes.wait()
    told = ended.lines("TOLD ")
    assert len(told) == 2, ended.err
    assert all(one.startswith("the process group's backend gloo did not connect") for one in told)
