"""The directory: where no launcher says rank 0's host, one process that all can name tells the others where it is."""

import selectors
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from colossalai_env._addresses import EVERY, EVERY4, Target, family, is_loopback, own_address

from .listener import EARLY, early, read_early, turn_away

WORDS = 1024
"""Bytes of a request, at most."""

PAUSE = 0.05
"""Seconds between two looks for the directory, at first; ten times as long in the end."""


class Directory:
    """Serves a socket on a thread: rank 0 leaves its address, and all who ask are answered once it is known.

    It is known from the start where rank 0 serves the directory itself.
    """

    def __init__(self, listener: socket.socket, job: str, rank0: Target | None = None) -> None:
        self._listener, self._job = listener, job
        self._rank0 = rank0
        self._told = 0
        """How many of the other ranks were told where rank 0 is."""
        self._asking: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        listener.setblocking(False)  # noqa: FBT003 - the socket's own spelling
        for one in (listener, self._stopped):
            self._selector.register(one, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="colossalai_env directory")
        self._thread.start()

    def close(self) -> None:
        """Serve no longer."""
        self._end()
        self._listener.close()

    def pass_on(self, sentence: str, others: int, seconds: float) -> None:
        """Report to the others who come later that rank 0 has gone, and why, as rank 0 does to those who find it."""
        self._end()
        with self._listener:
            turn_away(self._listener, self._job, sentence, max(0, others - self._told), seconds)

    def _end(self) -> None:
        self._stop.send(b"x")
        self._thread.join()

    def _serve(self) -> None:
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.fileobj is self._stopped:
                        return
                    with suppress(OSError):
                        self._accept() if key.fileobj is self._listener else self._hear(key.fileobj)
        finally:
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket) and key.fileobj is not self._listener:
                    key.fileobj.close()
            for one in (*self._asking, self._stop):
                one.close()
            self._selector.close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)  # noqa: FBT003 - the socket's own spelling
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, connection: object) -> None:
        """Take what one says: rank 0 its port; everybody else is to be told."""
        if not isinstance(connection, socket.socket):
            return
        self._selector.unregister(connection)
        try:
            heard = connection.recv(WORDS)
        except OSError:
            heard = b""
        if not heard:
            connection.close()
            return
        self._asking.append(connection)
        job, told = read_early(heard) if heard.startswith(EARLY) else ("", {})
        if job == self._job and "port" in told:
            address = str(connection.getpeername()[0]).removeprefix("::ffff:")
            self._rank0 = own_address() if is_loopback(address) else address, int(told["port"])
            self._told -= 1  # rank 0 is told itself, and is none of the others
        if self._rank0 is not None:
            self._answer(self._rank0)

    def _answer(self, rank0: Target) -> None:
        self._told += len(self._asking)
        for connection in self._asking:
            with suppress(OSError):
                address, port = rank0
                if address in {EVERY, EVERY4}:  # so at the one by which this connection came too
                    address = str(connection.getsockname()[0]).removeprefix("::ffff:")
                connection.sendall(early(self._job, rank0=(address, port)))
            connection.close()
        self._asking.clear()


class Announcement:
    """Leaves rank 0's port at the directory, from a thread, as soon as that is there; does nothing without targets."""

    def __init__(self, targets: Sequence[Target] = (), job: str = "", port: int = 0) -> None:
        self._targets, self._job, self._port = targets, job, port
        self._stop = threading.Event()
        self._address: str | None = None
        self._thread = threading.Thread(target=self._announce, daemon=True, name="colossalai_env announcement")
        if targets:
            self._thread.start()

    def address(self, seconds: float) -> str | None:
        """Return rank 0's address as the directory tells it; None where none was there in time."""
        if self._targets:
            self._thread.join(seconds)
        return self._address

    def close(self) -> None:
        """Announce no longer."""
        self._stop.set()

    def _announce(self) -> None:
        pause = PAUSE
        while not self._stop.is_set():
            for target in self._targets:
                with suppress(OSError), socket.socket(family(target[0])) as connection:
                    self._address = self._left_at(connection, target)
                    if self._address is not None:
                        return
            self._stop.wait(pause)
            pause = min(10 * PAUSE, pause * 1.2)

    def _left_at(self, connection: socket.socket, target: Target) -> str | None:
        connection.settimeout(2.0)
        connection.connect(target)
        connection.sendall(early(self._job, port=self._port))
        heard, until = b"", time.monotonic() + 2.0
        while heard.count(b"\n") < 2 and time.monotonic() < until and (some := connection.recv(WORDS)):
            heard += some
        job, told = read_early(heard) if heard.startswith(EARLY) else ("", {})
        return str(told["rank0"][0]) if job == self._job and "rank0" in told else None
