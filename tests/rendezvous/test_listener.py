"""Rank 0's socket: where it listens, who holds its port, and what it says in a store's place."""

import errno
import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import pytest

from colossalai_env._addresses import EVERY, EVERY4, Endpoint, own_address
from colossalai_env._rendezvous.finder import StoreFinder
from colossalai_env._rendezvous.listener import (
    bind,
    check_file_descriptors,
    early,
    listen,
    listening_address,
    read_early,
    turn_away,
)
from colossalai_env.errors import NotMyAddress, PortTaken, RankFailed, TooFewFileDescriptors

ELSEWHERE, OWN = "198.51.100.1", own_address()


def endpoint(host: str, addresses: Sequence[str], port: int = 0, *, one_node: bool = False) -> Endpoint:
    return Endpoint(host, tuple(addresses), (port,), "MASTER_ADDR", one_node)


@pytest.mark.parametrize(
    ("host", "addresses", "one_node", "listens"),
    [
        ("127.0.0.1", ["127.0.0.1"], True, "127.0.0.1"),
        ("localhost", ["::1", "127.0.0.1"], True, "::1"),
        ("127.0.0.1", ["127.0.0.1"], False, EVERY4),
        ("::1", ["::1"], False, EVERY4),
        ("localhost", ["127.0.0.1"], False, EVERY4),
        ("myself", [OWN], False, EVERY4),
        ("myself", [OWN, "fd00::7"], False, EVERY),
        ("myself", ["127.0.1.1"], False, EVERY4),
        ("myself", [OWN], True, OWN),
        (OWN, [OWN], False, OWN),
        ("fd00::7", ["fd00::7"], False, "fd00::7"),
        ("forwarder", [ELSEWHERE], False, EVERY4),
        (ELSEWHERE, [ELSEWHERE], True, EVERY4),
    ],
)
def test_rank_0_listens_on_one_address_where_that_serves_all_ranks(
    host: str, addresses: list[str], listens: str, *, one_node: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colossalai_env._rendezvous.listener.is_own", ELSEWHERE.__ne__)
    monkeypatch.setattr(
        "colossalai_env._rendezvous.listener.interfaces", lambda: iter([("lo", "127.0.0.1"), ("eth0", OWN)])
    )
    assert listening_address(endpoint(host, addresses, one_node=one_node)) == listens


def test_a_port_that_the_system_keeps_is_nobodys_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(target: object) -> socket.socket:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)

    monkeypatch.setattr("colossalai_env._rendezvous.listener.bind", keep)
    with pytest.raises(PortTaken, match=r"Permission denied: ports below 1024 are for root\. Give every rank another"):
        listen(endpoint("127.0.0.1", ["127.0.0.1"], one_node=True), 80)


def test_a_host_that_has_ipv6_alone_listens_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colossalai_env._rendezvous.listener.interfaces", lambda: iter([("lo", "127.0.0.1")]))
    assert listening_address(endpoint("localhost", ["127.0.0.1"])) == EVERY


@pytest.mark.parametrize("holder", ["127.0.0.1", EVERY, own_address()])
@pytest.mark.parametrize("one_node", [True, False])
def test_a_port_that_is_taken_is_told_with_an_address_of_its_holder(holder: str, *, one_node: bool) -> None:
    with bind((holder, 0)) as taken:
        port = taken.getsockname()[1]
        found = listen(endpoint("localhost", ["127.0.0.1"], port, one_node=one_node), port)
        if one_node and holder == own_address():
            assert isinstance(found, socket.socket)
            found.close()
            return
        assert not isinstance(found, socket.socket)
        with socket.create_connection(found):
            pass


def test_another_machines_address_is_refused_naming_an_address_of_this_host() -> None:
    told = rf"runs on {socket.gethostname()} \({own_address()}\).* is {ELSEWHERE}, .*export MASTER_ADDR={own_address()}"
    with pytest.raises(NotMyAddress, match=told):
        listen(endpoint("other", [ELSEWHERE]), 29500)


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return a free port of a host that nothing says is this one, as behind a Kubernetes Service."""
    monkeypatch.setattr("colossalai_env._rendezvous.listener.is_own", frozenset[str]().__contains__)
    monkeypatch.setattr("colossalai_env._rendezvous.listener.RETURN", 0.5)
    with bind((EVERY, 0)) as taken:
        return int(taken.getsockname()[1])


def test_an_address_that_leads_back_to_this_process_is_rank_0s(forwarded: int) -> None:
    found = listen(endpoint("service", ["127.0.0.1"], forwarded), forwarded)
    assert isinstance(found, socket.socket)
    found.close()


def test_whoever_comes_while_that_is_tried_does_not_hinder_it(forwarded: int) -> None:
    stop = threading.Event()

    def knock() -> None:
        while not stop.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", forwarded), timeout=1) as one:
                one.sendall(b"0123456789")

    thread = threading.Thread(target=knock)
    thread.start()
    found = listen(endpoint("service", ["127.0.0.1"], forwarded), forwarded)
    stop.set()
    thread.join()
    assert isinstance(found, socket.socket)
    found.close()


def test_the_address_of_another_process_is_not_rank_0s(forwarded: int, monkeypatch: pytest.MonkeyPatch) -> None:

    def second(endpoint: Endpoint) -> str:
        del endpoint
        return "127.0.0.2"

    monkeypatch.setattr("colossalai_env._rendezvous.listener.listening_address", second)
    with bind(("127.0.0.1", forwarded)), pytest.raises(NotMyAddress):
        listen(endpoint("other", ["127.0.0.1"], forwarded), forwarded)


def test_file_descriptors_are_counted_before_they_run_out() -> None:
    check_file_descriptors(2)
    with pytest.raises(TooFewFileDescriptors, match="ulimit -n"):
        check_file_descriptors(10**9)


def test_all_others_are_told_why_there_will_be_no_store_and_nobody_waits_longer() -> None:
    with bind(("127.0.0.1", 0)) as listener:
        target = listener.getsockname()
        finders = [StoreFinder([target], job=job) for job in ("seven", "seven", "eight")]
        thread = threading.Thread(target=turn_away, args=(listener, "seven", "rank 0 is ill", 3, 20.0))
        thread.start()
        for finder in finders[:2]:
            with pytest.raises(RankFailed, match="rank 0 is ill"):
                finder.find(time.monotonic() + 10)
        assert finders[2].find(time.monotonic() + 0.5) is None
        assert "belongs to another job, 'seven'" in finders[2].attempts()
        thread.join(10)
        assert not thread.is_alive()
        for finder in finders:
            finder.close()


def test_what_is_said_in_a_stores_place_can_be_read_back_and_anything_else_is_nothing() -> None:
    assert read_early(early("7.0", rank0=("::1", 5))) == ("7.0", {"rank0": ["::1", 5]})
    assert read_early(b"colossalai_env: 7.0\n[1]\n") == ("7.0", {})
    assert read_early(b"colossalai_env: 7.0\n\xff") == ("7.0", {})
