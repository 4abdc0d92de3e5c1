"""What all the launch examples do in the group: fit a line, all ranks together."""

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from colossalai_env import Job


def train(job: Job) -> float:
    """Train as the config states; rank 0 prints the result. Return the last loss."""
    config = job.config
    samples = torch.rand(config.SAMPLES, 1)  # alike on all ranks: they have one seed
    inputs = samples[job.rank :: job.world_size].to(job.device)
    targets = 3 * inputs + 1
    model = DistributedDataParallel(torch.nn.Linear(1, 1).to(job.device))
    optimizer: Any = torch.optim.SGD(model.parameters(), **config.OPTIMIZER)
    loss = torch.zeros(())
    for _ in range(config.EPOCHS):
        for batch in range(0, len(inputs), config.BATCH):
            optimizer.zero_grad()
            some = slice(batch, batch + config.BATCH)
            loss = torch.nn.functional.mse_loss(model(inputs[some]), targets[some])
            torch.autograd.backward(loss)
            optimizer.step()
    if job.rank == 0:
        who = f"{job.world_size} processes, {job.spec.resolver}"
        print(f"{who}: loss {loss.item():.6f}", flush=True)
    return loss.item()
