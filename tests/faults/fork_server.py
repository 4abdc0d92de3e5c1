"""A warm process that has imported torch and forks, since importing it takes each process two seconds of a core."""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from types import FrameType
from typing import IO, Any

import attrs

from tests.forks import SINGLE, import_and_fork

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

WARM = (
    "torch.distributed",
    "torch.testing._internal.distributed.fake_pg",  # brings the backend "fake"
    "colossalai_env._join",
    "colossalai_env._process_group",
    "tests.faults.worker",
    "tests.faults.bystanders",
)
"""What the children find imported."""


@attrs.define
class Child:
    """A process forked by the fork server, held by descriptors, so that no signal goes to another process of its id."""

    pid: int
    events: int
    """Read: what it says, as lines of JSON; at its end when it ends."""
    status: int
    """Read: its exit status, as the fork server waited for it."""
    stdin: int
    log: IO[bytes]
    handle: int | None
    """Its pidfd; None where it ended at once."""

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.handle is not None:
            try:
                signal.pidfd_send_signal(self.handle, number)
            except ProcessLookupError:
                return

    def close(self) -> None:
        """Let go of its descriptors."""
        for descriptor in (self.events, self.status, self.stdin, self.handle):
            if descriptor is not None:
                os.close(descriptor)
        self.log.close()


class ForkServer:
    """The harness's side: it starts children, from several threads at once if need be."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            environment = {**os.environ, **SINGLE, "PYTHONPATH": ROOT}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the harness, which ends the children itself
            )

    def start(self, program: str, task: dict[str, Any], log: IO[bytes]) -> Child:
        """Fork a child that runs `program` with `task`; its standard output and error go to `log`."""
        stdin, events, status = os.pipe(), os.pipe(), os.pipe()
        theirs = (stdin[0], events[1], status[1], log.fileno())
        request = json.dumps({"program": program, "task": task}).encode()
        with self._lock:
            socket.send_fds(self._control, [request], theirs)
            pid = int(self._control.recv(64))
        for descriptor in theirs[:3]:
            os.close(descriptor)
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            handle = None
        return Child(pid, events[0], status[0], stdin[1], log, handle)

    def close(self) -> None:
        """End the fork server, which ends what is left of its children."""
        self._control.close()
        self._process.wait()


def serve(control: socket.socket) -> Callable[[], None] | None:
    """Fork a child for each request until the harness is gone; return twice, in each child with what it is to do."""
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)  # noqa: FBT003 - the socket's own spelling
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _note)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent, statuses = os.getpid(), dict[int, int]()
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if wake in ready:
                wake.recv(4096)
                _reap(statuses)
            if control in ready:
                request, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 4)
                if not request:
                    break
                pid = os.fork()
                if pid == 0:
                    return _child(json.loads(request), descriptors, (control, wake, woken), statuses, parent)
                stdin, events, statuses[pid], log = descriptors
                for descriptor in (stdin, events, log):
                    os.close(descriptor)
                control.send(str(pid).encode())
    for pid in statuses:
        os.kill(pid, signal.SIGKILL)
    return None


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing: that there is a handler makes the kernel's signal known by `wake`."""
    del number, frame


def _reap(statuses: dict[int, int]) -> None:
    """Wait for the children that have ended, and pass on how."""
    while statuses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        pipe = statuses.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # the harness has given up on it
            os.write(pipe, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(pipe)


def _child(
    request: dict[str, Any],
    descriptors: Sequence[int],
    ends: Iterable[socket.socket],
    statuses: Mapping[int, int],
    parent: int,
) -> Callable[[], None]:
    """Let go of what is the fork server's, and return what this child is to do."""
    signal.set_wakeup_fd(-1)
    for end in ends:
        end.close()
    for pipe in statuses.values():
        os.close(pipe)
    stdin, events, status, log = descriptors
    os.close(status)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives the fork server
    if os.getppid() != parent:
        sys.exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, standard in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    os.close(stdin)
    os.close(log)

    def run() -> None:
        from tests.faults import bystanders, worker

        programs = {"rank": worker.main, "bystander": bystanders.main}
        programs[request["program"]](request["task"], events)

    return run


def main() -> None:
    """Import what is slow, then fork for the harness."""
    control = socket.socket(fileno=int(sys.argv[1]))
    plugins = [entry.module for entry in entry_points(group="colossalai_env")]
    import_and_fork([*WARM, *plugins], lambda: serve(control))


if __name__ == "__main__":
    main()
