"""Rank 0's host from what launchers leave in files, and from the commands and servers of Flux and Horovod."""

import socket
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from colossalai_env_flux import ask_taskmap
from colossalai_env_horovod import HOROVOD, ask_rendezvous
from colossalai_env_htcondor import ask_job_ad
from colossalai_env_jsrun import ask_rank_file
from colossalai_env_pals import ask_application, ask_node_file
from colossalai_env_pals.apinfo import HEADER

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer, own_address

HERE = socket.gethostname()


def spec(rank: int = 1, resolver: str = "x") -> DistSpec:
    return DistSpec(rank=rank, world_size=4, resolver=resolver)


def install_flux(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    script = folder / "flux"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


TASK = {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "4", "FLUX_JOB_ID": "ƒ6Bq5GbH"}


@pytest.mark.parametrize(
    "printed", ["f1: 0-1\nf2: 2-3\n", "f2: 1,3\nf1: 0,2\n", "f2: 1-3\nf1: 0\n", "f10: 10\nf1: [0,2-3]\n"]
)
def test_flux_tells_which_host_has_task_0(printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_flux(tmp_path, monkeypatch, f'[ "$*" = "job taskmap --to=hosts ƒ6Bq5GbH" ] && printf "{printed}"')
    assert ask_taskmap(spec(), Environ(TASK), 5) == HostAnswer("f1", "flux job taskmap --to=hosts")


def test_an_id_that_the_locale_cannot_read_reaches_flux_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_flux(tmp_path, monkeypatch, '[ "$4" = "ƒ6" ] && echo f1: 0')
    job = "ƒ6".encode().decode("ascii", "surrogateescape")
    assert ask_taskmap(spec(), Environ({**TASK, "FLUX_JOB_ID": job}), 5) == HostAnswer(
        "f1", "flux job taskmap --to=hosts"
    )


def test_where_flux_has_no_command_or_the_task_no_id_it_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask_taskmap(spec(), Environ({}), 5) == "FLUX_JOB_ID is not set"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_taskmap(spec(), Environ(TASK), 5) == "the command flux is not installed here"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("echo no such job >&2; exit 1", "flux job taskmap failed: no such job"),
        ("echo f1: 1-3", "names no host of task 0"),
        ("echo a b: 0", "said 'a b', expected a host name"),
        ("exec sleep 60", "did not answer within 1 s"),
    ],
)
def test_what_flux_should_not_say_is_a_clear_error(
    body: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_flux(tmp_path, monkeypatch, body)
    with pytest.raises(CannotLocate, match=problem):
        ask_taskmap(spec(resolver="flux"), Environ(TASK), 1)


def job_ad(folder: Path, text: str) -> Environ:
    path = folder / ".job.ad"
    path.write_text(text)
    return Environ({"_CONDOR_JOB_AD": str(path)})


AD = 'AllRemoteHosts = "slot2@n1,slot1_1@n1,slot1@n3"\nClusterId = 2\nGlobalJobId = "n1#2.0#1795745097"\n'


def test_condors_description_of_the_job_names_node_0s_host(tmp_path: Path) -> None:
    told = ask_job_ad(spec(), job_ad(tmp_path, AD), 5)
    assert told == HostAnswer("n1", "AllRemoteHosts in the file of _CONDOR_JOB_AD", "n1#2.0#1795745097")
    assert ask_job_ad(spec(), Environ({}), 5) == "_CONDOR_JOB_AD is not set"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("ClusterId = 2\n", "AllRemoteHosts is not in"), ('AllRemoteHosts = "slot1@a b"\n', "expected a slot of a host")],
)
def test_a_description_without_hosts_is_a_clear_error(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(CannotLocate, match=problem):
        ask_job_ad(spec(resolver="htcondor"), job_ad(tmp_path, text), 5)
    with pytest.raises(CannotLocate, match="No such file"):
        ask_job_ad(spec(resolver="htcondor"), Environ({"_CONDOR_JOB_AD": str(tmp_path / "none")}), 5)


def application(nodes: list[str], of_ranks: list[int], extra: int = 0) -> bytes:
    """Write what PALS leaves: header, processes, nodes; `extra` makes both records longer, as a later version may."""
    process, node = struct.Struct(f"@iii{extra}x"), struct.Struct(f"@i64s{extra}x")
    start = HEADER.size + 56
    after = start + process.size * len(of_ranks)
    sizes = (process.size, start, len(of_ranks), node.size, after, len(nodes))
    content = HEADER.pack(5, 0, 0, 0, 0, 0, 0, 1, *sizes).ljust(start, b"\7")
    content += b"".join(process.pack(0, 0, index) for index in of_ranks)
    return content + b"".join(node.pack(100 + index, name.encode()) for index, name in enumerate(nodes))


@pytest.mark.parametrize("extra", [0, 16])
def test_pals_file_names_the_node_of_rank_0(extra: int, tmp_path: Path) -> None:
    path = tmp_path / "apinfo"
    path.write_bytes(application(["x1000c0", "x1000c1", "x1000c2"], [2, 0, 1], extra))
    environ = Environ({"PALS_APINFO": str(path)})
    assert ask_application(spec(), environ, 5) == HostAnswer("x1000c2", "the file of PALS_APINFO")
    assert ask_application(spec(), Environ({}), 5) == "PALS_APINFO is not set"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no description of an application: unpack_from requires"),
        (b"no application at all".ljust(400, b"\0"), "is no description of an application"),
        (application(["a"], [7]), "rank 0 of 1 is on node 7 of 1"),
        (application(["a/b"], [0]), "expected|a host name"),
    ],
)
def test_a_file_that_is_no_application_of_pals_is_a_clear_error(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "apinfo"
    path.write_bytes(content)
    with pytest.raises(CannotLocate, match=problem):
        ask_application(spec(resolver="pals"), Environ({"PALS_APINFO": str(path)}), 5)


def hosts(folder: Path, *names: str) -> str:
    path = folder / "hosts"
    path.write_text("".join(f"{name}\n" for name in names))
    return str(path)


def test_the_first_host_of_a_job_is_rank_0s_if_rank_0_finds_itself_there(tmp_path: Path) -> None:
    nodes = Environ({"PBS_NODEFILE": hosts(tmp_path, f"{HERE}.site.org", "n2")})
    for rank in (0, 3):
        assert ask_node_file(spec(rank), nodes, 5) == HostAnswer(f"{HERE}.site.org", "the file of PBS_NODEFILE")
    assert ask_node_file(spec(), Environ({}), 5) == "PBS_NODEFILE is not set"


def test_the_host_of_the_script_is_left_out_under_jsrun(tmp_path: Path) -> None:
    ranks = Environ({"LSB_DJOB_RANKFILE": hosts(tmp_path, "batch1", "localhost", "localhost", "n2")})
    assert ask_rank_file(spec(0), ranks, 5) == HostAnswer("localhost", "the file of LSB_DJOB_RANKFILE")
    alone = Environ({"LSB_DJOB_RANKFILE": hosts(tmp_path, HERE)})
    assert ask_rank_file(spec(0), alone, 5) == HostAnswer(HERE, "the file of LSB_DJOB_RANKFILE")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["n1.invalid"], f"begins with 'n1.invalid', and rank 0 is on '{HERE}'"),
        ([], "expected a host"),
        (["a b"], "expected a host"),
    ],
)
def test_rank_0_elsewhere_than_listed_is_said_by_rank_0(names: list[str], problem: str, tmp_path: Path) -> None:
    with pytest.raises(CannotLocate, match=problem):
        ask_node_file(spec(0, "pals"), Environ({"PBS_NODEFILE": hosts(tmp_path, *names)}), 5)
    with pytest.raises(CannotLocate, match="No such file"):
        ask_node_file(spec(0, "pals"), Environ({"PBS_NODEFILE": str(tmp_path / "none")}), 5)


@contextmanager
def rendezvous(answer: int | None = None) -> Generator[Environ]:
    """Serve keys as horovodrun does, or answer everything with one status."""
    kept: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            value = kept.get(self.path)
            self.send_response(answer or (404 if value is None else 200))
            self.send_header("Content-Length", str(len(value or b"")))
            self.end_headers()
            self.wfile.write(value or b"")

        def do_PUT(self) -> None:
            kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answer or 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = str(server.server_address[1])
        yield Environ({"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": port})
        server.shutdown()
        thread.join()


def test_rank_0_leaves_its_address_with_horovodrun_and_the_others_wait_for_it() -> None:
    found: list[HostAnswer | str] = []
    with rendezvous() as environ:

        def ask(rank: int) -> None:
            found.append(ask_rendezvous(spec(rank), environ, 20))

        waiting = [threading.Thread(target=ask, args=(rank,)) for rank in (1, 2, 3)]
        for thread in waiting:
            thread.start()
        found.append(ask_rendezvous(spec(0), environ, 20))
        for thread in waiting:
            thread.join()
    assert found == [HostAnswer(own_address(), "horovodrun's rendezvous")] * 4


def test_a_horovodrun_that_is_gone_or_never_hears_of_rank_0_is_a_clear_error() -> None:
    with rendezvous() as environ, pytest.raises(CannotLocate, match="rank 0 did not leave its address"):
        ask_rendezvous(spec(1, "horovod"), environ, 0.3)
    with rendezvous(500) as environ, pytest.raises(CannotLocate, match="answered 500"):
        ask_rendezvous(spec(0, "horovod"), environ, 5)
    with pytest.raises(CannotLocate, match="does not answer"):
        ask_rendezvous(spec(0, "horovod"), environ, 5)
    for unsaid in ({}, {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "a", "HOROVOD_GLOO_RENDEZVOUS_PORT": "x"}):
        assert "name no server" in str(ask_rendezvous(spec(1), Environ(unsaid), 5))


def test_the_rendezvous_is_the_launchs_own_id() -> None:
    process = HOROVOD.emulate(DistSpec(rank=1, world_size=2, job_id="10.0.0.1/4711"))
    assert dict(process.variables) == {
        "HOROVOD_RANK": "1",
        "HOROVOD_SIZE": "2",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "4711",
    }
