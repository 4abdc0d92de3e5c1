"""Of many ranks of one node one looks for rank 0, and none of the others is left behind."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from colossalai_env._addresses import Target
from colossalai_env._rendezvous import finder as finder_module
from colossalai_env._rendezvous.finder import UNHEARD, StoreFinder
from colossalai_env._rendezvous.listener import bind
from colossalai_env._rendezvous.torch_store import serve
from tests.pace import pace

NODE = 8


class Rank(StoreFinder):
    """A rank that counts how often it has knocked."""

    knocks = 0

    def begin(self) -> None:
        """Knock once, and wait for long."""
        self._until = time.monotonic() + 1000
        while not self.met:
            self.look(0.0)

    def tire(self) -> None:
        """Have waited for a while."""
        self._probes[0].due = 0.0

    def _connect(self, probe: Any) -> None:
        self.knocks += 1
        super()._connect(probe)


@pytest.fixture
def place() -> Iterator[socket.socket]:
    """Hold a port at which nobody listens yet."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held


@pytest.fixture
def node(place: socket.socket) -> Iterator[list[Rank]]:
    """Return the ranks of one node, each of which has knocked once."""
    pace()  # is measured once, which takes longer than the while after which they knock again
    ranks = [Rank([place.getsockname()], 0.02, "7.0", crowd=True) for _ in range(NODE)]
    for rank in ranks:
        rank.begin()
    yield ranks
    for rank in ranks:
        rank.close()


def look(ranks: Sequence[Rank], until: Callable[[], bool]) -> dict[int, Target]:
    """Let ranks look in turns until something is so; return what each of them has found."""
    found: dict[int, Target] = {}
    latest = time.monotonic() + 10 * pace()
    while not until() and len(found) < len(ranks):
        assert time.monotonic() < latest
        for number, rank in enumerate(ranks):
            target = None if number in found else rank.look(0.0)
            if target is not None:
                found[number] = target
    return found


def test_one_rank_of_a_node_knocks_and_the_others_wait_for_it(node: list[Rank]) -> None:
    look(node, lambda: node[0].knocks > 20)
    assert [rank.knocks for rank in node[1:]] == [1] * (NODE - 1)


def test_when_the_one_that_knocks_is_gone_another_one_does(node: list[Rank]) -> None:
    node[0].close()
    others = node[1:]
    look(others, lambda: max(rank.knocks for rank in others) > 20)
    assert sorted(rank.knocks for rank in others)[:-1] == [2] * (NODE - 2)


def test_when_one_has_found_the_store_all_find_it(node: list[Rank], place: socket.socket) -> None:
    target = place.getsockname()
    place.listen()
    store = serve(place, target, 10).result()
    assert look(node, lambda: False) == dict.fromkeys(range(NODE), target)
    assert max(rank.knocks for rank in node[1:]) == 2
    del store


def test_a_rank_that_waits_for_a_stopped_one_finds_the_store_by_itself(node: list[Rank], place: socket.socket) -> None:
    place.listen()
    store = serve(place, place.getsockname(), 10).result()
    for rank in node[1:]:
        rank.tire()
    assert len(look(node[1:], lambda: False)) == NODE - 1
    del store


def test_a_rank_looks_by_itself_where_another_user_holds_the_name(
    place: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 12345)
    ranks = [Rank([place.getsockname()], 0.02, "7.1", crowd=True) for _ in range(2)]
    look(ranks, lambda: min(rank.knocks for rank in ranks) > 5)
    for rank in ranks:
        rank.close()


def test_jobs_and_small_worlds_do_not_wait_for_each_other(node: list[Rank]) -> None:
    target = node[0].targets[0]
    others = [Rank([target], 0.02, "8.0", crowd=True), Rank([target], 0.02, "7.0")]
    look(others, lambda: min(rank.knocks for rank in others) > 5)
    for rank in others:
        rank.close()


def test_a_rank_that_the_full_queue_of_rank_0_has_left_out_tries_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder_module, "OVERDUE", 0.1)
    with bind(("127.0.0.1", 0)) as listener:
        target = listener.getsockname()
        listener.listen(1)
        early = [Rank([target]) for _ in range(6)]
        look(early, lambda: UNHEARD in str([rank.met for rank in early]) and early[0].knocks == 1)
        listener.listen(64)
        store = serve(listener, target, 10).result()
        assert len(look(early, lambda: False)) == len(early)
        for rank in early:
            rank.close()
        del store
