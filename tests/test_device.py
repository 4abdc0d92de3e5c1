"""Which device and which backend; the count of devices is faked where this machine has none."""

import pytest
import torch

from colossalai_env import NoSuchDevice, UnknownBackend
from colossalai_env.device import Accelerators, backend_for, binds_at_once, identity, index_of, select

CPU = Accelerators("cpu", 0)


@pytest.mark.parametrize(
    ("visible", "local_rank", "index"),
    [(1, 0, 0), (1, 3, 0), (1, None, 0), (2, 0, 0), (2, 1, 1), (2, None, None), (0, 1, None)],
)
def test_one_visible_device_is_device_zero_and_else_the_local_rank_counts(
    visible: int, local_rank: int | None, index: int | None
) -> None:
    assert index_of(None, local_rank, Accelerators("cuda", visible), rank=1) == index


def test_too_few_devices_are_an_error_with_all_the_numbers_and_no_modulo() -> None:
    with pytest.raises(
        NoSuchDevice, match=r"local rank 2 needs device 2, but 2 cuda device\(s\) are visible \(rank 5\)"
    ):
        index_of(None, 2, Accelerators("cuda", 2), rank=5)


def test_a_device_that_is_asked_for_must_be_there() -> None:
    assert index_of("cuda:1", 0, Accelerators("cuda", 2), rank=0) == 1
    assert index_of(1, 0, Accelerators("cuda", 2), rank=0) == 1
    assert index_of("cpu", 0, Accelerators("cuda", 2), rank=0) is None
    for accelerators in (CPU, Accelerators("cuda", 1)):
        with pytest.raises(NoSuchDevice, match=r"device cuda:1 was asked for, but \d"):
            index_of("cuda:1", 0, accelerators, rank=0)


def test_what_torch_sees_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Accelerators.here() == CPU or torch.accelerator.is_available()
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert Accelerators.here() == Accelerators("cuda", 2)


def test_the_backend_fits_the_device_and_is_honoured_when_asked_for() -> None:
    assert backend_for(None, CPU) == "gloo"
    assert backend_for(None, Accelerators("cuda", 1)) == "nccl"
    assert backend_for("gloo", Accelerators("cuda", 1)) == "gloo"
    assert backend_for("cpu:gloo", CPU) == "cpu:gloo"


def test_nccl_without_a_gpu_says_backend_gloo() -> None:
    with pytest.raises(UnknownBackend, match="NCCL needs a GPU and none is visible: use --backend gloo"):
        backend_for("nccl", CPU)
    with pytest.raises(UnknownBackend, match="--backend gloo"):
        backend_for("cpu:gloo,cuda:nccl", CPU)


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(UnknownBackend, match="torch knows no backend 'glue': use one of gloo"):
        backend_for("glue", CPU)


def test_the_group_gets_its_gpu_but_where_torch_breaks_with_it() -> None:
    assert binds_at_once("nccl", (2, 13, 0), detail=False)
    assert binds_at_once("cpu:gloo,cuda:nccl", (2, 7, 1), detail=False)
    assert not binds_at_once("nccl", (2, 6, 0), detail=False)
    assert not binds_at_once("nccl", (2, 7, 0), detail=False)
    assert not binds_at_once("nccl", (2, 13, 0), detail=True)
    assert not binds_at_once("gloo", (2, 13, 0), detail=False)


def test_a_cpu_needs_no_choice() -> None:
    assert select("cpu", None) == torch.device("cpu")
    assert identity("cpu", 0) is None
