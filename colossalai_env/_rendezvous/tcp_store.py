"""The protocol of torch's TCPStore over a plain socket: every request has a time limit, and no name is looked up.

torch's own client asks for the peer's name by reverse DNS before it connects, for its log: where a reply of the name
server is lost, that takes 5 s. Ours needs neither torch nor a thread (TCPStoreBackend.hpp, TCPStoreLibUvBackend.cpp).
"""

import socket
import struct
import time
from collections.abc import Mapping, Sequence

from colossalai_env._addresses import Target, family

VALIDATE = struct.pack("=BI", 0, 0x3C85F7CE)
"""What every client sends first, with c10d's magic number."""

NONCE = 20090402
PING = struct.pack("=BI", 13, NONCE)
PONG = struct.pack("=I", NONCE)

COMPARE_SET, GET, ADD, CHECK, WAIT, APPEND, MULTI_SET = 2, 3, 4, 5, 6, 9, 11

READY = b"\0"
"""The answer to CHECK when all keys are there, and to WAIT when they have come."""


def _packed(*texts: str) -> bytes:
    """Write texts as the store reads them, length first."""
    words = [text.encode() for text in texts]
    return b"".join(struct.pack("=Q", len(word)) + word for word in words)


def _key(name: str) -> str:
    return f"/{name}"  # torch puts every key under a slash


def _keys(names: Sequence[str]) -> bytes:
    return struct.pack("=Q", len(names)) + _packed(*map(_key, names))


def posting(entries: Mapping[str, str]) -> bytes:
    """Return the request that sets keys; it has no answer."""
    pairs = b"".join(_packed(_key(name), text) for name, text in entries.items())
    return struct.pack("=BQ", MULTI_SET, len(entries)) + pairs


def appending(name: str, text: str) -> bytes:
    """Return the request that adds to the end of a key; it has no answer."""
    return bytes([APPEND]) + _packed(_key(name), text)


def adding(name: str, amount: int) -> bytes:
    """Return the request that adds to a counter."""
    return bytes([ADD]) + _packed(_key(name)) + struct.pack("=q", amount)


def checking(names: Sequence[str]) -> bytes:
    """Return the request whose answer is whether all keys are there."""
    return bytes([CHECK]) + _keys(names)


def waiting(names: Sequence[str]) -> bytes:
    """Return the request that is answered when all keys are there."""
    return bytes([WAIT]) + _keys(names)


class TCPStoreConnection:
    """One connection to a TCPStore. Its methods raise `OSError`: `TimeoutError` where no answer comes until `until`."""

    def __init__(self, target: Target, until: float, answered: socket.socket | None = None) -> None:
        """Connect, until a moment on `time.monotonic`'s clock; or go on over a connection that has been `answered`."""
        self.until = until
        self.busy = False
        """Whether an answer is still to come, also after an exception: then the connection serves no other request."""
        if answered is not None:
            self._socket = answered
            return
        self._socket = socket.socket(family(target[0]))
        try:
            self._wait_until()
            self._socket.connect(target)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(VALIDATE)
        except OSError:
            self._socket.close()
            raise

    def post(self, entries: Mapping[str, str]) -> None:
        """Set keys, all at once."""
        self._send(posting(entries))

    def append(self, name: str, text: str) -> None:
        """Add to the end of a key."""
        self._send(appending(name, text))

    def add(self, name: str, amount: int) -> int:
        """Add to a counter, and return what it is then."""
        self._send(adding(name, amount))
        return self._count()

    def swap(self, name: str, expected: str, desired: str) -> str:
        """Set a key if it is as expected, the empty text standing for none; return what it is then."""
        self._send(bytes([COMPARE_SET]) + _packed(_key(name), expected, desired))
        return self._text()

    def check(self, names: Sequence[str]) -> bool:
        """Return whether all keys are there."""
        self._send(checking(names))
        return self._is_ready()

    def get(self, name: str) -> str:
        """Return the text of a key that is there."""
        self._send(bytes([GET]) + _packed(_key(name)))
        return self._text()

    def wait_for(self, names: Sequence[str]) -> None:
        """Ask to be told when all keys are there."""
        self._send(waiting(names))

    def wait_result(self, within: float) -> bool:
        """Wait for the answer to `wait_for`; return whether it has come within the seconds."""
        self.until = time.monotonic() + within
        try:
            return self._is_ready()
        except TimeoutError:
            return False

    def together(self, requests: Sequence[bytes], names: Sequence[str] = ()) -> list[int | bool | None]:
        """Make some requests in one message; return the answers to ADD and CHECK, and None for others, in order.

        Where there are `names`, it also asks to be told when these keys are there, as `wait_for` does.
        """
        self._send(b"".join((*requests, waiting(names) if names else b"")))
        return [self._answer(request[0]) for request in requests]

    def ping(self, within: float) -> bool:
        """Return whether the store's process answers within the seconds."""
        self.until = time.monotonic() + within
        self._send(PING)
        try:
            return self._hear(len(PONG)) == PONG
        except TimeoutError:
            return False

    def own_address(self) -> str:
        """Return the address of this host by which the store was reached."""
        return str(self._socket.getsockname()[0]).removeprefix("::ffff:")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, message: bytes) -> None:
        self._wait_until()
        self._socket.sendall(message)

    def _answer(self, request: int) -> int | bool | None:
        if request == ADD:
            return self._count()
        return self._is_ready() if request == CHECK else None

    def _count(self) -> int:
        (count,) = struct.unpack("=q", self._hear(8))
        return int(count)

    def _is_ready(self) -> bool:
        return self._hear(1) == READY

    def _wait_until(self) -> None:
        self._socket.settimeout(max(0.001, self.until - time.monotonic()))

    def _text(self) -> str:
        (length,) = struct.unpack("=Q", self._hear(8))
        return self._heard(length).decode()

    def _hear(self, length: int) -> bytes:
        return bytes(self._heard(length))

    def _heard(self, length: int) -> bytearray:
        heard = bytearray()
        while len(heard) < length:
            self._wait_until()
            some = self._socket.recv(length - len(heard))
            if not some:
                msg = "the store closed the connection"
                raise ConnectionResetError(msg)
            heard += some
        return heard
