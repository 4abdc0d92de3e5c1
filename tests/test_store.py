"""The store: a look before torch's own client connects, and waits that end."""

import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from colossalai_env import scout as scout_module
from colossalai_env.addresses import EVERY, shown
from colossalai_env.listener import bind
from colossalai_env.rollcall import Add, Alive, Append, Await, Post, Read
from colossalai_env.scout import Scout, answers, stranger_at
from colossalai_env.store import Ledger, StoreLost, serve


@pytest.mark.parametrize(("bound", "address"), [("127.0.0.1",) * 2, ("::1",) * 2, (EVERY, "127.0.0.1"), (EVERY, "::1")])
def test_a_store_is_found_and_serves(bound: str, address: str) -> None:
    listener = bind((bound, 0))
    target = (address, listener.getsockname()[1])
    assert not answers(target, 0.2)
    store = serve(listener, target, 10).result()
    assert answers(target, 2.0)
    ledger = Ledger(target, "t/")
    ledger.perform(Append("log", "a"))
    ledger.perform(Append("log", "b"))
    ledger.perform(Post({"x": "1", "y": "2"}))
    assert ledger.perform(Read("log", 0)) == "ab"
    assert ledger.perform(Add("n", 2)) == 2
    assert ledger.perform(Await(("x", "y"), 1))
    assert not ledger.perform(Await(("x", "z"), 0))
    assert ledger.perform(Alive(1.0))
    began = time.monotonic()
    assert ledger.perform(Read("never", 0.2)) is None
    assert 0.2 <= time.monotonic() - began < 1
    assert ledger.perform(Add("n", 1)) == 3, "a wait that is called off does not hold up other requests"
    ledger.close()
    del store


def test_a_store_that_goes_is_told() -> None:
    listener = bind(("127.0.0.1", 0))
    target = listener.getsockname()[:2]
    store = [serve(listener, target, 10).result()]
    ledger = Ledger(target, "t/")
    store.clear()
    with pytest.raises(StoreLost):
        ledger.perform(Add("n", 1))


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
        scout = Scout([target])
        assert scout.find(time.monotonic() + 0.3) is None
        assert met in scout.story()
        assert shown(target) in scout.story()
        scout.close()
        assert "not a torch store" in stranger_at(target)
        thread.join(5)


def test_a_silent_service_is_waited_for_and_described() -> None:
    with bind(("127.0.0.1", 0)) as listener:
        scout = Scout([listener.getsockname()])
        assert scout.find(time.monotonic() + 0.2) is None
        assert "says nothing" in scout.story()
        scout.close()


def test_nobody_there_is_named_by_errno() -> None:
    with bind(("127.0.0.1", 0)) as gone:
        target = gone.getsockname()
    scout = Scout([target])
    assert scout.find(time.monotonic() + 0.1) is None
    assert "ECONNREFUSED" in scout.story()
    scout.close()


def test_a_scout_that_is_interrupted_anywhere_can_be_closed() -> None:
    """Ctrl-C and SIGTERM come between any two lines; what they interrupt is closed after them."""
    with bind(("127.0.0.1", 0)) as silent, bind(("127.0.0.1", 0)) as gone:
        targets: list[tuple[str, int]] = [silent.getsockname(), gone.getsockname()]
        gone.close()
        lines = 0
        while _interrupted(Scout(targets, slowest=0.002), lines):
            lines += 1
    assert lines > 50


def _interrupted(scout: Scout, after: int) -> bool:
    """Interrupt a look of 20 ms after so many lines of the scout's code, and close it; tell whether that came."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal seen
        del argument
        if frame.f_code.co_filename != scout_module.__file__:
            return None
        seen += event == "line"
        if event == "line" and seen > after:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    found = sys.gettrace()
    try:
        sys.settrace(trace)
        scout.find(time.monotonic() + 0.02)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(found)
        scout.close()
    return False
