"""A warm interpreter, which has imported torch and forks for each program: importing it takes two seconds of a core.

It is called as an interpreter is, by tests and by launchers, with `-u`, `-c`, `-m` or a script. What a program finds
imported is torch alone: this library is imported by each anew.
"""

import atexit
import ctypes
import fcntl
import json
import logging
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.forks import SINGLE, import_and_fork

ROOT = Path(__file__).parents[1]

IMPORTED = ("torch.distributed.launcher.api", "torch.distributed.elastic.rendezvous.registry", "torch._dynamo")

LIBC = ctypes.CDLL(None, use_errno=True)

HIGH = 600
"""Above all descriptors of programs: what they are to have open waits there."""


@cache
def warm() -> str:
    """Return what is called as an interpreter; a warm one is started at the first call, and ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-", dir="/var/tmp"))  # /tmp is each pretend host's own
    client = folder / "python"
    text = (ROOT / "tests/programs/warm.py").read_text(encoding="utf-8")
    client.write_text(f"#!{sys.executable} -SE\n{text}", encoding="utf-8")
    client.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.warm", folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **SINGLE},
    )
    atexit.register(server.communicate)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    return str(client)


def torchrun() -> list[str]:
    """Return torchrun's words; it, and the ranks that it starts, are run by the warm interpreter."""
    return ["env", f"PYTHON_EXEC={warm()}", warm(), "-m", "torch.distributed.run"]


@cache
def warm_path() -> str:
    """Return a PATH on which `python`, `torchrun` and `pytest` are run by the warm interpreter."""
    folder = Path(warm()).parent
    for name, words in {"torchrun": torchrun(), "pytest": [warm(), "-m", "pytest"]}.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def serve(folder: str) -> Callable[[], None] | None:
    """Fork for each call until standard input ends; return twice, in each fork with what it is to do."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{folder}/socket")
    listener.listen(64)
    print("up")
    calls: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    shutil.rmtree(folder)
                    return None
                if key.fileobj is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                elif key.data is not None:
                    _ended(selector, calls, key)
                elif key.fileobj in calls:
                    _signalled(selector, calls, key.fileobj)
                else:
                    program = _called(selector, calls, key.fileobj)
                    if program is not None:
                        return program


def _called(selector: Any, calls: dict[socket.socket, int], call: Any) -> Callable[[], None] | None:
    said, descriptors, _, _ = socket.recv_fds(call, 1 << 20, 200)
    if not said:
        selector.unregister(call)
        call.close()
        return None
    credentials = call.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    shadow, parent = int.from_bytes(credentials[:4], sys.byteorder), os.getpid()
    _enter(shadow, "pid")  # the next fork is in it, and not this process
    pid = os.fork()
    if pid == 0:
        _enter(shadow, "net", "uts", "mnt")
        return _fork(json.loads(said), descriptors, parent)
    _enter(parent, "pid")
    for descriptor in descriptors:
        os.close(descriptor)
    calls[call] = pid
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, call)
    return None


def _enter(process: int, *kinds: str) -> None:
    """Enter the namespaces of a process, as on pretend hosts, where they are others than this one's."""
    opened: list[int] = []
    for kind in kinds:
        theirs, ours = f"/proc/{process}/ns/{kind}", f"/proc/self/ns/{'pid_for_children' if kind == 'pid' else kind}"
        if os.readlink(theirs) != os.readlink(ours):
            opened.append(os.open(theirs, os.O_RDONLY))
    for namespace in opened:
        if LIBC.setns(namespace, 0):
            raise OSError(ctypes.get_errno(), f"cannot enter the namespaces of process {process}")
        os.close(namespace)


def _signalled(selector: Any, calls: dict[socket.socket, int], call: Any) -> None:
    """Pass a signal on; where the shadow was killed, kill."""
    number = call.recv(1)
    if number:
        os.kill(calls[call], number[0])
    else:
        selector.unregister(call)
        os.kill(calls[call], signal.SIGKILL)


def _ended(selector: Any, calls: dict[socket.socket, int], key: Any) -> None:
    """Tell the shadow how the fork has ended."""
    selector.unregister(key.fileobj)
    os.close(key.fileobj)
    _, status = os.waitpid(calls.pop(key.data), 0)
    if key.data in selector.get_map():
        selector.unregister(key.data)
        with suppress(BrokenPipeError):  # the shadow was killed in this moment
            key.data.send(str(os.waitstatus_to_exitcode(status)).encode())
    key.data.close()


def _fork(task: dict[str, Any], descriptors: Sequence[int], parent: int) -> Callable[[], None]:
    """Become what was called, and return what it is to do."""
    os.setsid()
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives the warm interpreter
    if os.getppid() not in {parent, 0}:  # 0 is a parent in another PID namespace
        os._exit(1)
    waiting = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH) for descriptor in descriptors]
    os.closerange(0, HIGH)
    for descriptor, number in zip(waiting, task["opened"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    import_module("torch.distributed").set_debug_level_from_env()
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(os.environ.get("LOGLEVEL", "WARNING"))  # as at their import
    vars(import_module("multiprocessing.process"))["ORIGINAL_DIR"] = task["folder"]  # as at its import
    words = [*task["argv"]]
    while words[0] == "-u":
        words.pop(0)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    kind = words[0] if words[0] in {"-c", "-m"} else ""
    sys.argv = words[1:] if kind == "-m" else words[:1] + words[2:] if kind else words
    sys.path[:1] = ["" if kind == "-c" else task["folder"] if kind else os.path.dirname(words[0]), *paths]

    def run() -> None:
        if kind == "-c":
            sys.modules["__main__"] = main = ModuleType("__main__")
            exec(compile(words[1], "<string>", "exec"), vars(main))
        elif kind:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")

    return run


def main() -> None:
    """Import what is slow, then fork."""
    import_and_fork(IMPORTED, lambda: serve(sys.argv[1]))


if __name__ == "__main__":
    main()
