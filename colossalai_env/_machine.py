"""What a machine has of accelerators, whatever torch sees of them: by device files, the kernel's words, and drivers."""

import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

ROOT = ""
"""Where device files and the kernel's own words are looked for."""


class Machine(NamedTuple):
    """What this machine has of one maker's accelerators, whatever torch sees of them."""

    maker: str
    files: tuple[str, ...] = ()
    """The device files that are here: in a container, those that were passed into it."""
    closed: tuple[str, ...] = ()
    """The files that this process may not open."""
    absent: tuple[str, ...] = ()
    """Files that the driver needs besides, and that are not here."""
    known: int = 0
    """How many devices the kernel's driver has, also those that were not passed into this container."""
    ids: tuple[str, ...] = ()
    """The UUIDs of all that this process could see."""
    driver: str = ""
    """The driver's version."""
    trouble: str = ""
    """What the driver says of itself where it cannot be asked."""

    @property
    def size(self) -> int:
        """How many devices there are."""
        return len(self.ids) or len(self.files) or self.known

    def __str__(self) -> str:
        """Name them: ``2 NVIDIA GPU(s) (/dev/nvidia0, /dev/nvidia1, driver 580.95.05)``."""
        words = [*self.files[:4], *(["..."] if len(self.files) > 4 else [])]
        words += [f"driver {self.driver}"] if self.driver else []
        return f"{self.size} {self.maker} GPU(s)" + (f" ({', '.join(words)})" if words else "")


def of(maker: str) -> Machine | None:
    """Return what is here of a maker's accelerators; None where there is nothing."""
    found = MAKERS[maker]() if maker in MAKERS else Machine(maker)
    return found if found.size else None


def _nvidia() -> Machine:
    files, told = _devices(r"nvidia\d+"), nvml()
    known = len(_listed("proc/driver/nvidia/gpus"))
    if not files and not known and not told.ids:
        return Machine("NVIDIA")
    needed = ("/dev/nvidiactl", "/dev/nvidia-uvm") if files else ()
    written = re.search(r"\s(\d+\.\d[\d.]*)\s", _text("proc/driver/nvidia/version"))
    return Machine(
        "NVIDIA",
        files,
        closed=_closed((*files, *needed)),
        absent=tuple(path for path in needed if not os.path.exists(_here(path))),
        known=known,
        ids=told.ids,
        driver=told.driver or (written.group(1) if written else ""),
        trouble=told.trouble,
    )


def _amd() -> Machine:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    gpus = [
        node
        for node in _listed(nodes)
        if re.search(r"^simd_count [1-9]", _text(f"{nodes}/{node}/properties"), re.MULTILINE)
    ]
    known = len(gpus)
    files = tuple(path for path in ("/dev/kfd",) if os.path.exists(_here(path)))
    if not files and not known:
        return Machine("AMD")
    render = _rendering("0x1002")
    driver = _text("sys/module/amdgpu/version").strip()
    return Machine("AMD", render if files else (), _closed((*files, *render)), (), known, driver=driver)


def _intel() -> Machine:
    files = _rendering("0x8086")
    return Machine("Intel", files, _closed(files))


MAKERS: dict[str, Callable[[], Machine]] = {"NVIDIA": _nvidia, "AMD": _amd, "Intel": _intel}
"""How each maker's devices show on Linux."""


def _here(path: str) -> str:
    return f"{ROOT}/{path}"


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(_here(folder)))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(_here(path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _devices(pattern: str) -> tuple[str, ...]:
    names = [name for name in _listed("dev") if re.fullmatch(pattern, name)]
    return tuple(f"/dev/{name}" for name in sorted(names, key=lambda name: (len(name), name)))


def _closed(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files that are here and may not be opened: by their mode, or by a scheduler's cgroup."""
    here = [path for path in paths if os.path.lexists(_here(path))]
    return tuple(path for path in here if not os.access(_here(path), os.R_OK | os.W_OK))


def _rendering(vendor: str) -> tuple[str, ...]:
    """Return the files of one vendor's GPUs that can compute, by its number on the PCI bus."""
    cards = [card for card in _listed("sys/class/drm") if re.fullmatch(r"renderD\d+", card)]
    found = [card for card in cards if _text(f"sys/class/drm/{card}/device/vendor").strip() == vendor]
    return tuple(f"/dev/dri/{card}" for card in found if os.path.lexists(_here(f"dev/dri/{card}")))


class Managed(NamedTuple):
    """What NVIDIA's management library says."""

    driver: str = ""
    ids: tuple[str, ...] = ()
    trouble: str = ""


def nvml() -> Managed:
    """Ask NVIDIA's management library for the driver's version and the UUIDs of the GPUs."""
    import ctypes

    try:
        library: Any = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return Managed(trouble="libnvidia-ml.so.1, the driver's own library, cannot be loaded")
    library.nvmlErrorString.restype = ctypes.c_char_p
    failed = library.nvmlInit_v2()
    if failed:
        return Managed(trouble=library.nvmlErrorString(failed).decode())
    text, devices, device = ctypes.create_string_buffer(96), ctypes.c_uint(), ctypes.c_void_p()
    library.nvmlSystemGetDriverVersion(text, len(text))
    driver = text.value.decode()
    library.nvmlDeviceGetCount_v2(ctypes.byref(devices))
    ids: list[str] = []
    for index in range(devices.value):
        if not library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
            library.nvmlDeviceGetUUID(device, text, len(text))
            ids.append(text.value.decode())
    return Managed(driver, tuple(ids))
