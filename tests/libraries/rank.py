"""One rank: joins its job, or asks who it is, and then has one library after the other train in it.

Usage: rank.py joined|exported|asked LIBRARY...
"""

import json
import os
import sys
import time
import traceback

import colossalai_env
from tests.libraries.used import USED, Told, Who, distributed


def tell(told: Told) -> None:
    """Print a line, which begins on a line of its own: another rank may be in the middle of one."""
    sys.stdout.write(f"\nTOLD {json.dumps(told)}\n")
    sys.stdout.flush()


def use(name: str, who: Who) -> None:
    began = time.monotonic()
    try:
        told = USED[name](who)
    except Exception as error:  # noqa: BLE001 - told by the test
        traceback.print_exc()
        told = {"error": f"{type(error).__name__}: {error}"}
    tell({"library": name, **told, "seconds": round(time.monotonic() - began, 1)})


def main(way: str, *names: str) -> None:
    before = dict(os.environ)
    if way == "asked":
        spec = colossalai_env.resolve()
        os.environ.update(spec.to_env())
        for name in names:
            use(name, spec)
            if distributed.is_initialized():
                distributed.destroy_process_group()
        tell({"library": "", "rank": spec.rank, "size": spec.world_size, "local_rank": spec.local_rank})
        return
    with colossalai_env.init_from_env(timeout=120, export=way == "exported") as job:
        exported = job.spec.to_env()
        for name in names:
            use(name, job)
        told = {"rank": job.rank, "size": job.world_size, "local_rank": job.local_rank, "device": job.device.type}
    tell({"library": "", **told, "taken_back": all(os.environ.get(name) == before.get(name) for name in exported)})


if __name__ == "__main__":
    main(*sys.argv[1:])
