"""The times of the protocol, added up."""

import pytest

from colossalai_env._rendezvous.protocol import timing
from colossalai_env._rendezvous.protocol.timing import ENDS, PROMISE


@pytest.mark.parametrize("end", ENDS)
def test_a_rank_ends_within_its_timeout_and_what_is_promised_beyond(end: str) -> None:
    assert 0 < ENDS[end] <= PROMISE


def test_who_serves_a_verdict_does_so_for_longer_than_the_others_take_to_look() -> None:
    assert timing.IMPORTING < timing.LINGER_LATEST <= timing.LINGER
    assert timing.TICK < timing.PART
    assert timing.CONNECT_LATEST < timing.PART_LATEST


def test_who_is_told_who_is_silent_waits_longer_for_it_than_those_who_look() -> None:
    assert timing.SEEN < timing.HEARD
    assert timing.CONNECT_LATEST < timing.SEEN_LATEST < timing.PART_LATEST


def test_a_rank_waits_longer_for_the_verdict_than_rank_0_looks_for_those_who_are_still_there() -> None:
    assert timing.CALL_LATEST + timing.LATE_ACKNOWLEDGE <= timing.VERDICT_LATEST
    assert timing.ACKNOWLEDGE_LATEST < timing.VERDICT_LATEST
    assert timing.LATE_ACKNOWLEDGE < timing.LAST_WORD


def test_rank_0_gives_a_sign_of_life_more_often_than_others_count_it_as_lost() -> None:
    assert 2 * timing.BEAT < timing.SILENCE
