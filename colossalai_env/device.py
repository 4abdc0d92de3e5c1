"""Which accelerator is this process's, and which backend fits it.

torch takes seconds to import, so it is imported by what needs it, when rank 0's socket is bound.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import NoSuchDevice, UnknownBackend

if TYPE_CHECKING:
    import torch


class Accelerators(NamedTuple):
    """What torch sees here: the kind of accelerator, and how many are visible to this process."""

    kind: str
    visible: int

    @classmethod
    def here(cls) -> "Accelerators":
        """Count what is visible; nothing is parsed, since UUIDs and MIG names are legal in the variables."""
        import torch

        if not torch.accelerator.is_available():  # asked first: torch 2.6 raises where there is no accelerator to name
            return cls("cpu", 0)
        found = torch.accelerator.current_accelerator()
        if found is None:
            return cls("cpu", 0)
        return cls(found.type, torch.accelerator.device_count())


def backend_for(asked: str | None, accelerators: Accelerators) -> str:
    """Return the backend that was asked for, or the one that fits; raise `UnknownBackend`.

    Both spellings of torch are taken: ``nccl``, and ``cpu:gloo,cuda:nccl``.
    """
    from torch import distributed

    if asked is None:
        return distributed.get_default_backend_for_device(accelerators.kind)
    known = distributed.Backend.backend_list
    for pair in asked.split(","):
        name = pair.rpartition(":")[2].lower()
        if name not in known:
            usable = [other for other in known[1:] if distributed.is_backend_available(other)]
            raise UnknownBackend(asked, f"torch knows no backend {name!r}", f"use one of {', '.join(usable)}")
        if name == "nccl" and accelerators.kind != "cuda":
            raise UnknownBackend(asked, "NCCL needs a GPU and none is visible", "use --backend gloo (backend='gloo')")
        if not distributed.is_backend_available(name):
            raise UnknownBackend(asked, f"this torch was built without {name}", "install another build, or use gloo")
    return asked


def index_of(
    asked: "torch.device | str | int | None", local_rank: int | None, accelerators: Accelerators, rank: int
) -> int | None:
    """Choose what was asked for, the only visible device, or the local rank's.

    None on a CPU, and before the local rank is known. Raises `NoSuchDevice` where there is none: never a modulo, two
    processes on one device fail later.
    """
    if asked is not None:
        import torch

        device = torch.device(accelerators.kind, asked) if isinstance(asked, int) else torch.device(asked)
        return _asked(device, accelerators, rank)
    if accelerators.visible <= 1:
        return 0 if accelerators.visible else None
    if local_rank is None:
        return None
    if local_rank >= accelerators.visible:
        raise NoSuchDevice(
            accelerators.kind,
            f"local rank {local_rank} needs device {local_rank}",
            accelerators.visible,
            rank,
            "start one process per device, or show each process its own (CUDA_VISIBLE_DEVICES, --gpus-per-task=1)",
        )
    return local_rank


def _asked(device: "torch.device", accelerators: Accelerators, rank: int) -> int | None:
    if device.type == "cpu":
        return None
    index = device.index or 0
    if device.type != accelerators.kind or index >= accelerators.visible:
        advice = "ask for one of those, or leave device= out"
        raise NoSuchDevice(accelerators.kind, f"device {device} was asked for", accelerators.visible, rank, advice)
    return index


def identity(kind: str, index: int) -> str | None:
    """Return a device's UUID, which tells it from all others of any node; None where it has none."""
    if kind != "cuda":
        return None
    import torch

    cuda: Any = torch.cuda
    uuid = getattr(cuda.get_device_properties(index), "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"


def select(kind: str, index: int | None) -> "torch.device":
    """Make a device the current one and return it; the CPU where there is no accelerator."""
    import torch

    if index is None:
        return torch.device("cpu")
    torch.accelerator.set_device_index(index)
    return torch.device(kind, index)


def binds_at_once(backend: str, release: tuple[int, ...], *, detail: bool) -> bool:
    """Tell whether the group is given its GPU, so that NCCL connects at once.

    torch breaks with it from 2.6.0 to 2.7.0 (destroy hangs or warns), and in its debug level DETAIL, whose wrapper
    group takes no device.
    """
    return "nccl" in backend and not (2, 6) <= release <= (2, 7, 0) and not detail
