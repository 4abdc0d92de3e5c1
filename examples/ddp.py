"""Train with DDP; keep a checkpoint of each epoch, and go on from it."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import colossalai_env

NOT_DONE = 75
"""The exit status for "start me again": the batch script requeues for it."""


def save(path, epoch, model, optimizer):
    """Write a checkpoint under another name first: one that is there is whole."""
    state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({"epoch": epoch, **state}, f"{path}.new")
    os.replace(f"{path}.new", path)


def load(path, model, optimizer, device):
    """Load the checkpoint on every rank; return the epoch to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device)
    model.module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["epoch"] + 1


def any_rank(flag, device):
    """Return on all ranks whether the flag is set on any: they leave together."""
    found = torch.tensor(float(bool(flag)), device=device)
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return bool(found)


def train(job, epochs, checkpoint):
    """Train the epochs that are left; return whether all are done."""
    asked = []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append("to stop"))

    inputs = torch.rand(1024, 8)  # the same data on all ranks: they have one seed
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    sampler = DistributedSampler(data, num_replicas=job.world_size, rank=job.rank)
    loader = DataLoader(data, batch_size=32, sampler=sampler)

    model = DistributedDataParallel(nn.Linear(8, 1).to(job.device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    first = load(checkpoint, model, optimizer, job.device)
    if job.rank == 0:
        print(f"{job.world_size} ranks begin with epoch {first}", flush=True)

    for epoch in range(first, epochs):
        sampler.set_epoch(epoch)  # another order in each epoch
        for batch, target in loader:
            optimizer.zero_grad()
            output = model(batch.to(job.device))
            loss = nn.functional.mse_loss(output, target.to(job.device))
            loss.backward()
            optimizer.step()
        if job.rank == 0:
            save(checkpoint, epoch, model, optimizer)
            print(f"epoch {epoch}: loss {loss.item():.6f}", flush=True)
        if any_rank(asked, job.device):
            return epoch + 1 == epochs
    return True


def main():
    parser = colossalai_env.get_default_parser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--checkpoint", type=Path, default="checkpoint.pt")
    args = parser.parse_args()
    with colossalai_env.init_from_env(args=args, seed=1024) as job:
        done = train(job, args.epochs, args.checkpoint)
    sys.exit(0 if done else NOT_DONE)


if __name__ == "__main__":
    main()
