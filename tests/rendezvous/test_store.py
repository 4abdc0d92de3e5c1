"""The store: a look before torch's own client connects, and waits that end."""

import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from colossalai_env._addresses import EVERY, shown
from colossalai_env._rendezvous import finder as finder_module
from colossalai_env._rendezvous.finder import StoreFinder, is_answered, stranger_at
from colossalai_env._rendezvous.listener import bind
from colossalai_env._rendezvous.protocol.requests import Add, Alive, Append, Await, Post, Read, Together
from colossalai_env._rendezvous.store_client import StoreClient, StoreLost
from colossalai_env._rendezvous.torch_store import serve
from tests.pace import pace


@pytest.mark.parametrize(("bound", "address"), [("127.0.0.1",) * 2, ("::1",) * 2, (EVERY, "127.0.0.1"), (EVERY, "::1")])
def test_a_store_is_found_and_serves(bound: str, address: str) -> None:
    listener = bind((bound, 0))
    target = (address, listener.getsockname()[1])
    assert not is_answered(target, 0.2)
    store = serve(listener, target, 10).result()
    assert is_answered(target, 2.0)
    client = StoreClient(target)
    client.prefix = "t/"
    client.perform(Append("log", "a"))
    client.perform(Append("log", "b"))
    client.perform(Post({"x": "1", "y": "2"}))
    assert client.perform(Read("log", 0)) == "ab"
    assert client.perform(Add("n", 2)) == 2
    assert client.perform(Await(("x", "y"), 1))
    assert not client.perform(Await(("x", "z"), 0))
    assert client.perform(Alive(1.0))
    began = time.monotonic()
    assert client.perform(Read("never", 0.2)) is None
    assert 0.2 <= time.monotonic() - began < pace()
    assert client.perform(Add("n", 1)) == 3, "a wait that is called off does not hold up other requests"
    several = (Append("log", "c"), Add("n", 2), Await(("x",), 0), Await(("z",), 0), Post({"w": "3"}))
    assert client.perform(Together(several)) == [None, 5, True, False, None]
    assert client.perform(Together((Add("n", 0),) * 10000)) == [5] * 10000
    assert client.perform(Together((Append("log", "d"),), then="later")) == [None]
    assert client.perform(Read("later", 0.05)) is None
    client.perform(Together((Append("log", "e"), Post({"later": "now"})), then="later"))
    assert client.perform(Read("later", pace())) == "now"
    assert client.perform(Read("log", 0)) == "abcde"
    client.close()
    del store


def test_a_store_that_goes_is_told() -> None:
    listener = bind(("127.0.0.1", 0))
    target = listener.getsockname()[:2]
    store = [serve(listener, target, 10).result()]
    client = StoreClient(target)
    client.prefix = "t/"
    store.clear()
    with pytest.raises(StoreLost):
        client.perform(Add("n", 1))


@pytest.mark.parametrize(
    ("said", "met"),
    [
        (b"HTTP/1.0 400 Bad Request\r\n", "is no torch store: its first bytes are b'HTTP"),
        (b"", "it closes the connection"),
    ],
)
def test_what_is_no_store_is_described(said: bytes, met: str) -> None:
    with bind(("127.0.0.1", 0)) as listener:
        target = listener.getsockname()

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(64)
                    connection.sendall(said)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        finder = StoreFinder([target])
        assert finder.find(time.monotonic() + 0.3) is None
        assert met in finder.attempts()
        assert shown(target) in finder.attempts()
        finder.close()
        assert "not a torch store" in stranger_at(target)
        thread.join(5)


def test_a_silent_service_is_waited_for_and_described() -> None:
    with bind(("127.0.0.1", 0)) as listener:
        finder = StoreFinder([listener.getsockname()])
        assert finder.find(time.monotonic() + 0.2) is None
        assert "says nothing" in finder.attempts()
        assert finder.silent
        finder.close()


def test_nobody_there_is_named_by_errno() -> None:
    with bind(("127.0.0.1", 0)) as gone, bind(("127.0.0.1", 0)) as also:
        targets = [gone.getsockname(), also.getsockname()]
    finder = StoreFinder(targets)
    assert finder.find(time.monotonic() + 0.5) is None
    alike = {f"each of {', '.join(map(shown, both))} answers" for both in (targets, targets[::-1])}
    assert finder.attempts().removesuffix(" ECONNREFUSED (Connection refused)") in alike
    finder.close()


def test_a_finder_that_is_interrupted_anywhere_can_be_closed() -> None:
    """Ctrl-C and SIGTERM come between any two lines; what they interrupt is closed after them."""
    with bind(("127.0.0.1", 0)) as silent, bind(("127.0.0.1", 0)) as gone:
        targets: list[tuple[str, int]] = [silent.getsockname(), gone.getsockname()]
        gone.close()
        lines = 0
        while _interrupted(StoreFinder(targets, slowest=0.002), lines):
            lines += 1
    assert lines > 50


def _interrupted(finder: StoreFinder, after: int) -> bool:
    """Interrupt a look of 20 ms after so many lines of the finder's code, and close it; tell whether that came."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal seen
        del argument
        if frame.f_code.co_filename != finder_module.__file__:
            return None
        seen += event == "line"
        if event == "line" and seen > after:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    found = sys.gettrace()
    try:
        sys.settrace(trace)
        finder.find(time.monotonic() + 0.02)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(found)
        finder.close()
    return False
