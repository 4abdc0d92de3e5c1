"""What ranks report in these tests: two ranks on each node."""

from typing import Any

from colossalai_env._rendezvous.protocol.report import RankReport


def report(rank: int, world_size: int = 4, **said: Any) -> RankReport:
    """Return the report of a rank, with some fields as given."""
    fields: dict[str, Any] = {"host": f"n{rank // 2}", "boot": "b", "pid": 100 + rank}
    fields |= {"backend": "gloo", "torch": "2", "resolver": "slurm"}
    return RankReport(rank=rank, world_size=world_size, **(fields | said))


def gpus(rank: int, *devices: str, **said: Any) -> RankReport:
    """Return the report of a rank that sees these GPUs; where it sees one, it takes that."""
    only = {"index": 0} if len(devices) == 1 else {}
    seen: dict[str, Any] = {"kind": "cuda", "visible": len(devices), "devices": devices, "backend": "nccl", **only}
    return report(rank, **(seen | said))
