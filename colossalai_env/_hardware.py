"""What torch was built for, how many devices it sees, and what tells them apart; whatever asks torch for them is here.

torch takes seconds to import, so it is imported by what needs it, when rank 0's socket is bound.
"""

import os
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from ._rendezvous.torch_store import torch_release

if TYPE_CHECKING:
    import torch

CHOOSING = {
    "NVIDIA": ("CUDA_VISIBLE_DEVICES",),
    "AMD": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    "Intel": ("ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR"),
}
"""The variables that choose among a maker's devices."""

SIGNS = {"NVIDIA": "/dev/nvidiactl", "AMD": "/dev/kfd"}
"""The file by which a maker's devices show. Intel's are left out: nearly every notebook has one."""


class DriverFailed(Exception):
    """A device is there, and its driver refuses; the text is the driver's own."""


class Build(NamedTuple):
    """What torch was built for."""

    kind: str
    """torch's name of the accelerator, such as ``cuda``; ``cpu`` where it was built for none."""
    maker: str
    """Whose accelerators these are: NVIDIA, AMD, Intel; empty where it is another's, or there are none."""
    version: str

    def __str__(self) -> str:
        """Name torch with its version."""
        return f"torch {self.version}"


def built_for() -> Build:
    """Return what torch was built for; no driver is asked.

    torch 2.6 alone asks CUDA's driver for that, which forbids CUDA in forked children: there it is not asked.
    """
    import torch

    kind, asks = "cpu", torch_release() < (2, 7)
    if asks and (torch.version.cuda or torch.version.hip):
        kind = "cuda"
    elif not asks or torch.accelerator.is_available():  # 2.6 raises where there is none to name
        found = torch.accelerator.current_accelerator()
        kind = "cpu" if found is None else found.type
    cuda = "AMD" if torch.version.hip else "NVIDIA"
    return Build(kind, {"cuda": cuda, "xpu": "Intel"}.get(kind, ""), str(torch.__version__))


def left_idle() -> str | None:
    """Return the maker of accelerators that a torch built for CPUs leaves unused, as far as one file tells."""
    return next((maker for maker, sign in SIGNS.items() if os.path.exists(sign)), None)


def count(kind: str) -> int:
    """Return how many devices torch sees.

    On CUDA torch asks NVIDIA's management library, which leaves forked children free to use CUDA; `is_available` asks
    the driver, and does not (torch.cuda, torch 2.6 to 2.13). Nothing is parsed: UUIDs and MIG names are legal in the
    variables that choose among devices.
    """
    if kind == "cpu":
        return 0
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that fails: `initialise` has its words
        return int(torch.get_device_module(kind).device_count())


def initialise(kind: str) -> tuple[str, ...]:
    """Initialise the driver, and return for each visible device what tells it from all others of any node.

    That is its UUID as NVIDIA writes it, or nothing where the device has none. No device gets a context: that takes
    300 ms and 500 MiB of memory. Raises `DriverFailed`.
    """
    import torch

    module: Any = torch.get_device_module(kind)
    try:
        if hasattr(module, "init"):
            module.init()
        visible = int(module.device_count())
        if not hasattr(module, "get_device_properties"):
            return ("",) * visible
        return tuple(_uuid(module.get_device_properties(index)) for index in range(visible))
    except Exception as error:  # each driver has errors of its own kind, and each is told
        raise DriverFailed(str(error).strip().partition("\n")[0] or type(error).__name__) from error


def _uuid(properties: Any) -> str:  # noqa: ANN401 - each kind of device has its own
    uuid = getattr(properties, "uuid", None)
    if uuid is None:
        return ""
    part = "MIG" if " MIG " in str(getattr(properties, "name", "")) else "GPU"
    return f"{part}-{uuid}"


def select(device: "torch.device") -> None:
    """Make a device the calling thread's current one; a device without a context gets none."""
    import torch

    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)


def chosen() -> int | None:
    """Return the device that this process has made its current one; None where it has chosen none.

    torch begins with the first, so that one counts as no choice. No driver is initialised for the question.
    """
    import torch

    kind = built_for().kind
    module: Any = torch.get_device_module(kind)
    begun = kind != "cpu" and getattr(module, "is_initialized", bool)()
    return (int(module.current_device()) or None) if begun else None
