"""The accelerators that tests see: none by default, those of this machine where a test asks, or some that are faked."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import attrs

from colossalai_env import _hardware as hardware
from colossalai_env import _machine as machine
from colossalai_env._hardware import Build, DriverFailed
from colossalai_env._machine import Machine

T = TypeVar("T")

HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1", "ONEAPI_DEVICE_SELECTOR": "opencl:cpu", "ZE_AFFINITY_MASK": "-1"}
"""What hides this machine's accelerators from torch, whoever made them, and says that none is meant."""

SHOWN = {name: os.environ.get(name) for name in HIDDEN}
"""The same variables as they were before `hide`; None where they were not set."""


def hide() -> None:
    """Hide the accelerators from this process and from all that it starts: tests say what they need."""
    os.environ.update(HIDDEN)


@cache
def count() -> int:
    """Return how many GPUs torch can use on this machine; a torch that is built for none is not asked."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return 0
    program = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    env = {name: value for name, value in {**os.environ, **SHOWN}.items() if value is not None}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    return int(ran.stdout)


def always(value: T) -> Callable[..., T]:
    """Return a function that returns one thing, whatever it is asked."""

    def answer(*_: object) -> T:
        return value

    return answer


@attrs.frozen(kw_only=True)
class Fake:
    """What torch, drivers and files are to say."""

    kind: str = "cuda"
    maker: str = "NVIDIA"
    ids: Sequence[str] = ()
    refuses: str = ""
    """The driver's words, where it refuses."""
    machine: Mapping[str, Any] | None = None
    """What is here whatever torch sees."""
    nccl: str = ""
    """What NCCL prints when the group is made, where it fails."""

    def put(self, place: Callable[[object, str, object], None]) -> None:
        """Put it in the place of the true one; `place` sets an attribute."""

        def initialise(_: str) -> tuple[str, ...]:
            if self.refuses:
                raise DriverFailed(self.refuses)
            return tuple(self.ids)

        here = None if self.machine is None else Machine(self.maker or "NVIDIA", **self.machine)
        answers: dict[str, Callable[..., Any]] = {
            "built_for": always(Build(self.kind, self.maker, "2.11.0")),
            "left_idle": always(None if here is None else here.maker),
            "count": always(len(self.ids)),
            "initialise": initialise,
            "select": always(None),
        }
        for name, answer in answers.items():
            place(hardware, name, answer)
        place(machine, "of", always(here))
        if self.nccl:
            from torch import distributed

            def fail(**_: object) -> None:
                raise distributed.DistBackendError(self.nccl)

            place(distributed, "init_process_group", fail)
