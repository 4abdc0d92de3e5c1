"""What NCCL means by its errors, and what to do about each; pure.

The words are those of NCCL 2.18 to 2.30, whose last warning torch hands on, and of torch 2.6 to 2.13.
"""

import re
from typing import NamedTuple

from .environ import Environ


class Meaning(NamedTuple):
    """One way in which NCCL fails: how its words are known, what they mean, and the settings that bear on it."""

    words: str
    """A regular expression that is looked for in the last line, and then in the whole text."""
    advice: str
    settings: tuple[str, ...] = ()
    """Variables whose values belong to the story."""
    own: bool = True
    """Whether the cause is this rank's, so that no other has to be looked for."""


MEANINGS = (
    Meaning(
        r"doesn't have NCCL built in|Distributed package .* NCCL",
        "This torch was built without NCCL: install another build, or say backend='gloo'",
    ),
    Meaning(
        r"no socket interface found|No usable listening interface|No IP interface found"
        r"|no device found (matching|after)",
        "NCCL may use none of this host's network interfaces: unset NCCL_SOCKET_IFNAME, or name one that is up "
        "(colossalai-env doctor lists them)",
        ("NCCL_SOCKET_IFNAME", "NCCL_OOB_NET_IFNAME", "NCCL_SOCKET_FAMILY"),
    ),
    Meaning(
        r"Duplicate GPU|Multiple Ranks are using the same GPU",
        "Two ranks use one GPU: start one process per GPU, or give each task its own (srun --gpus-per-task=1); "
        "backend='gloo' can share one",
        ("CUDA_VISIBLE_DEVICES",),
    ),
    Meaning(
        r"Mismatched NCCL version",
        "The ranks have different NCCLs: install the same torch on all nodes, and look for another libnccl.so in "
        "LD_LIBRARY_PATH or LD_PRELOAD",
        ("LD_LIBRARY_PATH", "LD_PRELOAD"),
    ),
    Meaning(
        r"system not yet initialized|CUDA_ERROR_SYSTEM_NOT_READY",
        "The GPUs are joined by NVSwitch, which is not set up: start nvidia-fabricmanager, in the driver's version",
    ),
    Meaning(
        r"driver version is insufficient|driver.{0,9}too old|Driver/library version mismatch|unsupported display driver"
        r"|forward compatibility|not supported in the installed|provided PTX|no kernel image|SYSTEM_DRIVER_MISMATCH",
        "The driver is older than this torch needs, or was changed without a restart: update it, restart the host, or "
        "install a torch that is built for an older CUDA (nvidia-smi shows what the driver can do)",
    ),
    Meaning(
        r"/dev/shm|shared memory|posix_fallocate|No space left on device",  # noqa: S108 - a word of NCCL's
        "Shared memory is too small or missing: give the container more (docker run --shm-size=8g or --ipc=host, in "
        "Kubernetes an emptyDir of medium Memory at /dev/shm), and free what dead jobs left in /dev/shm",
        ("NCCL_SHM_DISABLE",),
    ),
    Meaning(
        r"memlock|ibv_reg_mr|Cannot allocate memory",
        "InfiniBand locks what it sends, and this process may lock too little: ulimit -l unlimited, in a container "
        "--ulimit memlock=-1",
    ),
    Meaning(
        r"NET/IB|ibv_|IBV_WC|mlx5|RoCE|vendor.err",
        "InfiniBand or RoCE failed: look at ibstat, choose the adapters with NCCL_IB_HCA, on RoCE the address with "
        "NCCL_IB_GID_INDEX; with NCCL_IB_DISABLE=1 it must work, slowly, if nothing else is wrong",
        ("NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NCCL_IB_DISABLE"),
    ),
    Meaning(
        r"peer access|peer mapping|P2P is disabled|cudaIpc|Ipc(Open|Get)Mem|failed to peer|nvmlDeviceGetP2PStatus",
        "The GPUs cannot copy to each other directly: with NCCL_P2P_DISABLE=1 it must work, slowly; look at nvidia-smi "
        "topo -p2p r, at the host's IOMMU and PCI ACS, and let the ranks of one host share its IPC (--ipc=host)",
        ("NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL"),
    ),
    Meaning(
        r"cuMem|NUMA|'operation not supported'",
        "The driver refuses memory that GPUs and processes share, as in some containers and virtual machines: "
        "export NCCL_CUMEM_HOST_ENABLE=0, and if that is not enough NCCL_CUMEM_ENABLE=0",
        ("NCCL_CUMEM_HOST_ENABLE", "NCCL_CUMEM_ENABLE"),
    ),
    Meaning(
        r"out of memory", "The GPU's memory is full: nvidia-smi shows who holds it; end what is left of other jobs"
    ),
    Meaning(
        r"busy or unavailable|exclusive",
        "Another process holds this GPU, and it admits one alone: end that process, or ask for nvidia-smi -c DEFAULT",
    ),
    Meaning(
        r"Too many open files",
        "NCCL needs many file descriptors: ulimit -n 65536 before the launch, or ask for a higher hard limit",
    ),
    Meaning(
        r"Thread creation failed|pthread_create",
        "NCCL may start no more threads: ulimit -u, or the container's limit of processes, is too low",
    ),
    Meaning(
        r"[Cc]onnection closed by remote peer|remote process exit|ncclRemoteError|Connection reset|Broken pipe"
        r"|Connection was likely closed",
        "Another rank ended, or its connection broke: look at what the other ranks said before, and at the kernel's "
        'log for "Out of memory" and Xid',
        own=False,
    ),
    Meaning(
        r"Connection refused|No route to host|[Nn]etwork is unreachable|Connection timed out"
        r"|connect to \S+ (failed|returned)",
        "NCCL does not reach another rank at the address that it chose: name the interface that joins the nodes "
        "(NCCL_SOCKET_IFNAME), and look at firewalls between them: NCCL takes any port",
        ("NCCL_SOCKET_IFNAME",),
        own=False,
    ),
    Meaning(
        r"[Tt]imed? ?out",
        "A rank did not come, or hangs: look at what each rank said, and whether all make the same calls",
        own=False,
    ),
    Meaning(
        r"no GPUs found|No CUDA GPUs",
        "NCCL needs a GPU, and this process sees none: colossalai-env doctor says why",
        ("CUDA_VISIBLE_DEVICES",),
    ),
)
"""In order of trust: the first that fits counts."""

OTHER = "NCCL_DEBUG=INFO makes NCCL say what it does; its page on troubleshooting lists more causes"
"""What to do about words that none of these fits."""


class Words(NamedTuple):
    """An error of NCCL in our words."""

    problem: str
    advice: str
    own: bool

    @classmethod
    def of(cls, text: str, environ: Environ) -> "Words | None":
        """Read an error's text; None where it is not NCCL's. The last line is the one that says what happened."""
        if "NCCL" not in text:
            return None
        told, _, last = text.partition("Last error:")
        line = _last(last) or _last(told)
        code = re.search(r"\bnccl[A-Z]\w*Error|\bncclInvalid\w+|\bncclTimeout", text)
        version = re.search(r"NCCL version ([\d.]+)", text)
        about = [code.group() if code else "", f"NCCL {version.group(1)}" if version else ""]
        known = ", ".join(item for item in about if item and item not in line)
        line = line.rstrip(". ")
        problem = f"{line} ({known})" if known else line
        meaning = next(
            (one for part in (line, text) for one in MEANINGS if re.search(one.words, part)),
            Meaning("", OTHER, own=False),
        )
        found = ", ".join(f"{name} is {value!r}" for name, value in environ.found(meaning.settings))
        return cls(problem, f"{meaning.advice} ({found})" if found else meaning.advice, meaning.own)


def _last(text: str) -> str:
    """Return the last line that says anything; what torch writes before NCCL's own words is left out."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^NCCL error in: \S+, ", "", lines[-1]) if lines else ""
