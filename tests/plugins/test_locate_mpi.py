"""Open MPI's daemon and mpi4py at the edges, against stand-ins for them."""

import ctypes
import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from colossalai_env_mpi import broadcast, mpi_runs, own_mpi, start
from colossalai_env_openmpi import client, pmix
from colossalai_env_openmpi.client import ALL_RANKS, KEY, Client, Data, Info, PmixError, Proc, Type, Value

from colossalai_env import DistSpec
from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import Environ, HostAnswer

pytestmark = pytest.mark.slow

FOUR = {"PMIX_NAMESPACE": "2278555649", "PMIX_RANK": "1"}
FIVE = {"PMIX_NAMESPACE": "prterun-a-1@1", "PMIX_RANK": "1", "OMPI_VERSION": "5.0.11"}
SPEC = DistSpec(rank=1, world_size=4)


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let another program stand in for the child that asks mpirun's daemon, in a process without MPI."""
    monkeypatch.setattr(pmix, "_told", {})

    def play(body: str) -> None:
        program = tmp_path / "child.py"
        program.write_text(body)
        monkeypatch.setattr(pmix, "CHILD", program)

    return play


def located(answer: HostAnswer | str) -> HostAnswer:
    """Return an answer that is one."""
    assert isinstance(answer, HostAnswer), answer
    return answer


def test_the_daemon_is_asked_once(child: Callable[[str], None]) -> None:
    child("print('a library prints this')\nprint('name gpu-b07')\nprint('host gpu-b07')")
    told = located(pmix.ask(SPEC, Environ(FIVE), 20))
    assert (told.host, told.source) == ("gpu-b07", "PMIx: pmix.hname of rank 0")
    child("raise SystemExit('a second child')")
    assert pmix.ask(SPEC, Environ(FIVE), 20) == told
    assert pmix.ask(DistSpec(rank=1, world_size=4, backend="mpi"), Environ(FIVE), 20) == told
    with pytest.raises(CannotLocate, match="ended with status 1: a second child"):
        pmix.ask(SPEC, Environ({**FIVE, "PMIX_NAMESPACE": "prterun-a-2@1"}), 20)


def test_the_numbers_and_the_host_are_told_in_one_conversation(child: Callable[[str], None]) -> None:
    numbers = {"pmix.job.size": "4", "pmix.lrank": "1", "pmix.local.size": "2"}
    prints = [f"print('{key} {text}')" for key, text in numbers.items()]
    child("\n".join(["import sys", "assert sys.argv[2:] == ['numbers']", *prints, "print('name a')\nprint('host a')"]))
    assert pmix.complete(Environ(FIVE), 20) == numbers
    child("raise SystemExit('a second child')")
    assert located(pmix.ask(SPEC, Environ(FIVE), 20)).host == "a"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("print('pmix.job.size 4')", "PMIx did not say pmix.l"),
        ("raise SystemExit('PMIx_Init failed with PMIx status -25')", "PMIx_Init failed with PMIx status -25"),
    ],
)
def test_why_pmix_did_not_say_the_numbers_is_told(child: Callable[[str], None], body: str, reason: str) -> None:
    child(body)
    told = pmix.complete(Environ(FIVE), 20)
    assert isinstance(told, str)
    assert reason in told


def test_another_name_that_leads_to_the_host_is_said_to_be_one(child: Callable[[str], None]) -> None:
    child("print('name gpu-b07')\nprint('host gpu-b07.ring.svc')")
    assert pmix.ask(SPEC, Environ(FIVE), 20) == HostAnswer("gpu-b07.ring.svc", "PMIx: pmix.alias of rank 0")


def test_on_rank_0s_own_host_no_name_is_needed(child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pmix, "own_address", lambda: "10.77.0.14")
    child("print('name gpu-b07')\nprint('home gpu-b07')")
    assert located(pmix.ask(SPEC, Environ(FOUR), 20)).host == "10.77.0.14"


def test_a_name_that_leads_nowhere_is_an_error_that_says_what_to_type(child: Callable[[str], None]) -> None:
    child("print('name gpu-b07')")
    cure = "--mca orte_keep_fqdn_hostnames 1"
    with pytest.raises(CannotLocate, match="'gpu-b07', which has no address here") as raised:
        pmix.ask(SPEC, Environ(FOUR), 20)
    assert cure in str(raised.value)
    for environ, name in ((FIVE, "gpu-b07"), (FOUR, "gpu-b07.ring.svc")):
        child(f"print('name {name}')")
        with pytest.raises(CannotLocate) as raised:
            pmix.ask(SPEC, Environ(environ), 20)
        assert cure not in str(raised.value)


@pytest.mark.parametrize("status", [-17, -46])
def test_an_earlier_program_that_had_the_conversation_is_named(child: Callable[[str], None], status: int) -> None:
    child(f"raise SystemExit('PMIx_Get failed with PMIx status {status}')")
    with pytest.raises(CannotLocate, match=r"an earlier program of this task has had it\. Export MASTER_ADDR"):
        pmix.ask(SPEC, Environ(FOUR), 20)


def test_a_child_that_tells_nothing_is_an_error(child: Callable[[str], None]) -> None:
    child("print('nothing of use')")
    with pytest.raises(CannotLocate, match="mpirun's daemon did not answer within 20 s"):
        pmix.ask(SPEC, Environ(FIVE), 40)
    child("print('name a b')\nprint('host a b')")
    with pytest.raises(CannotLocate, match="'a b', expected a host name"):
        pmix.ask(SPEC, Environ(FIVE), 20)


def test_a_daemon_that_is_silent_is_an_error_in_time(child: Callable[[str], None]) -> None:
    child("import signal; signal.pause()")
    with pytest.raises(CannotLocate, match="did not answer within 1 s"):
        pmix.ask(SPEC, Environ(FIVE), 1)


def test_where_mpi_may_follow_the_daemon_is_left_alone(
    child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    child("raise SystemExit('must not be asked')")
    reason = "an MPI_Init may follow in this process, which asking by a child would break"
    assert pmix.ask(DistSpec(rank=1, world_size=4, backend="mpi"), Environ(FIVE), 20) == reason
    monkeypatch.setattr(pmix, "mpi_waits", bool)
    assert pmix.ask(SPEC, Environ(FIVE), 20) == reason
    assert pmix.ask(SPEC, Environ(), 20) == "PMIX_NAMESPACE is not set"


@pytest.mark.parametrize(
    ("version", "initialized", "finalized", "runs", "waits"),
    [
        ("Open MPI v5.0.11", True, False, True, False),
        ("Open MPI v5.0.11", False, False, False, True),
        ("Open MPI v5.0.11", True, True, False, False),
        ("Open MPI v4.1.8", True, False, False, False),
        ("MPICH Version: 5.0.2", True, False, False, False),
        ("MPICH Version: 5.0.2", False, False, False, False),
    ],
)
def test_only_an_mpi_of_the_launchers_own_runs_or_may_follow(
    monkeypatch: pytest.MonkeyPatch, version: str, *, initialized: bool, finalized: bool, runs: bool, waits: bool
) -> None:
    process = importlib.import_module("colossalai_env_mpi.process")
    said = {"MPI_Initialized": initialized, "MPI_Finalized": finalized}

    def loaded(beginning: str) -> list[str]:
        return [f"/{beginning}.so.40"]

    def says(path: str, question: str) -> bool:
        assert path == "/libmpi.so.40"
        return said[question]

    def told(path: str) -> str:
        assert path == "/libmpi.so.40"
        return version

    for name, stand_in in (("mapped_libraries", loaded), ("_says", says), ("_version", told)):
        monkeypatch.setattr(process, name, stand_in)
    own = pmix.families(Environ(FIVE))
    assert (process.mpi_runs(own), process.mpi_waits(own)) == (runs, waits)


def session(folder: Path) -> Environ:
    """Return the environment of a task whose daemon has its files in `folder`."""
    return Environ({**FIVE, "PMIX_SERVER_TMPDIR": str(folder)})


def test_what_was_told_serves_the_later_programs_of_the_task(
    child: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "session"
    folder.mkdir(mode=0o700)
    child("print('name gpu-b07')\nprint('host gpu-b07')")
    pmix.ask(SPEC, session(folder), 20)
    monkeypatch.setattr(pmix, "_told", {})
    child("raise SystemExit('asked again')")
    told = located(pmix.ask_with_mpi(session(folder), 20))
    assert (told.host, told.source) == (
        "gpu-b07",
        "PMIx: pmix.hname of rank 0, told to an earlier program of this task",
    )
    for other in ({"PMIX_RANK": "2"}, {"PMIX_NAMESPACE": "prterun-a-1@2"}):
        monkeypatch.setattr(pmix, "_told", {})
        with pytest.raises(CannotLocate, match="asked again"):
            pmix.ask(SPEC, Environ({**session(folder).variables, **other}), 20)


def test_a_folder_that_others_may_write_to_is_no_place_for_it(
    child: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "session"
    for place in (folder, tmp_path / "absent"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o770)
        child("print('name gpu-b07')\nprint('host gpu-b07')")
        monkeypatch.setattr(pmix, "_told", {})
        assert located(pmix.ask(SPEC, session(place), 20)).host == "gpu-b07"
        assert list(folder.iterdir()) == []


def library(said: dict[tuple[int, bytes], str | int], prefix: str = "") -> tuple[Any, list[str]]:
    """Return a stand-in for a library of PMIx that knows these texts, or fails with these statuses, and its calls."""
    called: list[str] = []

    def get(proc: Any, key: bytes, _info: None, _count: object, value: Any) -> int:
        answer = said.get((proc._obj.rank, key), client.NOT_FOUND)
        if isinstance(answer, int):
            return answer
        value._obj.contents = Value(Type.STRING, Data(answer.encode()))
        return 0

    def put(scope: ctypes.c_uint8, key: bytes, value: Any) -> int:
        called.append(f"put {scope.value} {key.decode()} {value._obj.data.string.decode()}")
        return 0

    def fence(_procs: None, _count: object, info: Any, _infos: object) -> int:
        called.append(f"fence {info._obj.key.decode()} {info._obj.value.data.flag}")
        return 0

    functions: dict[str, Any] = {
        "PMIx_Get": get, "PMIx_Put": put, "PMIx_Fence": fence, "PMIx_Commit": lambda: called.append("commit"),
    }  # fmt: skip
    return SimpleNamespace(**{f"{prefix}{name}": function for name, function in functions.items()}), called


HOME, LOOPBACK = "10.77.0.12", "127.0.0.1"


@pytest.mark.parametrize(
    ("peers", "alias", "known", "told"),
    [
        ("0,1", None, {"b07": [LOOPBACK]}, {"host": "b07"}),
        ("0,1", "b07.ring,10.77.0.14", {}, {"home": "b07"}),
        ("1,10", None, {"b07": ["10.77.0.14"]}, {"host": "b07"}),
        ("1", "10.77.0.14,b07.ring", {"b07.ring": ["10.77.0.14"]}, {"host": "b07.ring"}),
        ("1", "b07.ring,10.77.0.14", {}, {"host": "10.77.0.14"}),
        ("1", f"localhost,{LOOPBACK},10.77.0.14", {"localhost": [LOOPBACK]}, {"host": "10.77.0.14"}),
        ("1", "10.77.0.14", {"b07": [HOME]}, {"host": "10.77.0.14"}),
        ("1", None, {"b07": [HOME]}, {"host": "b07"}),
        ("1", None, {}, {}),
    ],
)
def test_what_leads_to_rank_0s_host_is_told(
    monkeypatch: pytest.MonkeyPatch, peers: str, alias: str | None, known: dict[str, list[str]], told: dict[str, str]
) -> None:
    def addresses(host: str) -> list[str]:
        return known.get(host, [host] if host[0].isdecimal() else [])

    monkeypatch.setattr(client, "addresses", addresses)
    monkeypatch.setattr(client, "is_here", {HOME, LOOPBACK}.__contains__)
    said: dict[tuple[int, bytes], str | int] = {(0, b"pmix.hname"): "b07", (ALL_RANKS, b"pmix.lpeers"): peers}
    if alias is not None:
        said[0, b"pmix.alias"] = alias
    found: dict[str, str] = {}
    client.host_of_rank_zero(Client(library(said)[0]), b"job", found.__setitem__)
    assert found == {"name": "b07", **told}


def test_addresses_are_told_from_names_and_own_ones_from_others() -> None:
    assert [client.is_address(text) for text in ("10.0.0.1", "fe80::1", "b07", "10.0.0.1.ring")] == [
        True,
        True,
        False,
        False,
    ]
    assert [client.is_here(address) for address in (LOOPBACK, "::1", "192.0.2.77")] == [True, True, False]
    assert client.addresses("localhost")
    assert client.addresses("no-such-host.invalid") == []


def test_an_answer_that_pmix_should_not_give_is_an_error() -> None:
    with pytest.raises(PmixError, match="PMIx_Get failed with PMIx status -25"):
        Client(library({(0, b"pmix.alias"): -25})[0]).names(b"job")


@pytest.mark.parametrize("prefix", client.PREFIXES)
@pytest.mark.parametrize(("own", "puts"), [("", []), ("10.77.0.14", [f"put 3 {KEY.decode()} 10.77.0.14", "commit"])])
def test_rank_0_puts_its_address_and_all_read_it_after_a_fence_that_collects_it(
    prefix: str, own: str, puts: list[str]
) -> None:
    pmix_library, called = library({(0, KEY): "10.77.0.14"}, prefix)
    assert Client(pmix_library).exchanged(b"job", own) == "10.77.0.14"
    assert called == [*puts, "fence pmix.collect True"]


def test_the_structures_are_laid_out_as_in_pmix_common_h() -> None:
    assert (ctypes.sizeof(Proc), Value.data.offset, ctypes.sizeof(Value)) == (260, 8, 32)
    assert (Info.flags.offset, Info.value.offset, ctypes.sizeof(Info)) == (512, 520, 552)


class MpiError(Exception):
    """Stands for mpi4py.MPI.Exception."""


def fake_mpi(
    said: bytes, *, version: str = "Open MPI v5", size: int = 4, finalized: bool = False, fails: str = ""
) -> SimpleNamespace:
    """Return a stand-in for mpi4py.MPI in which rank 0 says `said`, and the call that `fails` raises."""

    def send(message: list[Any], root: int) -> SimpleNamespace:
        assert root == 0
        raising("Ibcast")
        message[0][: len(said)] = said
        return SimpleNamespace(Test=lambda: bool(said))

    def raising(call: str) -> None:
        if call == fails:
            raise MpiError("MPI_ERR_INTERN: internal error")

    world = SimpleNamespace(Get_size=lambda: size, Ibcast=send)
    return SimpleNamespace(
        COMM_WORLD=world,
        CHAR=None,
        Exception=MpiError,
        Get_library_version=lambda: version,
        Init_thread=lambda: raising("Init_thread"),
        Is_initialized=lambda: not fails.startswith("Init"),
        Is_finalized=lambda: finalized,
    )


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Let a stand-in be mpi4py, or an error be what its import raises."""

    def install(mpi: Any) -> None:
        asking = importlib.import_module("colossalai_env_mpi.mpi")

        def find(name: str) -> Any:
            if name == "mpi4py":
                return SimpleNamespace(rc=SimpleNamespace())
            if isinstance(mpi, Exception):
                raise mpi
            return mpi

        monkeypatch.setattr(asking, "find_spec", str)
        monkeypatch.setattr(asking, "import_module", find)

    return install


def by_fake(seconds: float = 5) -> Any:
    """Broadcast by the stand-in."""
    return broadcast("openmpi", ("Open MPI",), SPEC, seconds)


def test_the_broadcast_brings_a_job_id_for_launchers_that_have_none(installed: Callable[[Any], None]) -> None:
    installed(fake_mpi(b"10.0.0.7 mpi-0123"))
    assert by_fake() == ("10.0.0.7", "mpi4py broadcast", "mpi-0123")


@pytest.mark.parametrize(
    ("mpi", "reason"),
    [
        (
            fake_mpi(b"", version="MPICH Version:      5.0.2\nMPICH"),
            "mpi4py's library is 'MPICH Version: 5.0.2', expected Open MPI",
        ),
        (fake_mpi(b"", finalized=True), "MPI is finalized in this process"),
        (RuntimeError("cannot load MPI library\n/nowhere"), "mpi4py does not load: cannot load MPI library /nowhere"),
        (ImportError("libmpi.so.12: no such file"), "mpi4py does not load: libmpi.so.12: no such file"),
    ],
    ids=["another family", "finalized", "no library", "no file"],
)
def test_an_mpi4py_that_cannot_be_used_is_left_alone_and_said_why(
    installed: Callable[[Any], None], mpi: Any, reason: str
) -> None:
    assert not mpi_runs()
    assert own_mpi(("Open MPI",)) == "mpi4py is not installed"
    installed(mpi)
    assert own_mpi(("Open MPI",)) == by_fake() == reason


@pytest.mark.parametrize(
    ("version", "fits"), [("Open MPI v5.0.3", True), ("Open MPI v4.1.8, package: a", False), ("Open MPI v50.0", False)]
)
def test_an_open_mpi_that_names_its_version_has_libraries_of_that_series(
    installed: Callable[[Any], None], version: str, fits: bool
) -> None:
    installed(fake_mpi(b"", version=version))
    assert isinstance(own_mpi(pmix.families(Environ(FIVE))), str) == (not fits)
    assert not isinstance(own_mpi(pmix.families(Environ(FOUR))), str)


@pytest.mark.parametrize(
    ("mpi", "problem"),
    [
        (fake_mpi(b"a t", size=1), "MPI's world has 1 ranks, and the environment's 4"),
        (fake_mpi(b"a/b t"), "rank 0 said 'a/b'"),
        (fake_mpi(b""), "did not end within"),
        (fake_mpi(b"a t", fails="Ibcast"), "the broadcast failed: MPI_ERR_INTERN: internal error"),
        (fake_mpi(b"a t", fails="Init_thread"), "MPI_Init_thread failed: MPI_ERR_INTERN: internal error"),
    ],
    ids=["another world", "no host", "silence", "an exception", "an exception at once"],
)
def test_a_broadcast_that_goes_wrong_is_an_error(
    installed: Callable[[Any], None], mpi: SimpleNamespace, problem: str
) -> None:
    installed(mpi)
    with pytest.raises(CannotLocate, match=problem):
        by_fake(0.1)


def test_mpi_that_runs_is_not_begun_again() -> None:
    start("openmpi", fake_mpi(b"", fails="Ibcast"))
