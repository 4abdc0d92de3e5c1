"""Start two ranks from Python, with no launcher."""

import torch
from torch import multiprocessing

import colossalai_env


def train(rank, world_size, port):
    """Join as this rank."""
    where = {"rank": rank, "world_size": world_size, "host": "localhost", "port": port}
    with colossalai_env.init_from_env(**where) as job:
        total = torch.ones(1, device=job.device)
        torch.distributed.all_reduce(total)
        if job.rank == 0:
            print(f"{total.item():.0f} ranks")


if __name__ == "__main__":
    multiprocessing.spawn(train, args=(2, 29500), nprocs=2)
