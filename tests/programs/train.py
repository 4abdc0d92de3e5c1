"""Trains a linear model with DistributedDataParallel for a few steps; its own options are those of a user's script."""

import argparse
import json
import sys
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

import colossalai_env

parser = argparse.ArgumentParser()
parser.add_argument("--host")
parser.add_argument("--port", type=int)
job = colossalai_env.init_from_env(args=parser.parse_args(), timeout=120, seed=7)
model = DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
inputs = torch.randn(32, 4)[job.rank :: job.world_size]
for _ in range(5):
    optimizer.zero_grad()
    torch.autograd.backward(model(inputs).square().mean())
    optimizer.step()
weight = next(model.parameters()).sum().item()
told = {
    "rank": job.rank,
    "size": job.world_size,
    "weight": weight,
    "rank0": job.topology[0].host,
    "port": job.spec.port,
}
sys.stdout.write(f"TOLD {json.dumps(told)}\n")
job.close()
