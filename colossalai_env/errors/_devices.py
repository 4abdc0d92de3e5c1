"""What keeps a process from its accelerator, and the ranks from their process group."""

from . import ColossalaiEnvError, where


class DeviceError(ColossalaiEnvError):
    """This process has no accelerator, or not one of its own."""


class GroupError(DeviceError):
    """The ranks met, and the process group was not made."""


class UnknownBackend(DeviceError):
    """The backend that was asked for is not there, or has no device to run on."""

    backend: str
    problem: str
    advice: str

    def __str__(self) -> str:
        named = f"backend {self.backend!r}" if self.backend else "no backend was named"
        return f"{named}: {self.problem}: {self.advice}."


class NoSuchDevice(DeviceError):
    """There is no accelerator for this process."""

    kind: str
    wanted: str
    visible: int
    rank: int
    advice: str

    def __str__(self) -> str:
        return f"{self.wanted}, but {self.visible} {self.kind} device(s) are visible{where(self.rank)}: {self.advice}."


class UnusableDevices(DeviceError):
    """Accelerators are here, torch can use none of them, and none was hidden on purpose."""

    torch: str
    machine: str
    reason: str
    advice: str
    rank: int | None = None
    built: bool = True
    """Whether this torch was built for accelerators at all."""

    def __str__(self) -> str:
        return (
            f"{self.torch} sees no accelerator{where(self.rank)}, though this machine has {self.machine}: "
            f"{self.reason}: {self.advice}; for a job on CPUs say device='cpu' or export CUDA_VISIBLE_DEVICES= (empty)."
        )


class GroupFailed(GroupError):
    """The backend could not make the process group; where there are several ranks, all had answered the roll call."""

    rank: int
    here: str
    backend: str
    problem: str
    advice: str = (
        "All ranks had answered, so host and port are right: look at the network interfaces "
        "(GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME) and at firewalls between the nodes"
    )

    def __str__(self) -> str:
        return (
            f"the process group's backend {self.backend} did not connect{where(self.rank, self.here)}: {self.problem}. "
            f"{self.advice}."
        )


class SharedDevice(DeviceError):
    """Two processes hold one accelerator, and their backend cannot share it."""

    first: str
    second: str
    device: str
    backend: str

    def __str__(self) -> str:
        return (
            f"{self.first} and {self.second} both have {self.device}, which {self.backend} cannot share: start one "
            "process per device, or show each process its own (CUDA_VISIBLE_DEVICES, --gpus-per-task=1, its own "
            "LOCAL_RANK); to share it say backend='gloo', to use none device='cpu'"
        )


class NodeLevelRanks(DeviceError):
    """Ranks count nodes, each with several accelerators and one process: one process would use one of them."""

    process: str
    visible: int
    reason: str = "nothing says its local rank, so these ranks seem to count nodes"
    command: str = (
        "torchrun --nnodes=$WORLD_SIZE --node-rank=$RANK --nproc-per-node=gpu --master-addr=$MASTER_ADDR "
        "--master-port=$MASTER_PORT train.py"
    )

    def __str__(self) -> str:
        return (
            f"{self.process} is alone on its node and sees {self.visible} accelerators: {self.reason}. Start torchrun "
            f"once on each node: {self.command}; where one process per node is meant, export LOCAL_RANK=0"
        )
