"""A test that runs alone, and with several ranks under torchrun."""

import pytest
import torch

import colossalai_env


@pytest.fixture(scope="session")
def job():
    """Join once for all tests of the session."""
    with colossalai_env.init_from_env(timeout=60) as joined:
        yield joined


def test_all_ranks_are_summed(job):
    """Each rank adds one."""
    total = torch.ones(1, device=job.device)
    torch.distributed.all_reduce(total)
    assert total.item() == job.world_size
