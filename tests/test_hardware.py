"""What torch says of its accelerators, without asking a driver for more than it must."""

import warnings
from pathlib import Path

import pytest
import torch

from colossalai_env import _hardware as hardware
from colossalai_env._hardware import Build, DriverFailed
from tests.devices import always


class Driver:
    """One of torch's modules for a kind of device."""

    def __init__(self, count: int, refuses: str = "") -> None:
        self.count, self.refuses, self.ready = count, refuses, False

    def device_count(self) -> int:
        warnings.warn("Can't initialize NVML", stacklevel=1)
        return self.count

    def init(self) -> None:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.ready = True

    def get_device_properties(self, index: int) -> object:
        assert self.ready
        name = "NVIDIA A100-SXM4-40GB MIG 1g.5gb" if index else "NVIDIA A100-SXM4-40GB"
        return type("Properties", (), {"uuid": f"5ea2-{index}", "name": name})()


def test_devices_are_counted_in_silence_and_told_by_their_uuids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", always(Driver(2)))
    assert hardware.count("cuda") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert hardware.initialise("cuda") == ("GPU-5ea2-0", "MIG-5ea2-1")
    assert hardware.count("cpu") == 0


def test_a_driver_that_refuses_is_quoted_by_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", always(Driver(1, "CUDA error: system not yet\nMore.")))
    with pytest.raises(DriverFailed, match=r"^CUDA error: system not yet$"):
        hardware.initialise("cuda")


def test_a_kind_of_device_without_properties_has_no_uuids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", always(type("Hpu", (), {"device_count": lambda: 3})))
    assert hardware.initialise("hpu") == ("", "", "")


def test_what_torch_was_built_for_is_asked_of_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> bool:
        raise AssertionError("the driver was asked")

    monkeypatch.setattr(torch.accelerator, "is_available", asked)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    for patch in (0, 1):
        monkeypatch.setattr(hardware, "torch_release", always((2, 7, patch)))
        assert hardware.built_for() == Build("cuda", "NVIDIA", str(torch.__version__))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", asked)
    monkeypatch.setattr(hardware, "torch_release", lambda: (2, 6, 0))
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    assert hardware.built_for().kind == "cuda"
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert hardware.built_for() == Build("cuda", "AMD", str(torch.__version__))


def test_this_torch_was_built_for_something() -> None:
    found = hardware.built_for()
    assert (found.kind == "cpu") == (torch.accelerator.current_accelerator() is None)
    assert str(found) == f"torch {torch.__version__}"


def test_devices_that_a_torch_for_cpus_leaves_idle_show_by_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Intel's are no sign: nearly every notebook has one."""
    monkeypatch.setattr(hardware, "SIGNS", {maker: f"{tmp_path}{sign}" for maker, sign in hardware.SIGNS.items()})
    assert set(hardware.SIGNS) == {"NVIDIA", "AMD"}
    assert hardware.left_idle() is None
    (tmp_path / "dev").mkdir()
    for name, maker in (("kfd", "AMD"), ("nvidiactl", "NVIDIA")):
        (tmp_path / "dev" / name).touch()
        assert hardware.left_idle() == maker
