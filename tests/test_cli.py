"""The command colossalai-env, as a person at a shell sees it."""

import fcntl
import json
import os
import pty
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from colossalai_env import cli
from colossalai_env._addresses import reachable
from colossalai_env._devices import Accelerators
from colossalai_env.cli import doctor
from colossalai_env.resolver import Environ
from colossalai_env.testing.captures import RECORDED
from tests.devices import Fake
from tests.processes import Ended, clean_environment, run
from tests.warm import torchrun

COMMAND = [sys.executable, "-m", "colossalai_env"]

STEP = {
    "SLURM_JOB_ID": "212",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "3,2",
    "SLURM_STEP_NODELIST": "gpu-a[01-02]",
}


def typed(*words: str, env: dict[str, str] | None = None) -> Ended:
    return run([*COMMAND, *words], env)


def test_explain_says_who_this_process_is_and_why() -> None:
    ended = typed("explain", env=STEP)
    assert (ended.code, ended.err) == (0, "")
    assert "slurm           step       wins: rank 4 of 5" in ended.out
    assert "host              gpu-a01  <- SLURM_STEP_NODELIST" in ended.out


def test_the_installed_script_answers_in_every_process_of_a_launch() -> None:
    script = Path(sys.executable).parent / "colossalai-env"
    ended = run([*torchrun(), "--standalone", "--nproc-per-node=2", "--no-python", script, "explain", "--json"])
    assert ended.code == 0, ended.err
    decoder, rest, ranks = json.JSONDecoder(), ended.out.lstrip(), set[int]()
    while rest:
        report, end = decoder.raw_decode(rest)
        ranks.add(report["spec"]["rank"])
        rest = rest[end:].lstrip()
    assert ranks == {0, 1}


def test_a_launch_that_is_refused_ends_with_one_and_its_error() -> None:
    ended = typed("explain", env={**STEP, "SLURM_PROCID": "four"})
    assert ended.code == 1
    assert "SLURM_PROCID is 'four', expected a whole number" in ended.out
    report = json.loads(typed("explain", "--json", env={**STEP, "SLURM_PROCID": "four"}).out)
    assert report["error"]["type"] == "MalformedVariable"


DUMPS = {
    "env": "\n".join(f"{name}={value}" for name, value in STEP.items()) + "\n",
    "env with a bash function": "BASH_FUNC_ml%%=() {  eval x\n}\n" + "\n".join(f"{n}={v}" for n, v in STEP.items()),
    "env -0": "TEXT=two\nlines\0" + "".join(f"{name}={value}\0" for name, value in STEP.items()),
    "env -0 with names that no shell takes": "a.b/c d=1\0"
    + "".join(f"{name}={value}\0" for name, value in STEP.items()),
    "env with dots and dashes": "".join(f"{name}={value}\nsome.dotted-name=1\n" for name, value in STEP.items()),
    "env through Windows": "\ufeff" + "".join(f"{name}={value}\r\n" for name, value in STEP.items()),
    "json": json.dumps(STEP),
}


@pytest.mark.parametrize("kind", DUMPS)
def test_a_captured_environment_is_explained_and_nothing_else_is_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(DUMPS[kind].encode())
    ended = typed("explain", "--json", "--env-file", str(tmp_path / "dump"), env={"RANK": "1", "WORLD_SIZE": "2"})
    spec = json.loads(ended.out)["spec"]
    assert (ended.code, spec["rank"], spec["resolver"]) == (0, 4, "slurm")


def test_a_captured_environment_comes_through_standard_input_with_any_bytes() -> None:
    dump = b"NAME=\xff\xfe\n" + DUMPS["env"].encode()
    command, strict = [*COMMAND, "explain", "--json", "--env-file", "-"], {"PYTHONIOENCODING": "utf-8"}
    ended = subprocess.run(
        command, input=dump, capture_output=True, env=clean_environment(strict), check=True, timeout=60
    )
    assert json.loads(ended.stdout)["spec"]["rank"] == 4


def test_the_environment_of_a_running_process_is_explained() -> None:
    with subprocess.Popen(["sleep", "60"], env=STEP) as process:
        try:
            ended = typed("explain", "--json", "--env-file", f"/proc/{process.pid}/environ")
        finally:
            process.kill()
    assert json.loads(ended.out)["spec"]["rank"] == 4


def test_a_carriage_return_that_one_value_has_is_shown(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(DUMPS["env"].encode().replace(b"SLURM_PROCID=4", b"SLURM_PROCID=4\r"))
    ended = typed("explain", "--env-file", str(tmp_path / "dump"))
    assert ended.code == 1
    assert r"SLURM_PROCID is '4\r', expected a whole number" in ended.out


def test_every_task_of_a_recorded_launch_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    recorded = [str(RECORDED / f"{name}.json") for name in ("slurm_block", "slurm_salloc_shell.shell")]
    assert cli.main(["explain", "--json", "--env-file", recorded[0]]) == 0
    tasks: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["tasks"]
    assert [(task["hostname"], task["spec"]["rank"]) for task in tasks[1:4]] == [
        ("gpu-a01", 1),
        ("gpu-a02", 2),
        ("gpu-a02", 3),
    ]
    assert cli.main(["explain", "--env-file", recorded[0]]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("Task")][2] == "Task 2 on gpu-a02"
    assert "wins: rank 5 of 6" in text
    assert cli.main(["explain", "--env-file", recorded[1]]) == 1
    assert "NotLaunched" in capsys.readouterr().out


def test_a_captured_environment_comes_with_the_arguments_of_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    script = ["--rank", "2", "--world_size", "4", "--host", "n1", "--port", "29500"]
    assert cli.main(["explain", "--json", "--env-file", os.devnull, "--", *script]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["resolver"] == "cli-args"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("just words\n", "line 1 is 'just words', expected NAME=VALUE"),
        ("export TOKEN=secret\n", "line 1 is 'export TOKEN=', expected NAME=VALUE"),
        ("RANK=1\0TOKEN", "entry 2 is 'TOKEN', expected NAME=VALUE"),
        ('{"RANK": 3}', "RANK is 3, expected a text"),
        ('{"variables": {"TOKEN": "secret"}}', "variables is a dict, expected a text"),
        ('{"tasks": [{"TOKEN": "secret"}]}', "tasks is no recorded launch, expected a list of objects"),
        ('{"tasks": []}', "tasks is no recorded launch, expected a list of objects"),
        ('{"RANK":\n "3"', "line 2: Expecting"),
        pytest.param('{"RANK":' * 100_000, "is nested too deeply, expected names and texts", id="deep"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_environment_is_refused(
    text: str | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "dump").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["explain", "--env-file", str(tmp_path / "dump")])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert complaint in told
    assert "secret" not in told


def test_a_terminal_gets_tables_with_the_same_words() -> None:
    plain, rich = typed("explain", env=STEP), typed("explain", env={**STEP, "FORCE_COLOR": "1", "COLUMNS": "160"})
    assert "┃" in rich.out
    assert "┃" not in plain.out
    for words in ("wins: rank 4 of 5", "SLURM_STEP_NODELIST"):
        assert words in rich.out
        assert words in plain.out


@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "drawn"])
def test_a_doubt_is_shown_with_the_answer(env: dict[str, str]) -> None:
    ended = typed("explain", env={"MASTER_ADDR": "gpu-a01", **env})
    assert ended.code == 0
    assert (
        "Warning: env://: this is set, and neither a rank nor a number of processes (MASTER_ADDR='gpu-a01')"
        in ended.out
    )


@pytest.mark.parametrize(("columns", "drawn"), [(120, True), (0, False)])
def test_a_terminal_without_a_width_is_a_launchers_and_gets_plain_text(columns: int, *, drawn: bool) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    with subprocess.Popen([*COMMAND, "explain"], stdout=theirs, env=clean_environment(STEP)) as process:
        os.close(theirs)
        text = b""
        with suppress(OSError):  # how a pseudo-terminal ends
            while part := os.read(ours, 1 << 16):
                text += part
        os.close(ours)
        assert process.wait(60) == 0
    assert (b"wins: rank 4 of 5" in text, "┃".encode() in text) == (True, drawn)


def test_plugins_lists_what_is_installed_and_what_is_disabled(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["plugins"]
    assert [row["plugin"] for row in rows] == sorted(entry.name for entry in entry_points(group="colossalai_env"))
    slurm = next(row for row in rows if row["plugin"] == "slurm")
    assert (slurm["layer"], slurm["state"], slurm["ways"]) == ("step", "ready", ["layout", "node"])
    assert "SLURM_PROCID" in slurm["variables"]
    ended = typed("plugins", env={"COLOSSALAI_ENV_DISABLE": "hydra,torch"})
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines() if line.endswith(" disabled")] == ["hydra", "torch"]
    assert "hydra is disabled: COLOSSALAI_ENV_DISABLE names it" in ended.out
    assert "slurm reads SLURM_PROCID, " in ended.out


def installed(folder: Path, source: str) -> dict[str, str]:
    """Install a plugin `house` there, and return the variables with which it is found."""
    info = folder / "house_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[colossalai_env]\nhouse = house_plugin\n")
    (folder / "house_plugin.py").write_text(source)
    return {"PYTHONPATH": str(folder)}


PLUGIN = """
from colossalai_env.resolver import Layer, NoMatch, hookimpl
class House:
    name, layer = "house", Layer.MPI
    def resolve(self, environ): return NoMatch("no house")
    def emulate(self, spec): raise NotImplementedError
    def variables(self): raise LookupError("no table")
@hookimpl
def colossalai_env_resolvers(): return [House()]
"""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import absent_library\n", "No module named 'absent_library'"),
        ("raise SystemExit('no licence')\n", "SystemExit: no licence"),
        (PLUGIN.replace("Layer.MPI", "3"), "expected a Layer"),
        (PLUGIN, "does not tell what it reads: LookupError: no table"),
    ],
    ids=["import", "leaving", "no layer", "no variables"],
)
def test_plugins_shows_a_broken_one_beside_the_others_and_fails(source: str, told: str, tmp_path: Path) -> None:
    ended = typed("plugins", env=installed(tmp_path, source))
    assert (ended.code, ended.err) == (1, "")
    assert "house house-plugin 1.0 unusable" in " ".join(ended.out.split())
    assert "plugin 'house' of house-plugin 1.0: " in ended.out
    assert told in ended.out
    assert "slurm colossalai-env" in " ".join(ended.out.split())


def test_a_broken_plugin_is_an_error_of_every_command(tmp_path: Path) -> None:
    env = installed(tmp_path, "import absent_library\n")
    report = json.loads(typed("explain", "--json", env=env).out)
    assert report["error"]["type"] == "BrokenPlugin"
    code, found = examined(env)
    assert (code, found["plugins"]["state"]) == (1, "wrong")


def test_plugins_shows_one_that_brings_no_resolver(tmp_path: Path) -> None:
    ended = typed("plugins", env=installed(tmp_path, PLUGIN.replace("[House()]", "[]")))
    assert ended.code == 0
    assert "house is empty: its hook brings no resolver" in ended.out


@pytest.mark.parametrize("words", [["explain"], ["plugins", "--json"]])
@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "drawn"])
def test_a_reader_that_leaves_ends_a_command_without_a_word(words: list[str], env: dict[str, str]) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    ended = subprocess.run(
        [*COMMAND, *words], stdout=ours, stderr=subprocess.PIPE, env=clean_environment(env), check=False, timeout=60
    )
    os.close(ours)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_output_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, "explain"], stdout=full, stderr=subprocess.PIPE, env=clean_environment(), check=False, timeout=60
        )
    assert ended.returncode == 1
    assert ended.stderr == b"standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", ["explain", "explain --json", "plugins"])
def test_standard_output_that_is_closed_is_an_error(command: str) -> None:
    words = ["sh", "-c", f'exec "$@" {command} >&-', "sh", *COMMAND]
    ended = subprocess.run(words, stderr=subprocess.PIPE, env=clean_environment(), check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, b"standard output cannot be written: it is closed\n")


def test_standard_input_that_is_closed_is_no_environment() -> None:
    words = ["sh", "-c", 'exec "$@" explain --env-file - <&-', "sh", *COMMAND]
    ended = subprocess.run(words, stderr=subprocess.PIPE, env=clean_environment(), check=False, timeout=60)
    assert ended.returncode == 2
    assert b"--env-file: - is standard input, which is closed" in ended.stderr


def test_an_interrupted_command_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    os.mkfifo(dump)
    command = [*COMMAND, "explain", "--env-file", str(dump)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=clean_environment())
    with process, dump.open("w"):  # which opens when the command has, and now reads
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, b"")


def test_a_narrow_terminal_cuts_nothing_off() -> None:
    ended = typed("plugins", env={"FORCE_COLOR": "1", "COLUMNS": "40"})
    assert "…" not in ended.out


def examined(env: dict[str, str] | None = None) -> tuple[int, dict[str, dict[str, str]]]:
    ended = typed("doctor", "--json", env=env)
    assert ended.err == ""
    return ended.code, {finding["topic"]: finding for finding in json.loads(ended.out)}


def test_doctor_looks_at_versions_devices_names_and_limits() -> None:
    _, found = examined()
    expected = {"versions", "torch", "devices", "plugins", "host name", "reverse DNS", "open files", "ports"}
    assert expected <= set(found)
    names = found["plugins"]["found"].split(", ")
    assert sorted(names) == sorted(entry.name for entry in entry_points(group="colossalai_env"))
    assert (names[:2], names.index("slurm") < names.index("sagemaker")) == (["cli-args", "torch"], True)
    assert all(finding["advice"] for finding in found.values() if finding["state"] == "wrong")


def test_doctor_finds_what_is_wrong_says_what_to_do_and_ends_with_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        code, found = examined(
            {
                "GLOO_SOCKET_IFNAME": "absent0",
                "NCCL_SOCKET_IFNAME": "lo",
                "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
                "CUDA_VISIBLE_DEVICES": "",
                "HTTP_PROXY": "http://p",
            }
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == 1
    assert found["GLOO_SOCKET_IFNAME"]["state"] == "wrong"
    assert "use one of lo" in found["GLOO_SOCKET_IFNAME"]["advice"]
    assert found["NCCL_SOCKET_IFNAME"]["found"] == "is lo, which no other host can reach"
    assert found["TORCH_DISTRIBUTED_DEBUG"]["state"] == "note"
    assert found["devices"]["found"] == "no accelerator is visible, and CUDA_VISIBLE_DEVICES is ''"
    assert found["HTTP_PROXY"]["state"] == "note"
    assert found["open files"]["state"] == "note"
    assert f"ulimit -n {hard}" in found["open files"]["advice"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise ImportError('libcudart.so.12: cannot open shared object file')\n", "libcudart"),
        ("raise RuntimeError('NumPy was built for another Python')\n", "RuntimeError: NumPy"),
        ("__version__, distributed = '2.4.1', None\n", "2.4.1 has no torch.accelerator"),
    ],
    ids=["library", "failing", "old"],
)
def test_doctor_goes_on_where_torch_cannot_be_used(source: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(source)
    code, found = examined({"PYTHONPATH": str(tmp_path)})
    assert (code, found["torch"]["state"]) == (1, "wrong")
    assert told in found["torch"]["found"]
    assert "ports" in found


HERE = {"files": ["/dev/nvidia0"], "ids": ["GPU-aa"], "known": 1, "driver": "580.95.05"}
NAMED = "1 NVIDIA GPU(s) (/dev/nvidia0, driver 580.95.05), and torch sees none: "


@pytest.mark.parametrize(
    ("fake", "value", "state", "found"),
    [
        (Fake(ids=("GPU-aa", "GPU-bb")), None, "ok", "2 of kind cuda: GPU-aa, GPU-bb"),
        (Fake(ids=("",)), "0", "ok", "1 of kind cuda; CUDA_VISIBLE_DEVICES is '0'"),
        (Fake(ids=("GPU-aa",), refuses="too old"), None, "wrong", "1 of kind cuda, and its driver says: too old"),
        (Fake(machine=HERE), "1", "wrong", f"{NAMED}CUDA_VISIBLE_DEVICES is '1', and '1' is none of its devices, 0"),
        (Fake(machine=HERE, refuses="too old"), None, "wrong", f"{NAMED}its driver says: too old"),
        (Fake(machine=HERE), "", "note", "no accelerator is visible, and CUDA_VISIBLE_DEVICES is ''"),
        (Fake(kind="cpu", maker="", machine=HERE), None, "note", f"{NAMED}this torch is built for CPUs"),
        (Fake(), None, "note", "no accelerator: the CPU, with gloo"),
    ],
)
def test_doctor_finds_devices_as_init_does(
    fake: Fake, value: str | None, state: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.put(monkeypatch.setattr)
    environ = Environ({} if value is None else {"CUDA_VISIBLE_DEVICES": value})
    finding = doctor.devices(Accelerators.here(), environ)
    assert (finding.state, finding.found) == (state, found)
    assert finding.advice or state == "ok"


NAMELESS = "127.0.0.1 localhost\n"


@pytest.mark.xdist_group("name server")
@pytest.mark.skipif(os.geteuid() != 0, reason="another host name and resolv.conf need root")
@pytest.mark.parametrize(
    ("hosts", "silent", "state", "told"),
    [
        (NAMELESS, True, "wrong", "odd-host took more than 0.5 s to look up"),
        (NAMELESS, False, "wrong", "odd-host has no address: "),
        (f"{NAMELESS}198.51.100.7 odd-host\n", True, "wrong", "is 198.51.100.7, which is another host's address"),
        (f"{NAMELESS}127.0.1.1 odd-host\n", True, "note", "is 127.0.1.1, which no other host can reach"),
    ],
    ids=["silent DNS", "no address", "stale address", "loopback"],
)
def test_doctor_looks_up_its_own_name_within_a_bound(
    hosts: str, silent: bool, state: str, told: str, tmp_path: Path
) -> None:
    if state == "note" and reachable(()) == "127.0.0.1":
        pytest.skip("no interface but loopback: nobody could be reached in any way")
    (tmp_path / "hosts").write_text(hosts)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.9\n")
    (tmp_path / "torch.py").write_text("raise ImportError('left out: it takes seconds')\n")
    there = f"hostname odd-host; for f in hosts resolv.conf; do mount --bind {tmp_path}/$f /etc/$f; done; exec "
    program = "from colossalai_env.cli import doctor, main; doctor.PATIENCE = 0.5; main(['doctor', '--json'])"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nameserver:
        if silent:  # asked, it never answers; where nobody listens, the kernel says so at once
            nameserver.bind(("127.0.0.9", 53))
        command = ["unshare", "--mount", "--uts", "sh", "-ec", f'{there} "$@"', "sh", sys.executable, "-c", program]
        ended = run(command, {"PYTHONPATH": str(tmp_path)})
    found = {finding["topic"]: finding for finding in json.loads(ended.out)}
    assert (found["host name"]["state"], found["host name"]["advice"] != "") == (state, True)
    assert told in found["host name"]["found"]
    assert "ports" in found


def test_doctor_and_gloo_agree_on_which_interfaces_there_are() -> None:
    program = """
import json, os, sys
from torch import distributed
from colossalai_env._addresses import interface_names
from colossalai_env.cli import doctor
from colossalai_env.environ import Environ
usable = interface_names()
bare = next(iter({name for _, name in __import__("socket").if_nameindex()}.difference(usable)), "absent1")
for value in ["", "lo", "lo,", ",".join(usable), "absent0", "lo,absent0", "^lo", "=lo", " lo", bare]:
    os.environ["GLOO_SOCKET_IFNAME"] = value
    findings = doctor._variables(Environ({"GLOO_SOCKET_IFNAME": value}))
    well = all(finding.state != "wrong" for finding in findings)
    try:
        distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    except RuntimeError as error:
        assert "Unable to find address" in str(error) and not well, (value, error)
    else:
        assert well, value
        distributed.destroy_process_group()
"""
    ended = run([sys.executable, "-W", "ignore", "-c", program])
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("value", "state"),
    [
        ("eth", "ok"),
        ("ib,eth", "ok"),
        ("^lo", "ok"),
        ("^docker", "ok"),
        ("=eth0", "ok"),
        ("lo", "note"),
        ("=eth", "wrong"),
        ("^eth,lo", "wrong"),
        ("ib", "wrong"),
    ],
)
def test_doctor_reads_interfaces_as_nccl_does(value: str, state: str) -> None:
    assert doctor.interface("NCCL_SOCKET_IFNAME", value, ["lo", "eth0"]).state == state


@pytest.mark.parametrize("words", [[], ["explian"], ["explain", "--nonsense"]])
def test_a_command_typed_wrongly_ends_with_two_and_what_to_type(words: list[str]) -> None:
    ended = typed(*words)
    assert ended.code == 2
    assert "usage: colossalai-env" in ended.err


def test_every_command_has_help_with_an_example() -> None:
    assert typed("--help").code == 0
    for command in cli.COMMANDS:
        assert f"colossalai-env {command}" in cli.parser_of(command).format_help()


def test_explain_and_plugins_import_neither_torch_nor_rich() -> None:
    for command in ("explain", "plugins"):
        program = (
            f"import sys; from colossalai_env.cli import main; main([{command!r}]);"
            "assert not {'torch', 'rich', 'numpy', 'asyncio'} & set(sys.modules), sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)
