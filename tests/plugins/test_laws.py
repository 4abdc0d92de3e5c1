"""The contract, for each plugin of this distribution."""

from importlib.metadata import entry_points

from colossalai_env_cli import CLI_ARGS
from colossalai_env_hydra import HYDRA
from colossalai_env_openmpi import OPENMPI
from colossalai_env_slurm import SLURM
from colossalai_env_torch import TORCH
from hypothesis import strategies as st

from colossalai_env.testing import ResolverContract

SMALL = st.integers(0, 10**6)


class TestCliArgs(ResolverContract):
    resolver = CLI_ARGS


class TestHydra(ResolverContract):
    resolver = HYDRA
    job_ids = st.uuids().map(str)


class TestOpenMpi(ResolverContract):
    resolver = OPENMPI
    job_ids = st.from_regex(r"prterun-[a-z0-9]{1,9}-[0-9]{1,7}@1", fullmatch=True)


class TestSlurm(ResolverContract):
    resolver = SLURM
    job_ids = st.builds("{}.{}{}".format, SMALL, SMALL, st.sampled_from(["", "r1", "r12"]))


class TestTorch(ResolverContract):
    resolver = TORCH
    job_ids = st.none() | st.builds("{}/{}".format, st.sampled_from(["none", "bed7", "a/b"]), SMALL)


def test_every_plugin_of_this_distribution_is_held_to_the_contract() -> None:
    held = {contract.resolver.name for contract in ResolverContract.__subclasses__()}
    assert {entry.name for entry in entry_points(group="colossalai_env")} <= held
