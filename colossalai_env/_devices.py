"""Which accelerator is this process's, and which backend fits it: the device comes first, the backend from it.

torch takes seconds to import, so it is imported by what needs it, when rank 0's socket is bound.
"""

import logging
from typing import TYPE_CHECKING, NamedTuple

from . import _hardware as hardware
from ._rendezvous.protocol.placement import beyond, index_among
from .environ import Environ
from .errors import NoSuchDevice, UnknownBackend, UnusableDevices, listed

if TYPE_CHECKING:
    import torch

log = logging.getLogger("colossalai_env")


class Accelerators(NamedTuple):
    """What torch sees here: the kind of accelerator, and how many are visible to this process."""

    kind: str
    visible: int
    ids: tuple[str, ...] = ()
    """What tells each of them from all others of any node; empty where nothing does."""
    shared: bool = False
    """Whether other tasks of the node may see them too, so that the local rank chooses."""
    shareable: bool = False
    """Whether two ranks can use one of them over the chosen backend."""
    choice: str = ""
    """The variables that choose among the machine's devices, as they are set."""

    @classmethod
    def here(cls) -> "Accelerators":
        """Count what is visible, without asking the driver: who has can fork no child that uses a GPU."""
        return cls.built_for(hardware.built_for())

    @classmethod
    def built_for(cls, build: hardware.Build) -> "Accelerators":
        """Count what is visible of what torch was built for."""
        visible = hardware.count(build.kind)
        return cls(build.kind, visible) if visible else CPU


CPU = Accelerators("cpu", 0)

SHARING = frozenset({"gloo", "mpi"})
"""The backends that let two ranks use one device."""

PACKAGES = {
    "ccl": "oneccl_bindings_for_pytorch",
    "cncl": "torch_mlu",
    "hccl": "torch_npu (Ascend) or habana_frameworks.torch.distributed.hccl (Gaudi)",
    "mccl": "torch_musa",
    "smddp": "smdistributed.dataparallel.torch.torch_smddp",
    "xccl": "intel_extension_for_pytorch, with a torch built for XPU",
    "xla": "torch_xla.distributed.xla_backend",
}
"""The modules that register a backend when they are imported, by the backends' names (their makers' documentation)."""

BRINGING = {
    "hpu": "habana_frameworks.torch.distributed.hccl",
    "mlu": "torch_mlu",
    "musa": "torch_musa",
    "npu": "torch_npu",
    "xla": "torch_xla.distributed.xla_backend",
}
"""The modules that bring the backend of a kind of device."""


def choose(
    asked: "torch.device | str | int | None", backend: str | None, environ: Environ, rank: int
) -> tuple[Accelerators, str]:
    """Choose the kind of device, and the backend that fits it; for a job on CPUs no accelerator is so much as counted.

    Whether other tasks see the same devices only the roll call tells: until then they count as shared.
    Raises `NoSuchDevice`, `UnknownBackend`, or `UnusableDevices`: no accelerator is left idle in silence.
    """
    kind = _kind(asked, rank)
    serves = None if backend is None else _served(backend)
    if kind == "cpu" or (kind is None and serves == {"cpu"}):
        return CPU, backend_for(backend, CPU, asked)
    build = hardware.built_for()
    found = Accelerators.built_for(build)
    cpu_will_do = kind is None and (serves is None or "cpu" in serves)
    if found.visible and cpu_will_do and serves is not None and found.kind not in serves:
        return CPU, backend_for(backend, CPU)
    ids, trouble = _opened(build, found, environ, rank)
    if trouble is not None:
        _report(trouble, fatal=not cpu_will_do or (trouble.built and serves is None))
    choice = ", ".join(f"{name} is {value!r}" for name, value in environ.found(hardware.CHOOSING.get(build.maker, ())))
    if not ids:
        return CPU._replace(choice=choice), backend_for(backend, CPU, asked)
    chosen = backend_for(backend, found, asked)
    shareable = _can_share(chosen, found.kind, environ)
    known = ids if all(ids) else ()
    return Accelerators(found.kind, len(ids), known, shared=True, shareable=shareable, choice=choice), chosen


def _opened(
    build: hardware.Build, found: Accelerators, environ: Environ, rank: int
) -> tuple[tuple[str, ...], UnusableDevices | None]:
    """Initialise the driver of what is visible; return what names each device, or why there is none to use."""
    try:
        ids = hardware.initialise(found.kind) if found.visible else ()
    except hardware.DriverFailed as failure:
        return (), refused(build, f"{found.visible} {found.kind} device(s)", str(failure), rank)
    return ids, None if ids else unusable(build, environ, rank)


def _report(trouble: UnusableDevices, *, fatal: bool) -> None:
    """Raise, or warn: each rank of its own machine, but rank 0 alone that torch was built for the CPU."""
    if fatal:
        raise trouble
    if trouble.built or trouble.rank == 0:
        log.warning("%s This job runs on the CPU.", trouble)


def _kind(asked: "torch.device | str | int | None", rank: int) -> str | None:
    """Return the kind of device that was asked for; a number alone is any accelerator's."""
    if asked is None or isinstance(asked, int):
        return None if asked is None else "accelerator"
    import torch

    try:
        return torch.device(asked).type
    except RuntimeError as error:
        seen = Accelerators.here()
        advice = "write cpu, or the kind and number of one of them, such as cuda:0"
        raise NoSuchDevice(seen.kind, f"device {asked!r} was asked for", seen.visible, rank, advice) from error


def refused(build: hardware.Build, seen: str, words: str, rank: int) -> UnusableDevices:
    """Return the error where the driver of devices that are seen refuses."""
    from . import _machine as machine
    from ._hidden import mend

    here = machine.of(build.maker) or seen
    return UnusableDevices(str(build), str(here), f"its driver says: {words}", mend(words), rank)


def unusable(build: hardware.Build, environ: Environ, rank: int | None = None) -> UnusableDevices | None:
    """Return why torch sees none of this machine's accelerators; None where there are none, or none is meant."""
    maker = hardware.left_idle() if build.kind == "cpu" else build.maker
    if not maker:
        return None
    from . import _machine as machine
    from ._hidden import is_choice, why_none

    here = machine.of(maker)
    if here is None or is_choice(maker, environ):
        return None
    if build.kind == "cpu":
        advice = f"install a torch that is built for {maker}'s GPUs"
        return UnusableDevices(str(build), str(here), "this torch is built for CPUs", advice, rank, built=False)
    why = why_none(here, environ)
    if why is None:
        return None
    reason, advice = why
    if not reason:
        words = [text for text in (_words(build.kind), here.trouble) if text]
        reason = f"its driver says: {'; '.join(words) or 'nothing'}"
    return UnusableDevices(str(build), str(here), reason, advice, rank)


def _words(kind: str) -> str:
    try:
        hardware.initialise(kind)
    except hardware.DriverFailed as failure:
        return str(failure)
    return ""


def backend_for(asked: str | None, accelerators: Accelerators, device: "torch.device | str | int | None" = None) -> str:
    """Return the backend that was asked for, or the ones that fit; raise `UnknownBackend`.

    Both spellings of torch are taken: ``nccl``, and ``cpu:gloo,cuda:nccl``. Where none was asked for, an accelerator
    gets its own backend and the CPU gloo, so that tensors of both can be summed. `device` is what was asked for.
    """
    from torch import distributed

    if asked is None:
        return _default(accelerators.kind)
    for name in _names(asked):
        kinds = _kinds(name)
        if accelerators.kind not in kinds and "cpu" not in kinds:
            raise UnknownBackend(asked, *_misfit(name, kinds, accelerators, device))
        if not distributed.is_backend_available(name):
            raise UnknownBackend(asked, f"this torch was built without {name}", "install another build, or use gloo")
    if accelerators.kind not in _served(asked):
        raise UnknownBackend(asked, *_misfit(asked, _served(asked), accelerators, device))
    return asked.lower()


def _default(kind: str) -> str:
    from torch import distributed

    own = distributed.Backend.default_device_backend_map.get(kind, "fake")
    if own == "fake":  # stands in for a backend whose package is not imported
        advice = f"import {BRINGING.get(kind, 'the package that brings it')} before this call, or name one (backend=)"
        raise UnknownBackend("", f"torch knows none for {kind} devices", advice)
    return own if "cpu" in _kinds(own) else f"cpu:gloo,{kind}:{own}"


def _names(backend: str) -> list[str]:
    """Return the names in a backend's text; raise `UnknownBackend` for one that torch does not know."""
    from torch import distributed

    known = distributed.Backend.backend_list
    names = [pair.rpartition(":")[2] for pair in backend.lower().split(",")]
    for name in names:
        if name not in known:
            problem, usable = (
                f"torch knows no backend {name!r}",
                [
                    other
                    for other in known
                    if other not in {"undefined", "fake"} and distributed.is_backend_available(other)
                ],
            )
            if name in PACKAGES:
                raise UnknownBackend(
                    backend, f"{problem} yet", f"import {PACKAGES[name]} before this call, which brings it"
                )
            raise UnknownBackend(backend, problem, f"use one of {', '.join(usable)}")
    return names


def _kinds(name: str) -> set[str]:
    """Return the kinds of device that one backend serves."""
    from torch import distributed

    backend = distributed.Backend
    defaults = {kind for kind, own in backend.default_device_backend_map.items() if own == name}
    return {*backend.backend_capability.get(name, ()), *defaults}


def _served(backend: str) -> set[str]:
    """Return the kinds of device whose tensors a group with this backend takes."""
    pairs = zip(backend.lower().split(","), _names(backend), strict=True)
    return {kind for pair, name in pairs for kind in ([pair.partition(":")[0]] if ":" in pair else _kinds(name))}


def _misfit(
    name: str, kinds: set[str], accelerators: Accelerators, device: "torch.device | str | int | None"
) -> tuple[str, str]:
    """Return which of device and backend does not fit the other, and what to do."""
    serves = f"{name} serves {listed(sorted(kinds))} alone"
    if device is not None and (accelerators.visible or _kind(device, 0) == "cpu"):
        fits = "backend='gloo'" if accelerators.kind == "cpu" else f"backend={_default(accelerators.kind)!r}"
        return f"{serves}, and device={str(device)!r} was asked for", f"use {fits}, or leave one of the two out"
    if accelerators.kind != "cpu":
        return f"{serves}, and this process has {accelerators.kind}", "name the one that fits, or leave it out"
    needs = "NCCL needs a GPU" if name == "nccl" else serves
    return f"{needs} and none is visible", "use --backend gloo (backend='gloo')"


def _can_share(backend: str, kind: str, environ: Environ) -> bool:
    """Return whether two ranks can use one device; NCCL 2.30 and newer can where it is told to."""
    names = [name for own, _, name in (pair.rpartition(":") for pair in backend.split(",")) if own in {"", kind}]
    name = names[0] if names else backend
    return name in SHARING or (name == "nccl" and environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1")


def index_of(
    asked: "torch.device | str | int | None", local_rank: int | None, accelerators: Accelerators, rank: int
) -> int | None:
    """Choose what was asked for, the only visible device, the first of one's own, or the local rank's.

    None on a CPU, and where the local rank counts and is not known yet. Raises `NoSuchDevice` where there is none:
    never a modulo, two processes on one device fail later.
    """
    index = _number(asked, accelerators, rank)
    if index is None and _kind(asked, rank) != "cpu":
        index = index_among(accelerators.visible, local_rank, shared=accelerators.shared)
        if index is not None and index >= accelerators.visible:
            raise beyond(accelerators.kind, index, accelerators.visible, rank)
    return index


def _number(asked: "torch.device | str | int | None", accelerators: Accelerators, rank: int) -> int | None:
    """Return the number of the device that was asked for, where it has one; raise `NoSuchDevice` for one not here."""
    kind = _kind(asked, rank)
    if asked is None or kind in {None, "cpu"}:
        return None
    import torch

    number = asked if isinstance(asked, int) else torch.device(asked).index
    if kind not in {"accelerator", accelerators.kind} or not 0 <= (number or 0) < accelerators.visible:
        seen = accelerators.kind if accelerators.visible else str(kind)
        advice = "ask for one of those, or leave device= out"
        raise NoSuchDevice(seen, f"device {asked} was asked for", accelerators.visible, rank, advice)
    return number


def named(accelerators: Accelerators, index: int | None) -> "torch.device":
    """Return torch's name of a device; the CPU where there is no index."""
    import torch

    return torch.device("cpu") if index is None else torch.device(accelerators.kind, index)


def binds_at_once(backend: str, release: tuple[int, ...], *, detail: bool) -> bool:
    """Return whether the group is given its GPU, so that NCCL connects at once.

    torch breaks with it from 2.6.0 to 2.7.0 (destroy hangs or warns), and in its debug level DETAIL, whose wrapper
    group takes no device.
    """
    return "nccl" in backend and not (2, 6) <= release <= (2, 7, 0) and not detail
