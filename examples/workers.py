"""Load data in worker processes; they are no ranks, and inherit no group."""

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import colossalai_env


class Squares(Dataset):
    """Numbers and their squares; a worker needs plain values of the job at most."""

    def __init__(self, rank):
        self.rank = rank

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.tensor([index, index**2])


if __name__ == "__main__":
    with colossalai_env.init_from_env() as job:
        data = Squares(job.rank)
        sampler = DistributedSampler(data, job.world_size, job.rank)
        loader = DataLoader(
            data,
            batch_size=8,
            sampler=sampler,
            num_workers=2,
            multiprocessing_context="spawn",
        )
        seen = torch.tensor(sum(len(batch) for batch in loader), device=job.device)
        torch.distributed.all_reduce(seen)
        if job.rank == 0:
            print(f"{seen.item()} samples by {job.world_size} ranks")
