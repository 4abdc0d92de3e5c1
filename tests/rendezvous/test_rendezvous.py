"""The phases of one rank before it has entered: what it says when it goes, and what it lets go of."""

import socket
import threading
import time
from contextlib import suppress

import attrs
import pytest

from colossalai_env._addresses import EVERY, LOOPBACK, Endpoint, Target
from colossalai_env._calls import start
from colossalai_env._rendezvous.directory import Announcement
from colossalai_env._rendezvous.entered import Frame
from colossalai_env._rendezvous.finder import StoreFinder
from colossalai_env._rendezvous.identity import Here, Identity
from colossalai_env._rendezvous.listener import bind
from colossalai_env._rendezvous.protocol import keys
from colossalai_env._rendezvous.protocol.leader_record import LeaderRecord, publish
from colossalai_env._rendezvous.protocol.report import read_reports
from colossalai_env._rendezvous.protocol.requests import Deadline, read
from colossalai_env._rendezvous.rendezvous import Guest, Host, reserve
from colossalai_env._rendezvous.store_client import StoreClient
from colossalai_env._rendezvous.torch_store import serve
from colossalai_env.errors import RankFailed
from tests.processes import free_port
from tests.rendezvous.reports import report

JOB = "7.0"


@pytest.fixture
def target() -> Target:
    """Return a free port."""
    with bind(("127.0.0.1", 0)) as listener:
        address, port = listener.getsockname()
        return str(address), int(port)


def frame(target: Target, rank: int, world_size: int | None = 4, *, serves_directory: bool = False) -> Frame:
    """Return what a rank of this launch is told; where it serves the directory, rank 0 is asked for there."""
    return Frame(
        Identity(rank=rank, world_size=world_size, job=JOB),
        Endpoint(
            host=target[0],
            addresses=(target[0],),
            ports=(target[1],),
            source="MASTER_ADDR",
            directory=serves_directory,
            serves_directory=serves_directory,
        ),
        Deadline(time.monotonic, time.monotonic(), 20.0),
        Here(f"n{rank}", 100 + rank),
    )


def test_a_rank_0_that_cannot_say_how_many_others_there_are_tells_all_who_come(target: Target) -> None:
    host = reserve(frame(target, 0, world_size=None))
    assert isinstance(host, Host)
    telling = threading.Thread(target=host.fail, args=(report(0, error="WORLD_SIZE is 'x'"), 3.0))
    telling.start()
    for _ in range(3):
        finder = StoreFinder([target], job=JOB)
        with pytest.raises(RankFailed, match=r"rank 0 \(pid 100 on n0\) failed: WORLD_SIZE is 'x'"):
            finder.find(time.monotonic() + 10)
        finder.close()
    telling.join()
    host.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(target)


def test_a_rank_that_is_stopped_before_it_has_entered_leaves_word_where_rank_0_reads_it(target: Target) -> None:
    guest = reserve(frame(target, 3))
    assert isinstance(guest, Guest)
    store = serve(bind(target), target, 10).result()
    guest.interrupt(report(3, error="was stopped by SIGTERM"))
    guest.close()
    client = StoreClient(target)
    assert read_reports(client.drive(read(keys.FAREWELLS.of(JOB)))) == [report(3, error="was stopped by SIGTERM")]
    client.close()
    del store


def pass_on(source: socket.socket, to: socket.socket) -> None:
    """Send on all that comes."""
    with suppress(OSError):
        while said := source.recv(4096):
            to.sendall(said)


def test_a_rank_enters_over_the_connection_by_which_it_found_the_store(target: Target) -> None:
    store = serve(bind(target), target, 10).result()
    client = StoreClient(target)
    client.drive(publish(LeaderRecord(JOB, 1, "n7", 7)))
    client.close()
    door = bind(("127.0.0.1", 0))
    guest = reserve(frame(door.getsockname(), 3))
    entering = start(lambda: guest.enter(start(lambda: socket)))
    with door.accept()[0] as outside, socket.create_connection(target) as inside:
        door.close()
        for ends in ((outside, inside), (inside, outside)):
            threading.Thread(target=pass_on, args=ends, daemon=True).start()
        entered = entering.result()
        assert entered.record.job == JOB
        entered.close()
    del store


def test_a_rank_that_serves_the_directory_does_so_until_it_lets_go_of_the_store(target: Target) -> None:
    guest = reserve(frame(target, 3, serves_directory=True))
    listener = bind((EVERY, 0))
    port = listener.getsockname()[1]
    store = serve(listener, ("127.0.0.1", port), 10).result()
    client = StoreClient(("127.0.0.1", port))
    client.drive(publish(LeaderRecord(JOB, 1, "n9", 9)))
    client.close()
    announcement = Announcement([target], JOB, port)
    entered = guest.enter(start(lambda: socket))
    socket.create_connection(target).close()
    entered.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(target).close()
    announcement.close()
    del store


def test_rank_0_shows_the_way_where_ranks_look_to_which_its_place_is_not_given(target: Target) -> None:
    otherwise = free_port()
    given = frame(target, 0)
    host = reserve(attrs.evolve(given, endpoint=attrs.evolve(given.endpoint, otherwise=(otherwise,))))
    entered = host.enter(start(lambda: socket))
    finder = StoreFinder([(LOOPBACK, otherwise)], job=JOB)
    assert finder.find(time.monotonic() + 10) == target
    finder.close()
    entered.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, otherwise))


def test_a_rank_to_which_rank_0s_place_is_given_also_looks_where_it_would_listen_otherwise(
    target: Target,
) -> None:
    otherwise = free_port()
    given = frame(target, 1)
    guest = reserve(attrs.evolve(given, endpoint=attrs.evolve(given.endpoint, otherwise=(otherwise,))))
    store = serve(bind((LOOPBACK, otherwise)), (LOOPBACK, otherwise), 10).result()
    client = StoreClient((LOOPBACK, otherwise))
    client.drive(publish(LeaderRecord(JOB, 1, "n8", 8)))
    client.close()
    entered = guest.enter(start(lambda: socket))
    assert entered.record.job == JOB
    entered.close()
    del store
