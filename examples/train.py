"""Train a small digit classifier, the same script under any launcher or under none."""

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import colossalai_env

EPOCHS = 20
BATCH = 64


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Return the 1797 scanned digits that scikit-learn ships, every fifth of them for the test."""
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    test = torch.arange(len(targets)) % 5 == 0
    return TensorDataset(inputs[~test], targets[~test]), TensorDataset(inputs[test], targets[test])


def accuracy(model: nn.Module, data: TensorDataset, job: colossalai_env.Job) -> float:
    """Share the test set out over the ranks, and return the part that all of them together classify correctly."""
    inputs, targets = (tensor[job.rank :: job.world_size].to(job.device) for tensor in data.tensors)
    with torch.no_grad():
        right = (model(inputs).argmax(1) == targets).sum()
    counts = torch.stack([right, torch.tensor(len(targets), device=job.device)])
    distributed.all_reduce(counts)
    return (counts[0] / counts[1]).item()


def show(job: colossalai_env.Job, score: float) -> None:
    """Print which ranks took part, and the accuracy of the model."""
    table = Table("rank", "host", "node", "local rank", "device", "resolved by")
    for peer in job.topology:
        who = [peer.rank, peer.host, peer.node_rank, peer.local_rank, peer.device, job.spec.resolver]
        table.add_row(*map(str, who))
    console = Console()
    console.print(table)
    console.print(f"accuracy on {len(digits()[1])} unseen digits: {score:.1%}")


def main() -> None:
    """Train, test and show."""
    with colossalai_env.init_from_env(seed=1024) as job:
        train, test = digits()
        network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(job.device)
        ids = None if job.device.type == "cpu" else [job.device.index]
        model = DistributedDataParallel(network, device_ids=ids)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(
            train, num_replicas=job.world_size, rank=job.rank
        )
        loader = DataLoader(train, batch_size=BATCH // job.world_size, sampler=sampler)
        for epoch in track(range(EPOCHS), "training", disable=job.rank != 0):
            sampler.set_epoch(epoch)
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs.to(job.device)), targets.to(job.device))
                torch.autograd.backward(loss)
                optimizer.step()
        score = accuracy(network, test, job)
        if job.rank == 0:
            show(job, score)


if __name__ == "__main__":
    main()
