"""NCCL's failures: the texts that NCCL and torch print, and what each is taken to mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env._nccl import MEANINGS, OTHER, Words
from colossalai_env.resolver import Environ

DETAIL = {
    "ncclSystemError": (
        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error. ",
    ),
    "ncclInvalidUsage": (
        "invalid usage (run with NCCL_DEBUG=WARN for details)",
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.",
    ),
    "ncclUnhandledCudaError": (
        "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "ncclUnhandledCudaError: Call to CUDA function failed.",
    ),
    "ncclInternalError": (
        "internal error - please report this issue to the NCCL developers",
        "ncclInternalError: Internal check failed.",
    ),
    "ncclRemoteError": (
        "remote process exited or there was a network error",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    ),
}
"""How torch 2.11 writes each of NCCL's codes, with NCCL 2.28.9."""


def text(code: str, last: str) -> str:
    """Return what torch raises."""
    first, detail = DETAIL[code]
    return (
        f"NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, {first}, NCCL version 2.28.9\n"
        f"{detail}\nLast error:\n{last}"
    )


PRINTED = [
    ("ncclInvalidUsage", "Bootstrap : no socket interface found", "unset NCCL_SOCKET_IFNAME"),
    ("ncclSystemError", "NET/Socket : No usable listening interface found", "unset NCCL_SOCKET_IFNAME"),
    ("ncclInvalidUsage", "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000", "--gpus-per-task=1"),
    (
        "ncclInvalidUsage",
        "Multiple Ranks are using the same GPU/Partition. Set NCCL_MULTI_RANK_GPU_ENABLE=1 to use it.",
        "--gpus-per-task=1",
    ),
    ("ncclInvalidUsage", "Mismatched NCCL version detected : rank 0 version 22809 rank 1 version 22703", "same torch"),
    (
        "ncclUnhandledCudaError",
        "Cuda failure 'CUDA driver version is insufficient for CUDA runtime version'",
        "The driver is older",
    ),
    ("ncclUnhandledCudaError", "Cuda failure 802 'system not yet initialized'", "nvidia-fabricmanager"),
    ("ncclSystemError", "nvmlInit_v2() failed: Driver/library version mismatch", "restart the host"),
    (
        "ncclSystemError",
        (
            "Error while creating shared memory segment /dev/shm/nccl-8wQx2e (size 33030528), "
            "error: No space left on device "
            "(28)"
        ),
        "--shm-size=8g",
    ),
    ("ncclSystemError", "Error: failed to extend /dev/shm/nccl-03v824 to 4194660 bytes", "--shm-size=8g"),
    ("ncclSystemError", "Call to posix_fallocate failed : No space left on device", "--shm-size=8g"),
    ("ncclUnhandledCudaError", "Cuda failure 'peer access is not supported between these two devices'", "NCCL_P2P_DIS"),
    (
        "ncclSystemError",
        (
            "P2P is disabled between NVLINK connected GPUs 1 and 0. This should not be the case "
            "given their connectivity, and "
            "is probably due to a hardware issue. If you still want to proceed, you can set NCCL_IGNORE_DISABLED_P2P=1."
        ),
        "NCCL_P2P_DISABLE=1",
    ),
    ("ncclUnhandledCudaError", "Cuda failure 801 'operation not supported'", "NCCL_CUMEM_HOST_ENABLE=0"),
    ("ncclUnhandledCudaError", "Cuda failure 2 'out of memory'", "nvidia-smi shows who"),
    (
        "ncclUnhandledCudaError",
        "Cuda failure 'all CUDA-capable devices are busy or unavailable'",
        "Another process hold",
    ),
    ("ncclSystemError", "Call to ibv_reg_mr failed with error Cannot allocate memory", "ulimit -l unlimited"),
    (
        "ncclSystemError",
        "Call to ibv_modify_qp failed with 110 Connection timed out, on dev mlx5_0:1",
        "NCCL_IB_GID_IN",
    ),
    (
        "ncclRemoteError",
        (
            "NET/IB: Got completion from peer 10.0.0.2<41234> with status=IBV_WC_RETRY_EXC_ERR(12) "
            "opcode=IBV_WC_SEND(0) "
            "vendor_err=129 hca mlx5_0"
        ),
        "NCCL_IB_HCA",
    ),
    ("ncclRemoteError", "socketProgress: Connection closed by remote peer gpu-a02<52341>", "Another rank ended"),
    ("ncclSystemError", "socketPollConnect: connect to 10.0.0.2<51234> failed : No route to host", "firewalls"),
    (
        "ncclSystemError",
        (
            "socketPollConnect: connect to 10.0.0.2<51234> returned Connection refused, exceeded "
            "error retry count after 35 "
            "attempts"
        ),
        "firewalls",
    ),
    ("ncclSystemError", "Call to socket failed: Too many open files", "ulimit -n 65536"),
    ("ncclSystemError", "Thread creation failed: Resource temporarily unavailable", "ulimit -u"),
]


@pytest.mark.parametrize(("code", "last", "advice"), PRINTED)
def test_nccls_last_line_is_the_problem_and_says_what_to_do(code: str, last: str, advice: str) -> None:
    words = Words.of(text(code, last), Environ())
    assert words is not None
    assert words.problem == f"{last.rstrip('.')} ({code}, NCCL 2.28.9)"
    assert advice in words.advice


def test_each_meaning_has_its_text() -> None:
    """A meaning that no text above or below leads to is none."""
    texts = [text(code, last) for code, last, _ in PRINTED] + [whole for whole, _, _ in OTHERWISE]
    found = {words.advice for whole in texts if (words := Words.of(whole, Environ()))}
    assert {meaning.advice for meaning in MEANINGS} - found == set()


OTHERWISE = [
    (
        (
            "[1] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d "
            "key-value store by key '0', but "
            "store->get('0') got error: wait timeout after 600000ms, keys: /default_pg/0//cuda//0"
        ),
        "wait timeout after 600000ms",
        "A rank did not come",
    ),
    (
        (
            "[0] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d "
            "key-value store by key '0', but "
            "store->get('0') got error: Connection reset by peer"
        ),
        "Connection reset by peer",
        "Another rank ended",
    ),
    (
        "NCCL timeout in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:120",
        "NCCL timeout in",
        "A rank did not come",
    ),
    ("ProcessGroupNCCL is only supported with GPUs, no GPUs found!", "no GPUs found", "colossalai-env doctor says why"),
    ("Distributed package doesn't have NCCL built in", "doesn't have NCCL", "backend='gloo'"),
    (
        "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:328, remote process exited or there was a network "
        "error, NCCL version 2.21.5\n" + DETAIL["ncclRemoteError"][1] + "\nLast error:\n",
        "ncclRemoteError: A call failed",
        "Another rank ended",
    ),
    (
        (
            "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, internal error - "
            "please report this issue "
            "to the NCCL developers, NCCL version 2.28.9\nncclInternalError: Internal check "
            "failed.\nLast error:\nError : ring "
            "0 does not contain rank 1"
        ),
        "ring 0 does not contain rank 1 (ncclInternalError, NCCL 2.28.9)",
        OTHER,
    ),
]


@pytest.mark.parametrize(("whole", "problem", "advice"), OTHERWISE)
def test_what_torch_says_of_nccl_itself_is_read_too(whole: str, problem: str, advice: str) -> None:
    words = Words.of(whole, Environ())
    assert words is not None
    assert problem in words.problem
    assert "NCCL error in:" not in words.problem
    assert advice in words.advice


def test_the_setting_that_is_to_blame_is_quoted() -> None:
    words = Words.of(
        text("ncclInvalidUsage", "Bootstrap : no socket interface found"),
        Environ({"NCCL_SOCKET_IFNAME": "absent0", "NCCL_IB_HCA": "mlx5"}),
    )
    assert words is not None
    assert words.advice.endswith("(NCCL_SOCKET_IFNAME is 'absent0')")


@pytest.mark.parametrize("other", ["Connect timeout [10.0.0.1]:38411", "", "Gloo connectFullMesh failed with [...]"])
def test_the_words_of_other_backends_are_left_to_them(other: str) -> None:
    assert Words.of(other, Environ()) is None


@given(st.text(max_size=200))
def test_any_text_is_read_to_its_end(tail: str) -> None:
    words = Words.of(f"NCCL error in: x.cpp:1, y, NCCL version 2.2\nz\nLast error:\n{tail}", Environ())
    assert words is not None
    assert "\n" not in words.problem
    assert words.problem
