"""Hypothesis profiles: `dev` looks further each time, `ci` tries the same examples every time."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    gpus = [item for item in items if item.get_closest_marker("gpu")]
    if gpus:
        import torch

        if not torch.cuda.is_available():
            for item in gpus:
                item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))
