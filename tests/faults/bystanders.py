"""Processes that are of no job: servers that hold its port, and clients that disturb it; traffic stays on loopback."""

import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from .worker import Say, speaker

Target: TypeAlias = tuple[str, int]
Program: TypeAlias = Callable[[Target, Say], None]


def main(task: Mapping[str, Any], events: int) -> None:
    """Run a program by name until it is done, or for as long as the fault lasts."""
    PROGRAMS[task["name"].rstrip("0123456789")]((task["host"], task["port"]), speaker(events))


def _listen(target: Target, backlog: int = 64) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(target)
    server.listen(backlog)
    return server


def _server(
    greet: Callable[[socket.socket], bool], answer: Callable[[socket.socket, bytes], bool], *, tick: float | None = None
) -> Program:
    """Make a server of what it does with a new connection and with what it hears; each tells whether to keep it."""

    def serve(target: Target, say: Say) -> None:
        with _listen(target) as server, selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            say("ready")
            while True:
                heard = [key.fileobj for key, _ in selector.select(tick)]
                if server in heard:
                    connection, _ = server.accept()
                    connection.setblocking(False)  # noqa: FBT003 - the socket's own spelling
                    if _kept(greet, connection):
                        selector.register(connection, selectors.EVENT_READ)
                    else:
                        connection.close()
                for item in [key.fileobj for key in selector.get_map().values()]:
                    if isinstance(item, socket.socket) and item is not server and (item in heard or tick is not None):
                        _hear(selector, item, answer, tick is not None and item not in heard)

    return serve


def _hear(
    selector: selectors.BaseSelector,
    connection: socket.socket,
    answer: Callable[[socket.socket, bytes], bool],
    tick: bool,
) -> None:
    try:
        said = b"" if tick else connection.recv(4096)
    except OSError:
        said = b""
    if (not said and not tick) or not _kept(lambda connection: answer(connection, said), connection):
        selector.unregister(connection)
        connection.close()


def _kept(deal: Callable[[socket.socket], bool], connection: socket.socket) -> bool:
    try:
        return deal(connection)
    except BlockingIOError:
        return True
    except OSError:
        return False


def _keep(connection: socket.socket, said: bytes = b"") -> bool:
    del connection, said
    return True


def _refuse(connection: socket.socket, said: bytes = b"") -> bool:
    del connection, said
    return False


def _reset(connection: socket.socket) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _banner(connection: socket.socket) -> bool:
    connection.send(b"SSH-2.0-foreign\r\n")
    return True


def _echo(connection: socket.socket, said: bytes) -> bool:
    connection.send(said)
    return True


def _endless(connection: socket.socket, said: bytes) -> bool:
    del said
    connection.send(b"\xff\x00" * 512)
    return True


def _drip(connection: socket.socket, said: bytes) -> bool:
    del said
    connection.send(b"\x00")
    return True


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)


def _http(target: Target, say: Say) -> None:
    with ThreadingHTTPServer(target, _Page) as server:
        say("ready")
        server.serve_forever()


def _unaccepting(target: Target, say: Say) -> None:
    """Listen with a queue that is full: the next to connect gets no answer at all."""
    with _listen(target, 0):
        crowd = [socket.socket() for _ in range(4)]
        for client in crowd:
            client.setblocking(False)  # noqa: FBT003 - the socket's own spelling
            client.connect_ex(target)
        say("ready")
        signal.pause()


def _store(target: Target, say: Say) -> None:
    """Serve a TCPStore that this library did not make, as torchrun's agent does, and any script may."""
    from torch import distributed

    c10d: Any = distributed
    listener = _listen(target)
    store = c10d.TCPStore(*target, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    say("ready")
    signal.pause()
    del store


def _scan(target: Target, say: Say) -> None:
    """Do as port scanners do: connect, close, reset, speak nonsense, greet as other services, leave half said."""
    say("ready")
    greetings = (
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        os.urandom(64),
        b"\x00" * 8,
        b"\r\n",
    )
    kept: list[socket.socket] = []
    for turn in range(60):
        for greeting in greetings:
            client = socket.create_connection(target, timeout=2)
            if greeting:
                client.sendall(greeting)
            if turn % 3 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if turn % 10:
                client.close()
            else:
                kept.append(client)
    say("done")
    for client in kept:
        client.close()


def _crowd(target: Target, say: Say) -> None:
    """Hold many connections and say nothing."""
    crowd = [socket.create_connection(target, timeout=2) for _ in range(300)]
    say("ready")
    signal.pause()
    del crowd


def _loris(target: Target, say: Say) -> None:
    """Begin what a TCPStore client says, and go on by a byte now and then, over several connections."""
    crowd = [socket.create_connection(target, timeout=2) for _ in range(20)]
    say("ready")
    words = struct.pack("=BI", 0, 0x3C85F7CE) + struct.pack("=BQ", 1, 1 << 20) + b"x" * 100
    for index in range(len(words)):
        for client in crowd:
            client.sendall(words[index : index + 1])
        time.sleep(0.1)  # the fault itself: it is slow


PROGRAMS: Mapping[str, Program] = {
    "http": _http,
    "silent": _server(_keep, _keep),
    "closing": _server(_refuse, _refuse),
    "resetting": _server(_reset, _refuse),
    "banner": _server(_banner, _keep),
    "echo": _server(_keep, _echo),
    "endless": _server(_keep, _endless, tick=0.01),
    "drip": _server(_keep, _drip, tick=0.2),
    "unaccepting": _unaccepting,
    "store": _store,
    "agent": _store,
    "scan": _scan,
    "crowd": _crowd,
    "loris": _loris,
}
