"""How long from the last rank's readiness until the process group is used, beside plain torch and the wrappers."""

import json
import os
import subprocess
import sysconfig
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from benchmarks.site import PEERS

if TYPE_CHECKING:
    from typing_extensions import Self

QUESTION = "group usable"
SIZES, LATE = (1, 2, 4, 8), (0.0, 0.1, 1.0)
PLAIN, OURS = "init_process_group", "colossalai-env"

CALLS: Mapping[str, tuple[str, str]] = {
    OURS: ("from colossalai_env import init_from_env", "init_from_env()"),
    PLAIN: ("", "torch.distributed.init_process_group('gloo')"),
    "Accelerate": ("from accelerate import PartialState", "PartialState(cpu=True)"),
    "Lightning Fabric": (
        "from lightning_fabric import Fabric",
        "Fabric(accelerator='cpu', devices=int(os.environ['WORLD_SIZE']), strategy='ddp').launch()",
    ),
    "Ignite": ("import ignite.distributed", "ignite.distributed.initialize('gloo')"),
}
"""What a script imports before it is ready, and what it says then."""

SCENE = """
import json, os, site, socket, sys, time
site.addsitedir(sys.argv[1])
import torch, torch.distributed
{imports}
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
def act(rank, size, port, late, ready, gate, told, end):
    place = {{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}}
    os.environ.update({{name: str(value) for name, value in place.items()}})
    os.write(ready, b".")
    os.read(gate, 1)
    if rank == 0: time.sleep(late)
    began = time.monotonic()
    {call}
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    assert total.item() == size
    os.write(told, json.dumps([began, time.monotonic()]).encode() + b"\\n")
    os.read(end, 1)
for line in sys.stdin:
    size, late = json.loads(line)
    here, (ready, was_ready), (gate, go), (heard, told), (end, leave) = port(), *(os.pipe() for _ in range(4))
    children = []
    for rank in range(size):
        children.append(os.fork())
        if children[-1] == 0:
            os.close(go), os.close(leave)
            try: act(rank, size, here, late, was_ready, gate, told, end)
            except BaseException as error: print(type(error).__name__, error, file=sys.stderr, flush=True), os._exit(1)
            os._exit(0)
    os.close(told), os.close(gate), os.close(end), os.close(was_ready)
    waiting = size
    while waiting: waiting -= len(os.read(ready, size))
    os.close(go)
    with os.fdopen(heard) as answers: times = [json.loads(answer) for _, answer in zip(range(size), answers)]
    os.close(leave), os.close(ready)
    for child in children: os.waitpid(child, 0)
    spent = max(ended for _, ended in times) - max(began for began, _ in times) if len(times) == size else None
    print(json.dumps(spent), flush=True)
"""
"""Imports all once, then forks the ranks of one group after the other: they are ready as soon as they are told."""

ALONE = """
import site, sys
site.addsitedir(sys.argv[1])
import os, torch, torch.distributed
{imports}
{call}
torch.distributed.all_reduce(torch.ones(1))
os._exit(0)
"""


def _python(code: str, name: str, env: Mapping[str, str] | None = None, **streams: int) -> "subprocess.Popen[str]":
    imports, call = CALLS[name]
    shared = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **(env or {})}
    return subprocess.Popen(
        [PEERS / "bin/python", "-c", code.format(imports=imports, call=call), sysconfig.get_path("purelib")],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **shared},
        stderr=subprocess.DEVNULL,
        text=True,
        **streams,
    )


@attrs.define
class Scene:
    """One process per contender, from which the ranks are forked."""

    name: str
    process: "subprocess.Popen[str]" = attrs.field(init=False)

    def __enter__(self) -> "Self":
        self.process = _python(SCENE, self.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def play(self, size: int, late: float) -> float:
        """Form one group; return the seconds from the last rank's readiness until the last rank has a sum."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError(self.name)
        stdin.write(json.dumps([size, late]) + "\n")
        stdin.flush()
        told = next((line for line in stdout if line[0] in "0123456789n"), "null")
        spent = json.loads(told)
        if spent is None:
            raise RuntimeError(f"{self.name} formed no group of {size}")
        return float(spent)
