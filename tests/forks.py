"""How a fork of a process that has imported much ends: as an interpreter does, but for what its parent had imported.

To take torch's modules apart takes a fork more time than all that a short program does.
"""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable, Collection
from typing import Any, NoReturn

SHARED = ("torch.distributed.distributed_c10d",)
"""Modules of the parent that hold what programs make."""


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
