"""Ports and sockets as the kernel shows them: which are free, who listens, who is connected."""

import os
import socket
import threading
from collections.abc import Iterator

import attrs

LISTEN, ESTABLISHED = "0A", "01"

_given: set[int] = set()
_lock = threading.Lock()


@attrs.frozen
class Connection:
    """One line of /proc/net/tcp."""

    address: str
    port: int
    remote_port: int
    state: str
    inode: int


def connections() -> Iterator[Connection]:
    """Read all TCP sockets of this machine."""
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        with open(path, encoding="ascii") as file:
            for line in file.readlines()[1:]:
                words = line.split()
                (local, port), remote_port = words[1].split(":"), words[2].split(":")[1]
                yield Connection(_address(local, family), int(port, 16), int(remote_port, 16), words[3], int(words[9]))


def _address(text: str, family: socket.AddressFamily) -> str:
    """Undo the kernel's spelling: words of four bytes, each in the machine's own order."""
    raw = bytes.fromhex(text)
    words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
    return socket.inet_ntop(family, b"".join(words))


def sockets_of(pid: int) -> frozenset[int]:
    """Return the inodes of a process's sockets."""
    found: set[int] = set()
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            link = os.readlink(os.path.join(folder, name))
            if link.startswith("socket:["):
                found.add(int(link[8:-1]))
    except OSError:
        return frozenset(found)
    return frozenset(found)


def free_port() -> int:
    """Return a port below the ephemeral range that nobody uses and that no other fault was given."""
    with _lock:
        port = 21000 + os.getpid() % 50 * 100
        while port in _given or not is_free(port):
            port += 1
        _given.add(port)
        return port


def is_free(port: int) -> bool:
    """Tell whether a port can be bound on all interfaces."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
