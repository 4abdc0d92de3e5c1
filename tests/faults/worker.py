"""One rank: it joins a group by either library, sums over it, and says what happened as lines of JSON."""

import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import FrameType
from typing import Any, Protocol

import attrs


class Say(Protocol):
    """Says one thing that happened, with its facts."""

    def __call__(self, seen: str, **facts: Any) -> None: ...


def speaker(events: int) -> Say:
    """Return what writes events to a descriptor, each with the time on the clock that all processes share."""

    def say(seen: str, **facts: Any) -> None:
        os.write(events, json.dumps({"seen": seen, "at": time.monotonic(), **facts}).encode() + b"\n")

    return say


@attrs.frozen(kw_only=True)
class Task:
    """What a rank is to do, as it travels in JSON."""

    library: str
    environment: Mapping[str, str]
    keywords: Mapping[str, Any]
    timeout: float
    steps: Sequence[str]
    job: str
    torch_version: str | None = None
    release: tuple[str, int] | None = None
    handler: bool = False
    files: int | None = None
    cold: bool = False
    import_delay: float = 0.0


@attrs.frozen
class Delay:
    """Finds no module, and takes its time for torch."""

    seconds: float

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Wait where torch is asked for; the next finder finds it."""
        del path, target
        if name == "torch":
            time.sleep(self.seconds)


def main(task: Mapping[str, Any], events: int) -> None:
    """Do the task, in this process or, where it is to be cold, in a fresh interpreter."""
    work = Task(**task)
    if work.cold:
        os.set_inheritable(events, True)  # noqa: FBT003 - the function's own spelling
        again = json.dumps({**task, "cold": False})
        command = [sys.executable, "-m", "tests.faults.worker", str(events), again]
        os.execve(sys.executable, command, {"PYTHONPATH": os.environ["PYTHONPATH"], **work.environment})
    if work.release is not None:
        _become(*work.release)
    if work.import_delay:
        sys.meta_path.insert(0, Delay(work.import_delay))
    os.environ.clear()
    os.environ.update(work.environment)
    say = speaker(events)
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # what a process does that is broken off
    if work.handler:
        signal.signal(signal.SIGTERM, _exit)
        signal.signal(signal.SIGUSR1, _note)
    if work.files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (work.files, work.files))
    try:
        _work(work, say)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        say("leaving")


def _become(library: str, protocol: int) -> None:
    """Be another release of the library: of this one, nothing is imported yet that has read the numbers."""
    import colossalai_env._version as version
    from colossalai_env._rendezvous.protocol import requests

    for module, number in ((version, library), (requests, protocol)):
        setattr(module, "VERSION", number)  # noqa: B010 - they are constants to type checkers


def _exit(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)


def _note(number: int, frame: FrameType | None) -> None:
    del number, frame


def _work(task: Task, say: Say) -> None:
    if task.torch_version is not None:
        import torch

        setattr(torch, "__version__", task.torch_version)  # noqa: B010 - it has a type of its own
    close: Callable[[], None] | None = None
    for step in task.steps:
        match step:
            case "init" | "try":
                close = _init(task, say)
                if close is None and step == "init":
                    sys.exit(1)
            case "sum":
                _sum(task, say)
            case "hold":
                say("holding")
                sys.stdin.readline()
            case "nap":  # a program is not always quick between two jobs
                time.sleep(0.7)
            case "close" if close is not None:
                close()
                say("closed")
            case _:
                raise ValueError(step)


def _init(task: Task, say: Say) -> Callable[[], None] | None:
    """Join the group; return what leaves it, or None when it failed."""
    join = _ours if task.library == "colossalai_env" else _plain
    if not task.torch_version and "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
    say("entered", pid=os.getpid())
    try:
        close, facts = join(task)
    except BaseException as error:
        from colossalai_env import ColossalaiEnvError

        say(
            "raised",
            kind=type(error).__name__,
            text=str(error),
            deliberate=isinstance(error, ColossalaiEnvError),
        )
        traceback.print_exc()
        if not isinstance(error, Exception):
            raise
        return None
    say("returned", **facts)
    return close


def _ours(task: Task) -> tuple[Callable[[], None], dict[str, Any]]:
    from colossalai_env import init_from_env

    job = init_from_env(timeout=task.timeout, **task.keywords)
    facts = {
        name: getattr(job, name)
        for name in ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes")
    }
    return job.close, facts


def _plain(task: Task) -> tuple[Callable[[], None], dict[str, Any]]:
    from torch import distributed

    c10d: Any = distributed
    given = dict(task.keywords)
    options: dict[str, Any] = {"backend": given.pop("backend", "gloo"), "timeout": timedelta(seconds=task.timeout)}
    if "host" in given:
        options["init_method"] = f"tcp://{given['host']}:{given['port']}"
        options |= {"rank": given["rank"], "world_size": given["world_size"]}
    c10d.init_process_group(**options)
    return c10d.destroy_process_group, {"rank": c10d.get_rank(), "world_size": c10d.get_world_size()}


def _sum(task: Task, say: Say) -> None:
    """Sum over the group, and gather who is in it: two jobs that mix are seen here."""
    import torch
    from torch import distributed

    c10d: Any = distributed
    mine = torch.tensor([zlib.crc32(task.job.encode()), int(c10d.get_rank()), os.getpid()])
    gathered = [torch.zeros_like(mine) for _ in range(c10d.get_world_size())]
    total = torch.ones(1)
    try:
        c10d.all_gather(gathered, mine)
        c10d.all_reduce(total)
    except RuntimeError as error:
        say("collective failed", kind=type(error).__name__, text=str(error))
        sys.exit(1)
    say("summed", sum=int(total.item()), members=[[int(number) for number in item] for item in gathered])


if __name__ == "__main__":
    main(json.loads(sys.argv[2]), int(sys.argv[1]))
