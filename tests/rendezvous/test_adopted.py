"""The ranks of a process group that exists already: how they find each other in its store, of whatever kind that is."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from colossalai_env._addresses import Endpoint
from colossalai_env._rendezvous import identity
from colossalai_env._rendezvous.adopted import Adopted, Adopting
from colossalai_env._rendezvous.entered import Frame
from colossalai_env._rendezvous.identity import Here, Identity
from colossalai_env._rendezvous.protocol.requests import Deadline
from colossalai_env.errors import MissingRanks, RankFailed
from tests.rendezvous.reports import report

c10d: Any = torch.distributed

STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda _: c10d.HashStore(),
    "file": lambda path: c10d.FileStore(str(path / "store"), 2),
    "tcp": lambda _: c10d.TCPStore("127.0.0.1", 0, is_master=True),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return a store of one kind, under a prefix as torch's groups have it."""
    return c10d.PrefixStore("default_pg", STORES[request.param](tmp_path))


def adopting(store: Any, rank: int, timeout: float = 20.0) -> Adopting:
    frame = Frame(
        Identity(rank=rank, world_size=2, job=None),
        Endpoint("its store", (), (0,), "torch.distributed"),
        Deadline(time.monotonic, time.monotonic(), timeout),
        Here(f"n{rank // 2}", 100 + rank),
        server="the process group's store",
    )
    return Adopting.of(frame, store)


def test_two_ranks_meet_in_a_store_of_any_kind(store: Any) -> None:
    placed: dict[int, Any] = {}
    reports: dict[int, int] = {}

    def adopt(rank: int) -> None:
        mine = adopting(store, rank)
        entered = mine.enter()
        placed[rank] = entered.gather(report(rank, 2))
        adopted = Adopted(entered)
        reports[rank] = len(adopted.entered.reports())
        adopted.close()
        mine.close()

    threads = [threading.Thread(target=adopt, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {rank: (one.local_rank, one.num_nodes) for rank, one in placed.items()} == {0: (0, 1), 1: (1, 1)}
    assert reports == {0: 2, 1: 2}


def test_a_rank_that_comes_when_rank_0_has_gone_does_not_find_its_attempt(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = adopting(store, 0)
    first.enter().close()
    first.close()
    monkeypatch.setattr(identity, "_left", set[Any]())  # the other rank is another process
    with pytest.raises(MissingRanks, match=r"all ranks of the process group have to call init_from_env\(attach=True\)"):
        adopting(store, 1, 0.3).enter()


def test_a_rank_with_an_error_of_its_own_tells_rank_0(store: Any) -> None:
    leader = adopting(store, 0)
    entered = leader.enter()
    failing = threading.Thread(target=adopting(store, 1).fail, args=(report(1, 2, error="WrongGroup"),))
    failing.start()
    with pytest.raises(RankFailed, match=r"rank 1 \(pid 101 on n0\) failed: WrongGroup"):
        entered.gather(report(0, 2))
    failing.join()
    leader.close()
