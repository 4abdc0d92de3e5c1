"""Open MPI's daemon, mpi4py and Slurm's host file at the edges, against stand-ins for them."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from colossalai_env_mpi import broadcast, mpi_runs
from colossalai_env_openmpi import pmix
from colossalai_env_slurm.asking import ask_layout

from colossalai_env import CannotLocate, DistSpec, Environ


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let another program stand in for the child that asks mpirun's daemon."""
    monkeypatch.setattr(pmix, "_told", {})
    monkeypatch.setattr(pmix, "mpi_may_follow", bool)

    def play(body: str) -> None:
        program = tmp_path / "child.py"
        program.write_text(body)
        monkeypatch.setattr(pmix, "CHILD", program)

    return play


FIVE = {"PMIX_NAMESPACE": "prterun-a-1@1", "PMIX_VERSION": "5.0.11rc1"}
SPEC = DistSpec(rank=1, world_size=4)


def test_the_daemon_is_asked_once(child: Callable[[str], None]) -> None:
    child("print('a library prints this')\nprint('host gpu-b07')")
    told = pmix.ask(SPEC, Environ(FIVE), 20)
    assert told is not None
    assert told.host == "gpu-b07"
    child("raise SystemExit('a second child')")
    assert pmix.ask(SPEC, Environ(FIVE), 20) == told
    assert pmix.ask(DistSpec(rank=1, world_size=4, backend="mpi"), Environ(FIVE), 20) == told
    with pytest.raises(CannotLocate, match="ended with status 1: a second child"):
        pmix.ask(SPEC, Environ({**FIVE, "PMIX_NAMESPACE": "prterun-a-2@1"}), 20)


@pytest.mark.parametrize("said", ["print()", "print('host ')", "print('host a b')", "print('nothing of use')"])
def test_a_child_that_names_no_host_is_an_error(child: Callable[[str], None], said: str) -> None:
    child(said)
    with pytest.raises(CannotLocate, match="expected a host name"):
        pmix.ask(SPEC, Environ(FIVE), 20)


def test_a_daemon_that_is_silent_is_an_error_in_time(child: Callable[[str], None]) -> None:
    child("import signal; signal.pause()")
    with pytest.raises(CannotLocate, match="did not answer within 1 s"):
        pmix.ask(SPEC, Environ(FIVE), 1)


def test_where_mpi_may_follow_the_daemon_is_left_alone(child: Callable[[str], None]) -> None:
    child("raise SystemExit('must not be asked')")
    assert pmix.ask(DistSpec(rank=1, world_size=4, backend="mpi"), Environ(FIVE), 20) is None
    assert pmix.ask(SPEC, Environ(), 20) is None


def fake_mpi(said: bytes, *, version: str = "Open MPI v5", size: int = 4, finalized: bool = False) -> SimpleNamespace:
    """Return a stand-in for mpi4py.MPI in which rank 0 says `said`."""

    def broadcast(message: list[Any], root: int) -> SimpleNamespace:
        assert root == 0
        message[0][: len(said)] = said
        return SimpleNamespace(Test=lambda: bool(said))

    world = SimpleNamespace(Get_size=lambda: size, Ibcast=broadcast)
    return SimpleNamespace(
        COMM_WORLD=world,
        CHAR=None,
        Get_library_version=lambda: version,
        Is_initialized=lambda: True,
        Is_finalized=lambda: finalized,
    )


@pytest.fixture
def by_fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask by a stand-in for mpi4py."""

    def ask(mpi: SimpleNamespace, seconds: float = 5) -> Any:
        asking = importlib.import_module("colossalai_env_mpi.broadcast")
        monkeypatch.setattr(asking, "find_spec", str)
        modules = {"mpi4py": SimpleNamespace(rc=SimpleNamespace()), "mpi4py.MPI": mpi}
        monkeypatch.setattr(asking, "import_module", modules.__getitem__)
        return broadcast("openmpi", ("Open MPI",), SPEC, seconds)

    return ask


def test_the_broadcast_brings_a_job_id_for_launchers_that_have_none(by_fake: Callable[..., Any]) -> None:
    told = by_fake(fake_mpi(b"10.0.0.7 mpi-0123"))
    assert (told.host, told.source, told.job_id) == ("10.0.0.7", "mpi4py broadcast", "mpi-0123")


def test_the_broadcast_is_left_alone_where_it_cannot_be(by_fake: Callable[..., Any]) -> None:
    assert by_fake(fake_mpi(b"a t", version="MPICH Version: 5")) is None
    assert by_fake(fake_mpi(b"a t", finalized=True)) is None
    assert not mpi_runs()


@pytest.mark.parametrize(
    ("mpi", "problem"),
    [
        (fake_mpi(b"a t", size=1), "MPI's world has 1 ranks, and the environment's 4"),
        (fake_mpi(b"a/b t"), "rank 0 said 'a/b'"),
        (fake_mpi(b""), "did not end within"),
    ],
    ids=["another world", "no host", "silence"],
)
def test_a_broadcast_that_goes_wrong_is_an_error(
    by_fake: Callable[..., Any], mpi: SimpleNamespace, problem: str
) -> None:
    with pytest.raises(CannotLocate, match=problem):
        by_fake(mpi, 0.1)


STEP = DistSpec(rank=1, world_size=3, job_id="7.0")


def host_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Environ:
    """Return the environment of an arbitrary distribution where Slurm's commands are absent."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "hosts").write_text(text)
    return Environ({"SLURM_DISTRIBUTION": "arbitrary", "SLURM_HOSTFILE": str(tmp_path / "hosts")})


@pytest.mark.parametrize(
    "text", ["gpu-b07\ngpu-a01\n", "# hosts\n\n gpu-b07 # first\n", "gpu-b07*2\n", "gpu-b[07-08],a\n", "gpu-b07,a"]
)
def test_a_host_file_is_read_as_slurm_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    found = ask_layout(STEP, host_file(tmp_path, monkeypatch, text), 5)
    assert found is not None
    assert found.host == "gpu-b07"


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "gpu b07\n", "[1-\n"])
def test_a_host_file_without_a_host_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(CannotLocate, match="expected a host on its first line"):
        ask_layout(STEP, host_file(tmp_path, monkeypatch, text), 5)


def test_a_host_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = host_file(tmp_path, monkeypatch, "a\n")
    (tmp_path / "hosts").unlink()
    with pytest.raises(CannotLocate, match="No such file"):
        ask_layout(STEP, environ, 5)
