"""Hand Lightning Fabric the job; Trainer takes the same arguments."""

from lightning.fabric import Fabric  # or lightning.pytorch.Trainer

import colossalai_env
from colossalai_env.integrations.lightning import cluster_environment

with colossalai_env.init_from_env() as job:
    fabric = Fabric(
        accelerator="cpu",
        strategy="ddp",
        devices=job.local_world_size,
        num_nodes=job.num_nodes,
        plugins=[cluster_environment(job)],
    )
    fabric.launch()
    print(f"rank {fabric.global_rank} of {fabric.world_size}", flush=True)
