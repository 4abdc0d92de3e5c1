"""Why no accelerator can be used: the entry of a variable, or what the machine's files say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env._hidden import is_choice, why_none, wrong_entry
from colossalai_env._machine import Machine
from colossalai_env.resolver import Environ

UUID, OTHER = "GPU-5ea2c0d1-7d2c-4c1f-8a4b-0123456789ab", "GPU-11111111-2222-3333-4444-555555555555"
ONE = Machine("NVIDIA", files=("/dev/nvidia0",), known=1, ids=(UUID,), driver="580.95.05")
TWO = ONE._replace(files=("/dev/nvidia0", "/dev/nvidia1"), ids=(UUID, OTHER))


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        ("0,0", "it names '0' twice"),
        ("1,0", "'1' is none of its devices, 0"),
        ("1", "'1' is none of its devices, 0"),
        ("foo", "'foo' is neither a number nor a UUID, which begins with GPU- or MIG-"),
        ("all", "'all' is neither a number nor a UUID"),
        ("none", "'none' is neither a number nor a UUID"),
        (UUID.lower(), f"'{UUID.lower()}' is neither a number nor a UUID, which begins with GPU-"),
        (OTHER, f"no device here is '{OTHER}', but {UUID}"),
        (f"{UUID},{UUID}", f"it names '{UUID}' twice"),
        ("MIG-abc", "no MIG device here is 'MIG-abc'"),
        ("-2", "'-2' is none of its devices, 0"),
        ("0 1", None),
        (",0", "'' is neither a number nor a UUID"),
    ],
)
def test_the_entry_that_leaves_no_device_is_named(value: str, entry: str | None) -> None:
    found = wrong_entry(value, ONE)
    assert found is None if entry is None else str(found).startswith(entry)


@pytest.mark.parametrize("value", ["0", "0,1", "0,foo", "0,-1,0", " 0", UUID, UUID[:12], f"{UUID[:12]},1"])
def test_a_list_that_leaves_a_device_is_not_the_cause(value: str) -> None:
    assert wrong_entry(value, ONE) is None


def test_with_several_devices_their_numbers_are_said() -> None:
    assert wrong_entry("2", TWO) == "'2' is none of its devices, 0 to 1"
    assert wrong_entry("GPU-99", TWO) == f"no device here is 'GPU-99', but {UUID}, {OTHER}"


@given(st.lists(st.sampled_from(["0", "1", "2", "x", "", UUID, OTHER, "-1"]), min_size=1, max_size=4))
def test_it_is_read_as_torch_reads_it(entries: list[str]) -> None:
    """A list leaves no device where its first entry is none, or where one is named twice before that."""
    import torch

    cuda: Any = torch.cuda
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "_raw_device_uuid_nvml", lambda: list(TWO.ids), raising=True)
        patch.setattr(cuda, "_raw_device_count_nvml", lambda: 2, raising=True)
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(entries))
        counted = cuda._device_count_nvml()
    mixed = len({entry.startswith("GPU-") for entry in entries}) > 1  # CUDA takes these, torch's count stops at them
    if not mixed and entries not in (["-1"], [""]):
        assert (wrong_entry(",".join(entries), TWO) is None) == (counted > 0)


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "10000"])
def test_what_says_that_no_device_is_meant_is_a_choice(value: str) -> None:
    assert is_choice("NVIDIA", Environ({"CUDA_VISIBLE_DEVICES": value}))
    assert why_none(ONE, Environ({"CUDA_VISIBLE_DEVICES": value})) is None
    assert is_choice("AMD", Environ({"HIP_VISIBLE_DEVICES": value}))


def test_what_says_less_is_none() -> None:
    for variables in ({}, {"CUDA_VISIBLE_DEVICES": "none"}, {"ZE_AFFINITY_MASK": ""}):
        assert not is_choice("NVIDIA", Environ(variables))


CLOSED = ONE._replace(closed=("/dev/nvidia0", "/dev/nvidiactl"))
OUTSIDE = Machine("NVIDIA", known=8, driver="580.95.05")


@pytest.mark.parametrize(
    ("machine", "variables", "reason", "advice"),
    [
        (ONE, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES is '7', and '7' is none of", "correct or unset it"),
        (CLOSED, {}, "this process may not open /dev/nvidia0 and /dev/nvidiactl", "--gpus-per-task=1"),
        (CLOSED, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES is '7'", "correct"),
        (OUTSIDE, {}, "none of them was passed into this container", "docker run --gpus all"),
        (OUTSIDE, {"NVIDIA_VISIBLE_DEVICES": "all"}, "none of them was passed", "--gpus all"),
        (ONE._replace(absent=("/dev/nvidia-uvm",)), {}, "/dev/nvidia-uvm is not here", "load the driver's modules"),
        (ONE, {"CUDA_VISIBLE_DEVICES": "0"}, "", "mend the driver"),
        (Machine("AMD", known=4), {}, "none of them was passed into this container", "--device /dev/kfd"),
        (
            Machine("AMD", ("/dev/dri/renderD128",)),
            {"ROCR_VISIBLE_DEVICES": "3"},
            "ROCR_VISIBLE_DEVICES is '3'",
            "corr",
        ),
        (Machine("Intel", ("/dev/dri/renderD128",)), {"ZE_AFFINITY_MASK": "1"}, "ZE_AFFINITY_MASK is '1'", "correct"),
        (
            Machine("Intel", ("/dev/dri/renderD128",)),
            {"ONEAPI_DEVICE_SELECTOR": "opencl:cpu"},
            "ONEAPI_DEVICE_SELECTOR is 'opencl:cpu', and it selects none",
            "correct",
        ),
    ],
)
def test_the_cause_is_named_with_what_to_do(
    machine: Machine, variables: dict[str, str], reason: str, advice: str
) -> None:
    why = why_none(machine, Environ(variables))
    assert why is not None
    assert why[0].startswith(reason)
    assert bool(why[0]) == bool(reason)
    assert advice in why[1]


@pytest.mark.parametrize("value", ["none", "void"])
def test_a_container_that_is_meant_to_have_no_gpu_has_none(value: str) -> None:
    assert why_none(OUTSIDE, Environ({"NVIDIA_VISIBLE_DEVICES": value})) is None
    assert why_none(ONE, Environ({"NVIDIA_VISIBLE_DEVICES": value})) is not None  # devices are here: it says nothing
