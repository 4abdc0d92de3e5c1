"""The table of keys: each has a row of its own, and no two can be one key of a store."""

import re

import pytest

from colossalai_env._rendezvous.protocol.keys import TABLE, Key, full
from colossalai_env._rendezvous.protocol.leader_record import LeaderRecord

RECORD = LeaderRecord("job", 1, "n0", 100)


def key_in_store(key: Key, writer: str) -> str:
    """Return the whole name of a key, with a text in the place of its writer."""
    return full(key.of(writer), RECORD.prefix)


@pytest.mark.parametrize("key", TABLE, ids=lambda key: key.name)
def test_no_other_key_of_the_table_can_be_this_one_whoever_writes_it(key: Key) -> None:
    pattern = re.compile(".+".join(map(re.escape, key_in_store(key, "{}").split("{}"))))
    for writer in ("0", "17", "pid 1 on n0", "a/b"):
        assert [other for other in TABLE if pattern.fullmatch(key_in_store(other, writer))] == [key]


@pytest.mark.parametrize("key", TABLE, ids=lambda key: key.name)
def test_each_row_says_who_writes_who_reads_and_when(key: Key) -> None:
    assert all(key)
    assert ("{}" in key.name) == (key.of("x") != key.name)


def test_the_table_is_in_the_order_of_a_launch() -> None:
    names = [key.name for key in TABLE]
    order = ["/leader", "reports", "call", "verdict", "in/{}", "broken", "closed"]
    assert sorted(order, key=names.index) == order
