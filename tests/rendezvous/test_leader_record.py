"""Whose store is this: the record of the process that leads in it, also of another version of the library."""

import json
import time
from collections.abc import Iterator

import attrs
import pytest

from colossalai_env._addresses import Endpoint, Target
from colossalai_env._calls import start
from colossalai_env._rendezvous.entered import Entered, Frame
from colossalai_env._rendezvous.identity import Here, Identity
from colossalai_env._rendezvous.listener import bind
from colossalai_env._rendezvous.protocol.leader_record import LeaderRecord, publish
from colossalai_env._rendezvous.protocol.requests import VERSION, Deadline
from colossalai_env._rendezvous.rendezvous import reserve
from colossalai_env._rendezvous.store_client import StoreClient
from colossalai_env._rendezvous.torch_store import serve
from colossalai_env._version import VERSION as LIBRARY
from colossalai_env.errors import OtherVersion

RECORD = LeaderRecord("7.0", 1, "n0", 100)


def test_a_record_survives_the_store_and_its_prefix_is_its_attempts_own() -> None:
    assert LeaderRecord.of(RECORD.text()) == RECORD
    others = [
        attrs.evolve(RECORD, job="8.0"),
        attrs.evolve(RECORD, generation=2),
        attrs.evolve(RECORD, host="n1"),
        attrs.evolve(RECORD, pid=10),
    ]
    assert not any(one.prefix.startswith(other.prefix) for one in others for other in (RECORD, *others) if one != other)


def test_a_record_of_another_version_is_read_as_far_as_all_versions_agree() -> None:
    text = json.dumps({**attrs.asdict(RECORD), "protocol": VERSION + 1, "library": "9.9", "mood": "fine"})
    assert LeaderRecord.of(text) == attrs.evolve(RECORD, protocol=VERSION + 1, library="9.9")


@pytest.fixture
def target() -> Iterator[Target]:
    """Serve a store."""
    with bind(("127.0.0.1", 0)) as listener:
        address, port = listener.getsockname()
        store = serve(listener, (address, port), 10).result()
        yield str(address), int(port)
        del store


def enter(target: Target, record: LeaderRecord) -> Entered:
    """Look for job 7.0 as its rank 3 where a store holds this record, and enter it."""
    client = StoreClient(target)
    client.drive(publish(record))
    client.close()
    identity = Identity(rank=3, world_size=4, job="7.0")
    endpoint = Endpoint(target[0], (target[0],), (target[1],), "MASTER_ADDR")
    guest = reserve(Frame(identity, endpoint, Deadline(time.monotonic, time.monotonic(), 10.0), Here("n1", 103)))
    try:
        return guest.enter(start(lambda: time))
    finally:
        guest.close()


def test_a_store_of_another_version_is_refused_with_both_versions_and_hosts(target: Target) -> None:
    with pytest.raises(OtherVersion) as failed:
        enter(target, attrs.evolve(RECORD, protocol=VERSION + 1, library="9.9"))
    assert str(failed.value) == (
        f"this process (rank 3 on n1) has colossalai-env {LIBRARY}, whose roll call has version {VERSION}, and rank 0 "
        f"(pid 100 on n0) has colossalai-env 9.9, whose roll call has version {VERSION + 1}: they do not understand "
        "each other; install one version on all nodes."
    )


def test_another_release_that_speaks_the_same_version_is_entered_and_left_to_the_roll_call(target: Target) -> None:
    entered = enter(target, attrs.evolve(RECORD, library="9.9"))
    assert (entered.record.library, entered.leads) == ("9.9", False)
    entered.close()
