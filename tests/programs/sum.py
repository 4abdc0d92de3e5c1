"""Joins the group, sums all ranks plus one, and prints who it is as JSON; crashes once where it is told to."""

import json
import os
import sys
from typing import Any

import torch

import colossalai_env

distributed: Any = torch.distributed
before = dict(os.environ)
with colossalai_env.init_from_env(timeout=120) as job:
    if "--crash-once" in sys.argv and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and job.rank == 1:
        os._exit(3)
    total = torch.tensor([float(job.rank + 1)])
    distributed.all_reduce(total)
    told = {
        "sum": total.item(),
        "rank": job.rank,
        "world_size": job.world_size,
        "local_rank": job.local_rank,
        "local_world_size": job.local_world_size,
        "node_rank": job.node_rank,
        "num_nodes": job.num_nodes,
        "device": str(job.device),
        "backend": job.backend,
        "resolver": job.spec.resolver,
        "host": job.spec.host,
        "job_id": job.spec.job_id,
        "environ": dict(os.environ) == before,
        "peers": [[peer.rank, peer.local_rank, peer.host] for peer in job.topology],
    }
    sys.stdout.write(f"TOLD {json.dumps(told)}\n")
