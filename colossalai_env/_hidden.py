"""Why none of a machine's accelerators can be used: which entry of which variable, or what the driver lacks; pure."""

import re

from ._hardware import CHOOSING
from ._machine import Machine
from .environ import Environ
from .errors import listed

NONE_MEANT = frozenset({"", "-1", "NoDevFiles", "10000"})
"""What they say where no device is meant: people and Flux (-1), Slurm (NoDevFiles), HTCondor (10000)."""

NOT_PASSED = frozenset({"none", "void"})
"""What NVIDIA_VISIBLE_DEVICES says in a container that is meant to have no device (NVIDIA's container toolkit)."""

NUMBER, UUIDS = re.compile(r"[+-]?\d+"), ("GPU-", "MIG-")
"""How the entries of a list of devices begin."""

PASSING = {
    "NVIDIA": "docker run --gpus all, apptainer exec --nv, nvidia.com/gpu in Kubernetes",
    "AMD": "docker run --device /dev/kfd --device /dev/dri, apptainer exec --rocm, amd.com/gpu in Kubernetes",
    "Intel": "docker run --device /dev/dri, gpu.intel.com/xe in Kubernetes",
}
"""How a container is given its devices."""


MEND = "mend the driver (nvidia-smi or rocm-smi shows its state), or install a torch that is built for it"
"""What to do where the driver refuses."""


def mend(words: str) -> str:
    """Return what to do where the driver refuses with these words."""
    return "start this process by spawn, since its parent has used a GPU" if "forked subprocess" in words else MEND


def is_choice(maker: str, environ: Environ) -> bool:
    """Return whether the variables say that no device is meant."""
    return any(value.strip() in NONE_MEANT for _, value in environ.found(CHOOSING.get(maker, ())))


def why_none(machine: Machine, environ: Environ) -> tuple[str, str] | None:
    """Return why none is usable, and what to do; None where none is meant.

    Why is empty where neither variables nor files are the cause, so that the driver has to be asked.
    """
    not_passed = not (machine.files or machine.ids) and environ.get("NVIDIA_VISIBLE_DEVICES") in NOT_PASSED
    if is_choice(machine.maker, environ) or not_passed:
        return None
    return _by_variables(machine, environ) or _by_files(machine) or ("", MEND)


def _by_variables(machine: Machine, environ: Environ) -> tuple[str, str] | None:
    for name, value in environ.found(CHOOSING[machine.maker]):
        wrong = "it selects none" if name == "ONEAPI_DEVICE_SELECTOR" else wrong_entry(value, machine)
        if wrong is not None:
            return f"{name} is {value!r}, and {wrong}", "correct or unset it"
    return None


def _by_files(machine: Machine) -> tuple[str, str] | None:
    passing = PASSING[machine.maker]
    if not machine.files and not machine.ids:
        return "none of them was passed into this container", f"start it with its GPUs ({passing})"
    if machine.closed:
        problem = f"this process may not open {listed(machine.closed)}"
        return problem, "ask the scheduler for GPUs (srun --gpus-per-task=1), or mend the permissions"
    if machine.absent:
        are = "is" if len(machine.absent) == 1 else "are"
        return f"{listed(machine.absent)} {are} not here", f"load the driver's modules, or pass all files ({passing})"
    return None


def wrong_entry(value: str, machine: Machine) -> str | None:
    """Return which entry of a list of devices leaves none, read as torch does; None where the list is not the cause.

    What is neither a number from 0 nor a UUID ends the list. A device that is named twice leaves none at all, and so
    does a first one that is not here.
    """
    entries = [entry.strip() for entry in value.split(",")]
    seen: set[int | str] = set()
    for entry in entries:
        number = NUMBER.match(entry)
        key = entry if number is None else int(number.group())
        if entry.startswith("-") or (number is None and not entry.startswith(UUIDS)):
            break
        if key in seen:
            return f"it names {entry!r} twice"
        seen.add(key)
    return _wrong(entries[0], machine)


def _wrong(entry: str, machine: Machine) -> str | None:
    number, last = NUMBER.match(entry), machine.size - 1
    if number is not None:
        numbers = "0" if last == 0 else f"0 to {last}"
        return None if 0 <= int(number.group()) <= last else f"{entry!r} is none of its devices, {numbers}"
    if entry.startswith("MIG-"):
        return f"no MIG device here is {entry!r}"
    if not entry.startswith(UUIDS):
        return f"{entry!r} is neither a number nor a UUID, which begins with GPU- or MIG-"
    if machine.ids and not any(known.startswith(entry) for known in machine.ids):
        some = [*machine.ids[:2], *(["..."] if len(machine.ids) > 2 else [])]
        return f"no device here is {entry!r}, but {', '.join(some)}"
    return None
