"""What all the launch examples do once they are in the group: fit a line, all ranks together."""

import sys
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from colossalai_env import Job


def train(job: Job) -> float:
    """Train as the job's config states; rank 0 prints the result. Return the last loss."""
    config = job.config
    samples = torch.rand(config.SAMPLES, 1)  # the same on all ranks: they have one seed
    inputs = samples[job.rank :: job.world_size].to(job.device)
    targets = 3 * inputs + 1
    model = DistributedDataParallel(torch.nn.Linear(1, 1).to(job.device))
    optimizer: Any = torch.optim.SGD(model.parameters(), **config.OPTIMIZER)
    loss = torch.zeros(())
    for _ in range(config.EPOCHS):
        for batch in range(0, len(inputs), config.BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(inputs[batch:][: config.BATCH]), targets[batch:][: config.BATCH])
            torch.autograd.backward(loss)
            optimizer.step()
    if job.rank == 0:
        sys.stdout.write(f"{job.world_size} processes, {job.spec.resolver}: loss {loss.item():.6f}\n")
    return loss.item()
