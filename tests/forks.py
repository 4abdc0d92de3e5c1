"""A process that imports much, once, and forks; and how its forks end.

They end as an interpreter does, but for what their parent had imported: to take torch's modules apart takes a fork
more time than all that a short program does.
"""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterable
from importlib import import_module
from typing import Any, NoReturn

SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Variables of such a process: one with threads cannot fork safely."""

SHARED = ("torch.distributed.distributed_c10d",)
"""Modules of the parent that hold what programs make."""


def import_and_fork(names: Iterable[str], serve: Callable[[], Callable[[], None] | None]) -> None:
    """Import modules, then `serve`, which returns in each fork with what it is to do, and in the parent with None."""
    for name in names:
        import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("a process that has threads must not fork")
    gc.collect()
    gc.freeze()  # what the forks share is not looked through by each
    imported = {*sys.modules}
    program = serve()
    if program is not None:
        end_after(program, imported)


def end_after(program: Callable[[], None], imported: Collection[str]) -> NoReturn:
    """Run a program to the end of its process; `imported` names the modules that the parent had.

    Threads are waited for, the exit's handlers are called, and what the program's own modules hold is let go: a thread,
    a handler or a destructor that holds a process up does so here too.
    """
    status = 0
    try:
        program()
    except SystemExit as error:
        status = _status(error.code)
    except KeyboardInterrupt:  # the interpreter ends itself by the signal
        raise
    except BaseException as error:  # noqa: BLE001 - shown as the interpreter shows it
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    finishing: Any = threading
    finishing._shutdown()
    finishing = atexit
    finishing._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    threading.excepthook = sys.unraisablehook = _silent  # what daemon threads do from here on is nobody's business
    for name in [name for name in sys.modules if name not in imported or name in SHARED]:
        if name != "__main__":
            vars(sys.modules[name]).clear()
    gc.collect()
    os._exit(status)


def _status(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _silent(_: object) -> None:
    pass
