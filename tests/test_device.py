"""Which device and which backend; the devices are faked where torch, drivers and files are asked."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from colossalai_env import _hardware as hardware
from colossalai_env import _machine as machine
from colossalai_env import errors
from colossalai_env._devices import Accelerators, backend_for, binds_at_once, choose, index_of, named, unusable
from colossalai_env._rendezvous.protocol.placement import index_among
from colossalai_env.errors import NoSuchDevice, UnknownBackend, UnusableDevices
from colossalai_env.resolver import Environ
from tests.devices import Fake, always

CPU = Accelerators("cpu", 0)
GPUS = Fake(ids=("GPU-aaaaaaaa-0000", "GPU-bbbbbbbb-0000"))
HERE = {"files": ["/dev/nvidia0"], "ids": ["GPU-aaaaaaaa-0000"], "known": 1, "driver": "580.95.05"}
NONE_VISIBLE = Fake(machine=HERE)
NO_GPU, FOR_CPU = Fake(), Fake(kind="cpu", maker="")
FOR_CPU_BESIDE_GPU = Fake(kind="cpu", maker="", machine=HERE)


def available(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have torch bring these backends and no others."""

    def among(name: str) -> bool:
        return name in names

    monkeypatch.setattr(distributed, "is_backend_available", among)


@pytest.fixture(autouse=True)
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torch's backends as a build for CUDA has them."""
    available(monkeypatch, "gloo", "nccl")


def chosen(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, device: Any = None, backend: str | None = None, **variables: str
) -> tuple[str, str]:
    """Return the kind of device and the backend that a process takes."""
    fake.put(monkeypatch.setattr)
    accelerators, taken = choose(device, backend, Environ(variables), 0)
    return accelerators.kind, taken


BOTH = "cpu:gloo,cuda:nccl"

TABLE: list[tuple[Any, str | None, tuple[str, str] | type[Exception], tuple[str, str] | type[Exception]]] = [
    # device, backend, with GPUs, without any
    (None, None, ("cuda", BOTH), ("cpu", "gloo")),
    (None, "nccl", ("cuda", "nccl"), UnknownBackend),
    (None, "NCCL", ("cuda", "nccl"), UnknownBackend),
    (None, "gloo", ("cuda", "gloo"), ("cpu", "gloo")),
    (None, "cpu:gloo", ("cpu", "cpu:gloo"), ("cpu", "cpu:gloo")),
    (None, "cuda:nccl", ("cuda", "cuda:nccl"), UnknownBackend),
    (None, BOTH, ("cuda", BOTH), UnknownBackend),
    ("cpu", None, ("cpu", "gloo"), ("cpu", "gloo")),
    ("cpu", "gloo", ("cpu", "gloo"), ("cpu", "gloo")),
    ("cpu", "nccl", UnknownBackend, UnknownBackend),
    ("cuda", None, ("cuda", BOTH), NoSuchDevice),
    ("cuda:1", None, ("cuda", BOTH), NoSuchDevice),
    (1, None, ("cuda", BOTH), NoSuchDevice),
    (torch.device("cuda", 1), "nccl", ("cuda", "nccl"), UnknownBackend),
    ("cuda:1", "nccl", ("cuda", "nccl"), UnknownBackend),
    ("cuda:1", "gloo", ("cuda", "gloo"), NoSuchDevice),
    ("cuda:1", "cpu:gloo", UnknownBackend, NoSuchDevice),
    ("xpu:0", None, NoSuchDevice, NoSuchDevice),
    ("gpu", None, NoSuchDevice, NoSuchDevice),
]


@pytest.mark.parametrize(("device", "backend", "with_gpus", "without"), TABLE)
def test_the_device_comes_first_and_the_backend_fits_it(
    device: Any, backend: str | None, with_gpus: Any, without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fake, expected in ((GPUS, with_gpus), (NO_GPU, without), (FOR_CPU, without)):
        fake.put(monkeypatch.setattr)

        def taken() -> tuple[str, str]:
            accelerators, found = choose(device, backend, Environ(), 0)
            index_of(device, 0, accelerators, 0)
            return accelerators.kind, found

        if isinstance(expected, tuple):
            assert taken() == expected
        else:
            with pytest.raises(expected):
                taken()


def documented() -> list[tuple[Any, str | None, Any, Any]]:
    """Return the rows of the page's table of devices and backends."""
    page = (Path(__file__).parents[1] / "docs/how-to/use-gpus.md").read_text()
    rows = page.partition("<!-- device and backend -->")[2].partition("\n\nWhere")[0].strip().splitlines()[2:]
    found: list[tuple[Any, str | None, Any, Any]] = []
    for row in rows:
        device, backend, *outcomes = [cell.strip().replace("`", "") for cell in row.strip("|").split("|")]
        kinds = {"a GPU": "cuda", "the CPU": "cpu"}
        met: list[Any] = [
            (kinds[outcome.partition(", ")[0]], outcome.partition(", ")[2])
            if ", " in outcome
            else getattr(errors, outcome)
            for outcome in outcomes
        ]
        found.append((device or None, backend or None, met[0], met[1]))
    return found


def test_the_pages_table_is_the_one_that_is_tested() -> None:
    rows = documented()
    assert len(rows) > 10
    for row in rows:
        assert row in TABLE


@pytest.mark.parametrize(
    ("device", "backend", "fake", "said"),
    [
        ("cpu", "nccl", GPUS, "backend 'nccl': nccl serves cuda alone, and device='cpu' was asked for: use backend='g"),
        (
            "cuda:0",
            "cpu:gloo",
            GPUS,
            "cpu:gloo serves cpu alone, and device='cuda:0' was asked for: use backend='cpu:g",
        ),
        (
            None,
            "xccl",
            GPUS,
            "backend 'xccl': xccl serves xpu alone, and this process has cuda: name the one that fits",
        ),
        (None, "nccl", NO_GPU, "backend 'nccl': NCCL needs a GPU and none is visible: use --backend gloo (backend='gl"),
        ("cuda:1", "nccl", NO_GPU, "backend 'nccl': NCCL needs a GPU and none is visible: use --backend gloo"),
        (None, BOTH, NO_GPU, "NCCL needs a GPU and none is visible: use --backend gloo"),
        (None, "ucc", GPUS, "this torch was built without ucc"),
        ("gpu", None, GPUS, "device 'gpu' was asked for, but 2 cuda device(s) are visible (rank 0): write cpu, or "),
    ],
)
def test_a_device_and_a_backend_that_do_not_fit_are_both_named(
    device: Any, backend: str, fake: Fake, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((UnknownBackend, NoSuchDevice), match=re.escape(said)):
        chosen(fake, monkeypatch, device, backend)


def test_for_a_job_on_the_cpu_nobody_asks_for_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has asked CUDA's driver can fork no child that uses a GPU."""

    def asked(*_: object) -> None:
        raise AssertionError("asked")

    for name in ("built_for", "count", "initialise", "left_idle"):
        monkeypatch.setattr(hardware, name, asked)
    monkeypatch.setattr(machine, "of", asked)
    assert choose("cpu", None, Environ(), 0) == (CPU, "gloo")
    assert choose(None, "cpu:gloo", Environ(), 0) == (CPU, "cpu:gloo")


def test_devices_are_counted_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    GPUS.put(monkeypatch.setattr)
    monkeypatch.setattr(hardware, "initialise", None)
    assert Accelerators.here() == Accelerators("cuda", 2)


def test_the_drivers_own_count_and_uuids_are_those_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    GPUS.put(monkeypatch.setattr)
    monkeypatch.setattr(hardware, "count", always(7))  # of which MIG leaves two, say
    found, _ = choose(None, None, Environ({"CUDA_VISIBLE_DEVICES": "0,1"}), 0)
    assert (found.visible, found.ids, found.choice) == (2, tuple(GPUS.ids), "CUDA_VISIBLE_DEVICES is '0,1'")
    Fake(ids=("", "")).put(monkeypatch.setattr)
    assert choose(None, None, Environ(), 0)[0].ids == ()


@pytest.mark.parametrize("value", ["", "-1", " -1 ", "NoDevFiles", "10000"])
@pytest.mark.parametrize("fake", [NONE_VISIBLE, FOR_CPU_BESIDE_GPU])
def test_where_no_device_is_meant_the_cpu_is_taken_in_silence(
    value: str, fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert chosen(fake, monkeypatch, CUDA_VISIBLE_DEVICES=value) == ("cpu", "gloo")
    assert not caplog.records


@pytest.mark.parametrize("backend", [None, "nccl"])
def test_devices_that_are_hidden_by_mistake_are_an_error(backend: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableDevices) as told:
        chosen(NONE_VISIBLE, monkeypatch, None, backend, CUDA_VISIBLE_DEVICES="foo")
    assert str(told.value) == (
        "torch 2.11.0 sees no accelerator (rank 0), though this machine has 1 NVIDIA GPU(s) (/dev/nvidia0, driver "
        "580.95.05): CUDA_VISIBLE_DEVICES is 'foo', and 'foo' is neither a number nor a UUID, which begins with GPU- "
        "or MIG-: correct or unset it; for a job on CPUs say device='cpu' or export CUDA_VISIBLE_DEVICES= (empty)."
    )


def test_with_a_backend_that_serves_the_cpu_they_are_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert chosen(NONE_VISIBLE, monkeypatch, None, "gloo", CUDA_VISIBLE_DEVICES="foo") == ("cpu", "gloo")
    (record,) = caplog.records
    assert "CUDA_VISIBLE_DEVICES is 'foo'" in record.getMessage()
    assert record.getMessage().endswith("(empty). This job runs on the CPU.")
    refuses = Fake(ids=("GPU-aa",), refuses="too old", machine=HERE)
    assert chosen(refuses, monkeypatch, None, "gloo") == ("cpu", "gloo")
    assert "its driver says: too old" in caplog.records[1].getMessage()


def test_a_device_that_is_asked_for_and_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableDevices, match="CUDA_VISIBLE_DEVICES is '1'"):
        chosen(NONE_VISIBLE, monkeypatch, "cuda:0", CUDA_VISIBLE_DEVICES="1")


def test_a_driver_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "The NVIDIA driver on your system is too old (found version 11040)."
    for fake in (Fake(refuses=words, machine=HERE), Fake(ids=("GPU-aa",), refuses=words, machine=HERE)):
        with pytest.raises(UnusableDevices, match=re.escape(f"its driver says: {words}: mend the driver")):
            chosen(fake, monkeypatch)
    assert chosen(Fake(refuses=words, machine=HERE), monkeypatch, "cpu") == ("cpu", "gloo")
    forked = Fake(ids=("GPU-aa",), refuses="Cannot re-initialize CUDA in forked subprocess. To use", machine=HERE)
    with pytest.raises(UnusableDevices, match="To use: start this process by spawn, since its parent has used a GPU"):
        chosen(forked, monkeypatch)


def test_a_torch_for_cpus_beside_a_gpu_is_one_warning_on_rank_0(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FOR_CPU_BESIDE_GPU.put(monkeypatch.setattr)
    for rank in (0, 1):
        assert choose(None, None, Environ(), rank) == (CPU, "gloo")
    (record,) = caplog.records
    assert "1 NVIDIA GPU(s) (/dev/nvidia0, driver 580.95.05): this torch is built for CPUs" in record.getMessage()
    with pytest.raises(UnusableDevices, match="built for CPUs: install a torch that is built for NVIDIA's GPUs"):
        choose(None, "nccl", Environ(), 0)


def test_a_machine_without_accelerators_leaves_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for fake in (NO_GPU, FOR_CPU):
        assert chosen(fake, monkeypatch, CUDA_VISIBLE_DEVICES="foo") == ("cpu", "gloo")
        assert unusable(hardware.built_for(), Environ({"CUDA_VISIBLE_DEVICES": "foo"})) is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("visible", "local_rank", "shared", "index"),
    [
        (1, 0, True, 0), (1, 3, True, 0), (1, None, True, 0), (2, 0, True, 0), (2, 1, True, 1), (2, None, True, None),
        (0, 1, True, None), (0, 1, False, None), (2, 3, False, 0), (2, None, False, 0), (1, 3, False, 0),
    ],
)  # fmt: skip
def test_the_only_device_or_the_first_of_ones_own_or_the_local_ranks(
    visible: int, local_rank: int | None, shared: bool, index: int | None
) -> None:
    assert index_among(visible, local_rank, shared=shared) == index
    assert index_of(None, local_rank, Accelerators("cuda", visible, shared=shared), rank=1) == index


def test_too_few_devices_are_an_error_with_all_the_numbers_and_no_modulo() -> None:
    with pytest.raises(
        NoSuchDevice, match=r"local rank 2 needs device 2, but 2 cuda device\(s\) are visible \(rank 5\)"
    ):
        index_of(None, 2, Accelerators("cuda", 2, shared=True), rank=5)


def test_a_device_that_is_asked_for_must_be_there() -> None:
    two = Accelerators("cuda", 2, shared=True)
    asked: Any
    assert index_of("cuda:1", 0, two, rank=0) == 1
    assert index_of(1, 0, two, rank=0) == 1
    assert index_of("cpu", 0, two, rank=0) is None
    assert index_of("cuda", 1, two, rank=0) == 1  # a kind, and no number
    for asked, accelerators in itertools.product(("cuda:1", 1), (CPU, Accelerators("cuda", 1))):
        with pytest.raises(NoSuchDevice, match=r"device (cuda:)?1 was asked for, but \d"):
            index_of(asked, 0, accelerators, rank=0)


def test_a_device_gets_torchs_name() -> None:
    assert named(CPU, None) == torch.device("cpu")
    assert named(Accelerators("cuda", 2), 1) == torch.device("cuda", 1)


def test_a_backend_is_honoured_when_asked_for_and_cpu_tensors_have_one_besides_a_gpus() -> None:
    assert backend_for(None, CPU) == "gloo"
    assert backend_for(None, Accelerators("cuda", 1)) == BOTH
    assert backend_for(None, Accelerators("xpu", 1)) == "cpu:gloo,xpu:xccl"
    assert backend_for("gloo", Accelerators("cuda", 1)) == "gloo"
    assert backend_for("cpu:gloo", CPU) == "cpu:gloo"


def test_an_unknown_backend_lists_the_known_ones_and_never_the_fake_one(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, "gloo", "fake")
    with pytest.raises(UnknownBackend) as told:
        backend_for("glue", CPU)
    assert str(told.value) == "backend 'glue': torch knows no backend 'glue': use one of gloo."


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("hccl", "torch_npu (Ascend) or habana_frameworks.torch.distributed.hccl (Gaudi)"),
        ("ccl", "oneccl_bindings_for_pytorch"),
        ("cpu:gloo,xpu:ccl", "oneccl_bindings_for_pytorch"),
        ("cncl", "torch_mlu"),
    ],
)
def test_a_backend_whose_package_is_not_imported_names_the_package(name: str, module: str) -> None:
    with pytest.raises(UnknownBackend, match=re.escape(f" yet: import {module} before this call, which brings it")):
        backend_for(name, CPU)


def test_a_backend_that_a_package_has_brought_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.Backend, "backend_list", [*distributed.Backend.backend_list, "hccl"])
    available(monkeypatch, "hccl", "gloo")
    capability = {**distributed.Backend.backend_capability, "hccl": ["hpu"]}
    monkeypatch.setattr(distributed.Backend, "backend_capability", capability)
    default = {**distributed.Backend.default_device_backend_map, "hpu": "hccl"}
    assert backend_for("hccl", Accelerators("hpu", 8)) == "hccl"
    monkeypatch.setattr(distributed.Backend, "default_device_backend_map", default)
    assert backend_for(None, Accelerators("hpu", 8)) == "cpu:gloo,hpu:hccl"


@pytest.mark.parametrize("stand_in", [{}, {"hpu": "fake"}])
def test_a_device_whose_backend_nobody_has_brought_is_no_raw_exception(
    stand_in: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = distributed.Backend.default_device_backend_map
    monkeypatch.setattr(distributed.Backend, "default_device_backend_map", {**known, **stand_in})
    with pytest.raises(UnknownBackend, match="no backend was named: torch knows none for hpu devices: import habana_"):
        backend_for(None, Accelerators("hpu", 8))
    with pytest.raises(
        UnknownBackend, match="for odd devices: import the package that brings it before this call, or n"
    ):
        backend_for(None, Accelerators("odd", 1))


@pytest.mark.parametrize(
    ("backend", "variables", "shareable"),
    [
        ("gloo", {}, True),
        ("cpu:gloo,cuda:gloo", {}, True),
        (None, {}, False),
        ("nccl", {}, False),
        ("nccl", {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}, True),
        ("cuda:nccl", {}, False),
        ("cuda:gloo,cpu:gloo", {}, True),
        (BOTH, {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}, True),
        (BOTH, {"NCCL_MULTI_RANK_GPU_ENABLE": "0"}, False),
    ],
)
def test_gloo_can_share_a_device_and_nccl_can_not(
    backend: str | None, variables: dict[str, str], shareable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    GPUS.put(monkeypatch.setattr)
    assert choose(None, backend, Environ(variables), 0)[0].shareable is shareable


def test_the_group_gets_its_gpu_but_where_torch_breaks_with_it() -> None:
    assert binds_at_once("nccl", (2, 13, 0), detail=False)
    assert binds_at_once(BOTH, (2, 7, 1), detail=False)
    assert not binds_at_once("nccl", (2, 6, 0), detail=False)
    assert not binds_at_once("nccl", (2, 7, 0), detail=False)
    assert not binds_at_once("nccl", (2, 13, 0), detail=True)
    assert not binds_at_once("gloo", (2, 13, 0), detail=False)
