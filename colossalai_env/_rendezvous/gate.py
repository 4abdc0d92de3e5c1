"""Of the ranks of one node one looks for rank 0; the others wait until it has found the store, or is gone."""

import os
import socket
import struct
import zlib
from collections.abc import Sequence

from colossalai_env._addresses import Target, shown

BACKLOG = 1024
"""Ranks of one node that may wait."""


class Gate:
    """A Unix socket, named after the job: who binds it looks, and who connects waits for the connection to end.

    The name has no file, and goes with its process. Where another user holds it, or the system has no such names,
    each rank looks by itself.
    """

    def __init__(self, job: str | None, targets: Sequence[Target]) -> None:
        where = f"{job}/{'/'.join(map(shown, targets))}"
        self._name = f"\0colossalai_env/{os.getuid()}/{zlib.crc32(where.encode()):08x}"
        self._held: socket.socket | None = None
        self.ahead: socket.socket | None = None
        """The connection to the one who looks, which is readable when that has ended."""

    def enter(self) -> None:
        """Be the one who looks, or wait for it; do nothing where this rank does either."""
        if self._held is not None or self.ahead is not None:
            return
        self._held = one = socket.socket(socket.AF_UNIX)
        try:
            one.bind(self._name)
            one.listen(BACKLOG)
        except OSError:
            self._held = None
            self._follow(one)

    def _follow(self, one: socket.socket) -> None:
        one.setblocking(False)  # noqa: FBT003 - the socket's own spelling
        try:
            one.connect(self._name)
            _, uid, _ = struct.unpack("=iii", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:  # it has gone meanwhile, or more wait than can
            one.close()
            return
        if uid == os.getuid():
            self.ahead = one
        else:
            one.close()

    def leave(self) -> None:
        """Look no more, or wait no more: who waits for this rank looks from now on."""
        for one in (self._held, self.ahead):
            if one is not None:
                one.close()
        self._held = self.ahead = None
