"""Asks the launcher for rank 0's host, then uses MPI where it is told to, and ends with the status it is given."""

import json
import sys
import time
from importlib import import_module
from typing import Any

import colossalai_env
from colossalai_env._locate import locate
from colossalai_env._registry import resolvers
from colossalai_env.environ import Environ

environ = Environ.snapshot()
spec = colossalai_env.resolve()
found: list[Any] = [item.resolver for item in resolvers(environ) if item.resolver.name == spec.resolver]
began = time.monotonic()
spec, endpoint = locate(spec, environ, found[0].locate, 20)
told: dict[str, Any] = {
    "rank": spec.rank,
    "local_rank": spec.local_rank,
    "host": spec.host,
    "port": spec.port,
    "source": spec.sources["host"],
}
told["milliseconds"] = round(1000 * (time.monotonic() - began), 1)
if "--mpi" in sys.argv:
    mpi: Any = import_module("mpi4py.MPI")
    told["mpi"] = mpi.COMM_WORLD.allreduce(spec.rank + 1)
    node = mpi.COMM_WORLD.Split_type(mpi.COMM_TYPE_SHARED)
    told["of_mpi"] = [mpi.COMM_WORLD.Get_rank(), node.Get_rank()]
    told["library"] = mpi.Get_library_version().split(",")[0][:20]
sys.stdout.write(f"TOLD {json.dumps(told)}\n")
sys.exit(int(sys.argv[1]))
