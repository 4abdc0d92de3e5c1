"""The directory: ranks that cannot know rank 0's host learn it from a process that all can name."""

import socket
import threading
import time

import pytest

from colossalai_env._addresses import Target
from colossalai_env._rendezvous.directory import Announcement, Directory
from colossalai_env._rendezvous.finder import StoreFinder
from colossalai_env._rendezvous.listener import bind
from colossalai_env._rendezvous.torch_store import serve
from colossalai_env.errors import RankFailed


@pytest.fixture
def target() -> Target:
    with bind(("127.0.0.1", 0)) as listener:
        address, port = listener.getsockname()
        return str(address), int(port)


def found(finder: StoreFinder, seconds: float = 10) -> Target | None:
    try:
        return finder.find(time.monotonic() + seconds)
    finally:
        finder.close()


@pytest.mark.parametrize("first", ["rank 0", "directory", "member"])
def test_a_rank_finds_rank_0_through_the_directory_whoever_comes_first(first: str, target: Target) -> None:
    with bind(("::", 0)) as listener:
        port = listener.getsockname()[1]
        finder = StoreFinder([target], job="7.0", directory=True)
        announcement = Announcement([target], "7.0", port) if first == "rank 0" else None
        if first == "member":
            assert finder.find(time.monotonic() + 0.1) is None
        directory = Directory(bind(target), "7.0")
        if first == "directory":
            assert finder.find(time.monotonic() + 0.1) is None
        announcement = announcement or Announcement([target], "7.0", port)
        address = announcement.address(10)
        assert address is not None
        store = serve(listener, ("127.0.0.1", port), 10).result()
        assert found(finder) == (address, port)
        assert finder.stores() == [(address, port)]
        directory.close()
        announcement.close()
        del store


def test_another_jobs_rank_0_is_not_told_to_anybody(target: Target) -> None:
    directory = Directory(bind(target), "7.0")
    stranger = Announcement([target], "8.0", 5)
    assert stranger.address(0.3) is None
    finder = StoreFinder([target], job="7.0", directory=True)
    assert found(finder, 0.3) is None
    assert finder.stores() == []
    stranger.close()
    directory.close()


def test_another_jobs_directory_is_named(target: Target) -> None:
    directory = Directory(bind(target), "8.0")
    announcement = Announcement([target], "8.0", 5)
    assert announcement.address(10)
    finder = StoreFinder([target], job="7.0", directory=True)
    assert found(finder, 0.3) is None
    assert "belongs to another job, '8.0'" in finder.attempts()
    directory.close()


def test_who_comes_after_rank_0_has_gone_is_told_why_and_nobody_waits_longer(target: Target) -> None:
    directory = Directory(bind(target), "7.0")
    announcement = Announcement([target], "7.0", 5)
    assert announcement.address(10)
    began = time.monotonic()
    telling = threading.Thread(target=directory.pass_on, args=("rank 0 failed: no GPU", 2, 30))
    telling.start()
    for thread in threading.enumerate():
        if thread.name == "colossalai_env directory":
            thread.join(10)  # from then on it tells no address
    for _ in range(2):
        with pytest.raises(RankFailed, match="rank 0 failed: no GPU"):
            found(StoreFinder([target], job="7.0", directory=True))
    telling.join(20)
    assert time.monotonic() - began < 20
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(target)


def test_noise_at_the_directory_disturbs_nobody_and_its_end_closes_all(target: Target) -> None:
    directory = Directory(bind(target), "7.0")
    silent = socket.create_connection(target)
    for noise in (b"", b"\0", b"colossalai_env: 7.0\nnothing\n", b"colossalai_env: \xff"):
        with socket.create_connection(target) as one:
            one.sendall(noise)
    announcement = Announcement([target], "7.0", 5)
    assert announcement.address(10)
    directory.close()
    silent.settimeout(5)
    assert silent.recv(1) == b""
    silent.close()
