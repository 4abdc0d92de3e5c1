"""What a machine has, by files and drivers; other machines are folders that look like theirs."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from colossalai_env import _machine as machine
from colossalai_env._machine import Machine, Managed
from tests.devices import always


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Look for files in a folder that is empty at first."""
    monkeypatch.setattr(machine, "ROOT", str(tmp_path))
    monkeypatch.setattr(machine, "nvml", lambda: Managed("580.95.05", ("GPU-aa", "GPU-bb")))
    return tmp_path


def put(root: Path, **files: str) -> None:
    """Put files with texts, each named by its path with __ for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


NVIDIA = {f"dev__nvidia{name}": "" for name in ("0", "1", "10", "ctl", "-uvm", "-caps")}
VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@host)\n"


def test_a_bare_machine_has_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(root.iterdir())
    monkeypatch.setattr(machine, "nvml", Managed)
    for maker in ("NVIDIA", "AMD", "Intel", "another"):
        assert machine.of(maker) is None


def test_nvidias_devices_are_told_by_files_and_driver(root: Path) -> None:
    put(root, **NVIDIA, proc__driver__nvidia__version=VERSION)
    found = machine.of("NVIDIA")
    assert found == Machine(
        "NVIDIA", ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia10"), ids=("GPU-aa", "GPU-bb"), driver="580.95.05"
    )
    assert str(found) == "2 NVIDIA GPU(s) (/dev/nvidia0, /dev/nvidia1, /dev/nvidia10, driver 580.95.05)"


@pytest.mark.parametrize(
    "version", [VERSION, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"]
)
def test_the_drivers_version_is_the_kernels_where_its_library_is_absent(
    version: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "nvml", lambda: Managed(trouble="Driver/library version mismatch"))
    put(root, **NVIDIA, proc__driver__nvidia__version=version)
    found = machine.of("NVIDIA")
    assert found is not None
    assert found.driver in version
    assert found.driver.count(".") == 2
    assert found.trouble == "Driver/library version mismatch"


def test_devices_that_show_no_file_are_known_by_the_drivers_library(root: Path) -> None:
    assert not list(root.iterdir())
    found = machine.of("NVIDIA")
    assert found == Machine("NVIDIA", ids=("GPU-aa", "GPU-bb"), driver="580.95.05")


def test_a_container_shows_the_drivers_devices_without_their_files(root: Path) -> None:
    for bus in ("0000:17:00.0", "0000:65:00.0"):
        (root / "proc/driver/nvidia/gpus" / bus).mkdir(parents=True)
    found = machine.of("NVIDIA")
    assert found is not None
    assert (found.files, found.known) == ((), 2)


def test_files_that_are_absent_or_may_not_be_opened_are_named(root: Path) -> None:
    put(root, dev__nvidia0="", dev__nvidiactl="")
    (root / "dev/nvidia1").symlink_to("nowhere")  # as good as closed, also for root
    found = machine.of("NVIDIA")
    assert found is not None
    assert (found.closed, found.absent) == (("/dev/nvidia1",), ("/dev/nvidia-uvm",))


def test_amds_devices_are_told_by_the_kernels_topology(root: Path) -> None:
    nodes = "sys__class__kfd__kfd__topology__nodes"
    put(root, **{f"{nodes}__0__properties": "cpu_cores_count 64\nsimd_count 0\n"})
    put(root, **{f"{nodes}__{node}__properties": "cpu_cores_count 0\nsimd_count 1216\n" for node in "12"})
    assert machine.of("AMD") == Machine("AMD", known=2)  # a container without them
    put(root, dev__kfd="", dev__dri__renderD128="", dev__dri__renderD129="", sys__module__amdgpu__version="6.12.12\n")
    put(root, sys__class__drm__renderD128__device__vendor="0x1002\n")
    put(root, sys__class__drm__renderD129__device__vendor="0x8086\n")
    assert machine.of("AMD") == Machine("AMD", ("/dev/dri/renderD128",), known=2, driver="6.12.12")
    assert machine.of("Intel") == Machine("Intel", ("/dev/dri/renderD129",))


def test_nvidias_library_is_asked_or_its_absence_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert machine.nvml() == Managed(trouble="libnvidia-ml.so.1, the driver's own library, cannot be loaded")


class Library:
    """NVIDIA's library as ctypes hands it over."""

    def __init__(self, failing: int = 0) -> None:
        self.failing = failing

        def words(code: int) -> bytes:
            return b"error %d" % code

        self.nvmlErrorString = words

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the library has these names
        return self.failing

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:  # noqa: N802 - the library has these names
        assert size >= 80
        text.value = b"580.95.05"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802 - the library has these names
        count._obj.value = 3
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:  # noqa: N802 - the library has these names
        device._obj.value = index + 1
        return 1 if index == 1 else 0  # one that this process may not see

    def nvmlDeviceGetUUID(self, device: Any, text: Any, size: int) -> int:  # noqa: N802 - the library has these names
        assert size >= 80
        text.value = f"GPU-{device.value}".encode()
        return 0


def test_nvidias_library_says_version_and_uuids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", always(Library()))
    assert machine.nvml() == Managed("580.95.05", ("GPU-1", "GPU-3"))
    monkeypatch.setattr(ctypes, "CDLL", always(Library(18)))
    assert machine.nvml() == Managed(trouble="error 18")
