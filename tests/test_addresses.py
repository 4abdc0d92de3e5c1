"""Addresses of names, hosts and interfaces."""

import socket
import threading

import pytest

from colossalai_env._addresses import (
    address_towards,
    addresses,
    interface_of,
    interfaces,
    is_loopback,
    is_numeric,
    is_own,
    own_address,
)


@pytest.mark.parametrize(
    ("host", "numeric"),
    [("10.0.0.1", True), ("::1", True), ("fe80::1%eth0", True), ("localhost", False), ("1.2.3", False)],
)
def test_an_address_is_told_from_a_name(host: str, *, numeric: bool) -> None:
    assert is_numeric(host) is numeric


def test_a_name_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def never(*asked: object, **options: object) -> list[object]:
        del asked, options
        released.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    with pytest.raises(TimeoutError, match=r"no name server answered within 0\.1 s"):
        addresses("gpu-a01", 0.1)
    released.set()


def test_a_name_that_is_nowhere_is_the_systems_error() -> None:
    with pytest.raises(socket.gaierror):
        addresses("nowhere.invalid", 10)


def test_an_address_is_its_own_address_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    assert addresses("198.51.100.7", 1) == ("198.51.100.7",)


def test_this_hosts_own_address_belongs_to_one_of_its_interfaces() -> None:
    own = own_address()
    assert is_own(own)
    assert not is_own("198.51.100.7")
    assert interface_of(own) in dict(interfaces())
    assert interface_of("198.51.100.7") is None
    assert address_towards(own) == own
    assert is_loopback("127.0.1.1")


def test_a_stale_name_of_this_host_is_not_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(host: str, seconds: float) -> tuple[str, ...]:
        del host, seconds
        return ("198.51.100.7",)

    monkeypatch.setattr("colossalai_env._addresses.addresses", stale)
    assert is_own(own_address())
