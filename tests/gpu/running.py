"""Programs on this machine's GPUs: how they are started, and what they print."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.devices import SHOWN
from tests.processes import Ended, Processes, free_port, run

BOTH = "cpu:gloo,cuda:nccl"

CONTEXTS = """
import ctypes
def contexts():
    "Return the numbers of the visible devices on which this process has a context."
    driver, count, device = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_int()
    flags, active, found = ctypes.c_uint(), ctypes.c_int(), []
    driver.cuInit(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active))
        found += [index] * bool(active.value)
    return found
"""

COMMON = """
import json, os, sys, warnings
import torch
from torch import distributed
import colossalai_env
from colossalai_env import init_from_env
def tell(**facts):
    print("TOLD " + json.dumps(facts) + "\\n", end="")
def in_a_fork():
    "Return what a forked child gets as a sum on its GPU, or why it gets none."
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gloo has threads, of which Python 3.12 warns
        child = os.fork()
    if child == 0:
        try:
            said = str(torch.ones(2, device="cuda").sum().item())
        except Exception as error:
            said = str(error)
        finally:
            os.write(write, said.encode()[:999])
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    return os.read(read, 999).decode()
def total(device, value=1.0):
    tensor = torch.full((4,), value, device=device)
    distributed.all_reduce(tensor)
    return tensor[3].item()
"""
"""What the programs begin with."""


def command(program: str) -> list[str]:
    """Return the command that runs a program."""
    return [sys.executable, "-c", COMMON + CONTEXTS + program]


def on_gpu(program: str, env: Mapping[str, str | None] | None = None) -> Ended:
    """Run a program that sees the GPUs."""
    return run(command(program), {**SHOWN, **(env or {})})


def told(ended: Ended) -> dict[str, Any]:
    """Return what a program told, which must have ended well and without a warning."""
    assert ended.code == 0, ended.err
    assert "Warning" not in ended.err, ended.err
    (line,) = ended.lines("TOLD ")
    return dict(json.loads(line))


def ranks(program: str, envs: Sequence[Mapping[str, str | None]]) -> list[Ended]:
    """Run a program as the ranks of one world, each with variables of its own."""
    shared = {"WORLD_SIZE": str(len(envs)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with Processes() as processes:
        for rank, env in enumerate(envs):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), **shared}
            processes.start(command(program), {**SHOWN, **own, **env})
        return processes.wait()


def at_once(programs: Sequence[tuple[str, Mapping[str, str | None]]]) -> list[Ended]:
    """Run programs at once, each alone in its world and with variables of its own."""
    with Processes() as processes:
        for program, env in programs:
            processes.start(command(program), {**SHOWN, **env})
        return processes.wait(180)
