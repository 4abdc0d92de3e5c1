"""Processes that a rank starts by multiprocessing, which are no ranks themselves, though they find its environment."""

import inspect
import os
import sys
from typing import Any

from .errors import ChildOfRank
from .spec import DistSpec, Origin

KEY = "colossalai_env"
"""The entry of multiprocessing's own settings of a process, which its children get as a copy, forked or spawned."""

REMEDY = (
    "call init_from_env in that process alone; to make ranks of its children, hand each its rank, world_size, host and "
    "port"
)


def _settings() -> dict[str, Any]:
    """Return what multiprocessing copies from this process to its children; empty where it is not even imported."""
    module: Any = sys.modules.get("multiprocessing.process")
    settings: dict[str, Any] = getattr(module.current_process(), "_config", {}) if module else {}
    return settings


def _meeting(spec: DistSpec) -> tuple[object, ...]:
    return spec.rank, spec.world_size, spec.host, spec.port, spec.job_id


def remember(spec: DistSpec, place: str) -> None:
    """Have the children of this process know as whom, and where in the program, it has joined."""
    _settings()[KEY] = (_meeting(spec), f"was started by pid {os.getpid()}, which is {spec}, since {place}")


def forget() -> None:
    """Let children that are started from now on be whoever they are."""
    _settings().pop(KEY, None)


def refuse_child(outcome: DistSpec) -> None:
    """Raise `ChildOfRank` in a child, or worker, of a process that has joined as whom this one is taken for."""
    joined, parent = _settings().get(KEY, ((), ""))
    mine = _meeting(outcome)
    if joined and all(None in {one, other} or one == other for one, other in zip(mine, joined, strict=True)):
        raise ChildOfRank(f"pid {os.getpid()}", parent, REMEDY)


def refuse_import() -> None:
    """Raise `ChildOfRank` while a spawned child imports the main module again, which it does under another name."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__mp_main__":
            parent = f"was spawned by pid {os.getppid()} and imports the main module again"
            raise ChildOfRank(f"pid {os.getpid()}", parent, 'put what the script does under if __name__ == "__main__"')
        frame = frame.f_back


def doubt(outcome: DistSpec) -> tuple[str, ...]:
    """Return a warning where a child of multiprocessing is taken for a process alone."""
    multiprocessing = sys.modules.get("multiprocessing")
    parent = multiprocessing.parent_process() if multiprocessing else None
    if parent is None or outcome.world_size > 1 or outcome.origin("rank") is not Origin.RULE:
        return ()
    warning = (
        f"pid {os.getpid()} is a child that pid {parent.pid} started by multiprocessing, and nothing says its rank: it "
        "is taken to be alone. If it is one of several, hand each its rank, world_size, host and port"
    )
    return (warning,)
