"""The contract, for each plugin of this distribution."""

from importlib.metadata import entry_points
from typing import ClassVar

import attrs
import pytest
from colossalai_env_args import CLI_ARGS
from colossalai_env_gforker import GFORKER
from colossalai_env_hydra import HYDRA
from colossalai_env_openmpi import OPENMPI
from colossalai_env_slurm import SLURM
from colossalai_env_torch import TORCH
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env import DistSpec, resolve
from colossalai_env._launch import get_default_parser
from colossalai_env.errors import NotLaunched
from colossalai_env.resolver import Claim, Environ, NoMatch, ResolverProtocol
from colossalai_env.testing import Capture, Layout, ResolverContract, captures, host_lists, layouts, replay
from tests.plugins import test_laws_nodes, test_laws_tasks

OTHERS = (test_laws_nodes, test_laws_tasks)
"""The modules with the other contracts."""

SMALL = st.integers(0, 10**6)


def held_to_say(resolver: ResolverProtocol, fields: set[str], *launchers: str) -> None:
    """Every recorded launch of a launcher says at least these fields, and no two share a job id."""
    recorded = [one for one in captures() if one.launcher in launchers and "torchrun" not in one.scenario]
    launches = [specs for capture in recorded if (specs := replay(resolver, capture))]
    assert launches
    assert all(getattr(spec, field) is not None for specs in launches for spec in specs for field in fields)
    assert len({specs[0].job_id for specs in launches}) == len(launches) or "job_id" not in fields


class TestCliArgs(ResolverContract):
    resolver = CLI_ARGS

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name == "--local_rank"

    def test_it_reads_what_the_launch_interfaces_own_parser_reads(self) -> None:
        @given(layouts(64), st.sampled_from(["nccl", "gloo"]))
        def law(layout: Layout, backend: str) -> None:
            typed = attrs.evolve(layout.spec(layout.world_size - 1), backend=backend)
            options = ("rank", "world_size", "local_rank", "host", "port", "backend")
            words = [word for name in options for word in (f"--{name}", str(getattr(typed, name)))]
            parsed = get_default_parser().parse_args(words)
            read = resolve(argv=words, resolver=self.resolver)
            assert {name: getattr(read, name) for name in options} == {name: getattr(parsed, name) for name in options}

        law()


class TestHydra(ResolverContract):
    resolver = HYDRA
    job_ids = st.uuids().map(str)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name == "I_MPI_HYDRA_UUID"

    def test_each_launch_of_intel_mpi_has_a_token_of_its_own(self) -> None:
        held_to_say(self.resolver, {"job_id", "local_rank", "local_world_size"}, "impi")

    def test_a_port_in_place_of_the_channel_is_refused_and_not_called_left_over(self) -> None:
        started = {"MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "0", "PMI_ID": "4", "PMI_PORT": "gpu-b07:38951"}
        with pytest.raises(NotLaunched, match=r"PMI_PORT='gpu-b07:38951'\): leave -pmi-port out") as raised:
            resolve(env=started, resolver=self.resolver)
        assert "left over" not in str(raised.value)
        channel = {**started, "PMI_FD": "8", "PMI_RANK": "4", "PMI_SIZE": "6"}
        assert resolve(env=channel, resolver=self.resolver).rank == 4


class TestGforker(ResolverContract):
    resolver = GFORKER

    def launches(self, max_ranks: int = 64) -> st.SearchStrategy[Layout]:
        """Draw launches on one host: gforker has no other."""
        return st.integers(1, max_ranks).map(lambda size: Layout(("node0",), (0,) * size))

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del name, environ
        return False

    STARTED: ClassVar = {"MPI_APPNUM": "0", "MPI_UNIVERSE_SIZE": "-1", "PMI_RANK": "1", "PMI_SIZE": "3"}

    def test_all_ranks_are_on_one_host_and_numbered_by_it(self) -> None:
        spec = resolve(env=self.STARTED)
        assert (spec.resolver, spec.local_rank, spec.local_world_size, spec.one_node) == ("mpich-gforker", 1, 3, True)
        assert spec.host == "127.0.0.1"

    @pytest.mark.parametrize("mark", ["MPI_APPNUM", "MPI_UNIVERSE_SIZE"])
    def test_what_others_set_too_is_no_mark_of_it(self, mark: str) -> None:
        slurm_or_flux = {"PMI_RANK": "1", "PMI_SIZE": "3", "PMI_FD": "8"}
        assert self.resolver.resolve(Environ(slurm_or_flux)) == NoMatch("no MPI_APPNUM, MPI_UNIVERSE_SIZE")
        assert self.resolver.resolve(Environ({mark: "1"})) == NoMatch("no PMI_RANK or PMI_SIZE")

    def test_a_task_of_flux_in_its_environment_is_flux_s(self) -> None:
        task = {**self.STARTED, "FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "3"}
        assert isinstance(self.resolver.resolve(Environ(task)), NoMatch)
        assert resolve(env={**task, "FLUX_JOB_SIZE": "1", "FLUX_TASK_RANK": "0"}, resolver=self.resolver).rank == 1

    def test_hydra_wins_where_gforkers_marks_are_inherited(self) -> None:
        nested = {**self.STARTED, "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
        assert (resolve(env=nested).resolver, resolve(env=nested).local_rank) == ("hydra", 0)


class TestOpenMpi(ResolverContract):
    resolver = OPENMPI
    job_ids = st.from_regex(r"prterun-[a-z0-9]{1,9}-[0-9]{1,7}@1", fullmatch=True)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name in {"OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE"}

    def test_each_launch_has_a_token_of_its_own(self) -> None:
        held_to_say(
            self.resolver,
            {"job_id", "local_rank", "local_world_size"},
            "openmpi4",
            "openmpi418",
            "openmpi5",
            "openmpi6",
        )


OPEN = {
    *("slurm_arbitrary", "slurm_arbitrary_packed", "slurm_srun_arbitrary", "slurm2411_srun_arbitrary_pack"),
    *("slurm2605_srun_arbitrary_pack", "slurm2605_pack_srun_arbitrary", "slurm2605_alpha_srun_block"),
    *("slurm2605_dyn_srun_block", "slurm2605_nodist_srun_block", "slurm2605_block_block", "slurm2605_ring_srun_block"),
    *("slurm2605_block1_srun_1task_per_node", "slurm2605_ring_two_per_node", "slurm2605_treerank_srun_block"),
    *("slurm2605_tree_all_nodes", "slurm2605_tree_block_packed", "slurm2605_tree_in_sbatch", "slurm2605_tree_pmi2"),
    *("slurm2605_tree_numeric_names", "slurm2605_tree_srun_block", "slurm2605_tree_srun_default_packed"),
    *("slurm2605_tree_names_first_default_packed", "slurm2605_tree_heterogeneous_wide.block"),
}
"""Recorded launches of Slurm over three nodes and more whose variables do not lead to rank 0's."""


class TestSlurm(ResolverContract):
    resolver = SLURM
    job_ids = st.builds("{}.{}{}".format, SMALL, SMALL, st.sampled_from(["", "r1", "r12"]))

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        if name in {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURMD_NODENAME", "SLURM_NTASKS", "SLURM_NNODES"}:
            return None
        return name in {"SLURM_DISTRIBUTION", "SLURM_RESTART_COUNT"}

    @pytest.mark.parametrize("size", ["SLURM_NPROCS", "SLURM_NTASKS"])
    def test_rank_and_size_are_enough_where_there_is_no_job(self, size: str) -> None:
        spec = resolve(env={"SLURM_PROCID": "2", size: "4"}, resolver=self.resolver)
        assert spec == DistSpec(rank=2, world_size=4, resolver="slurm")

    def test_the_old_name_of_the_job_is_read_too(self) -> None:
        step = dict(self.resolver.emulate(Layout(("n0",), (0,), job_id="7.1").spec(0)).variables)
        for other, name in (("SLURM_JOBID", "SLURM_JOB_ID"), ("SLURM_JOB_ID", "SLURM_JOBID")):
            alone = {key: text for key, text in step.items() if key != other} | {name: "7"}
            assert resolve(env=alone, resolver=self.resolver).job_id == "7.1"

    @pytest.mark.parametrize(
        ("name", "text"), [("SLURMD_NODENAME", "n7"), ("SLURM_GTIDS", "0,2,4"), ("SLURM_GTIDS", "4,2")]
    )
    def test_a_step_that_a_witness_contradicts_is_another_jobs(self, name: str, text: str) -> None:
        step = self.resolver.emulate(Layout(("n0", "n1"), (0, 1, 0, 1), job_id="7.1").spec(0)).variables
        assert resolve(env={**step, "SLURM_GTIDS": "0,2"}, resolver=self.resolver).rank == 0
        with pytest.raises(NotLaunched, match=text):
            resolve(env={**step, name: text}, resolver=self.resolver)

    def test_tasks_asked_for_by_node_are_several(self) -> None:
        shell = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "4"}
        with pytest.raises(NotLaunched, match="salloc"):
            resolve(env=shell, resolver=self.resolver)

    def test_rank_0s_host_is_said_but_where_another_order_than_the_lists_leaves_it_open(self) -> None:
        launches = [one for one in captures() if one.scenario.startswith("slurm") and "why" not in one.tasks[0].truth]
        specs = {capture.scenario: replay(self.resolver, capture) for capture in launches}
        assert {name for name, said in specs.items() if None in {spec.host for spec in said}} == OPEN
        assert all(None not in {spec.local_world_size for spec in said} for said in specs.values())

    @pytest.mark.parametrize("name", ["slurm_block", "slurm_heterogeneous_wide.block"])
    def test_a_step_without_a_distribution_deals_tasks_out_in_blocks(self, name: str) -> None:
        (capture,) = (one for one in captures() if one.scenario == name)
        step = {key: text for key, text in capture.tasks[0].variables.items() if key != "SLURM_DISTRIBUTION"}
        assert resolve(env=step, resolver=self.resolver).host == capture.tasks[0].truth["rank0_host"]

    def test_pmix_counts_the_nodes_of_a_heterogeneous_step_in_another_order_than_its_list(self) -> None:
        (capture,) = (one for one in captures() if one.scenario == "slurm2605_tree_heterogeneous_wide.block")
        job = capture.tasks[0].variables["SLURM_JOB_ID"]
        mapped = {
            "SLURM_PMIX_MAPPING_SERV": "(vector,(1,1,1),(0,1,2),(2,1,2))",
            "PMIX_NAMESPACE": f"slurm.pmix.{job}.0",
        }
        assert resolve(env={**capture.tasks[0].variables, **mapped}, resolver=self.resolver).host is None

    @pytest.mark.parametrize(
        "name",
        [
            "slurm_heterogeneous_other_order.both",
            "slurm_heterogeneous_later.nodes",
            "slurm2605_tree_heterogeneous_wide.cyclic",
            "slurm2411_arbitrary_pmix",
            "slurm2605_tree_arbitrary_on_two",
            "slurm2605_rack_by_names",
            "slurm2605_srun_block",
        ],
    )
    def test_no_other_host_is_said_of_a_recorded_launch_that_has_lost_a_variable(self, name: str) -> None:
        (capture,) = (one for one in captures() if one.scenario == name)
        truth = replay(self.resolver, capture)[0].host
        for task in capture.tasks:
            for lost in SLURM.variables():
                if lost not in {"SLURM_DISTRIBUTION", "SLURM_JOB_SLUID", "SLURM_JOB_ID_PACK_GROUP_0"}:
                    left = {name: text for name, text in task.variables.items() if name != lost}
                    answer = self.resolver.resolve(Environ(left))
                    assert not isinstance(answer, Claim) or answer.spec.host in {truth, None}, lost

    def test_the_first_host_of_any_list_is_rank_0s(self) -> None:
        @given(host_lists())
        def law(drawn: tuple[str, tuple[str, ...]]) -> None:
            text, hosts = drawn
            layout = Layout(hosts, tuple(range(len(hosts))), job_id="7.1")
            step = self.resolver.emulate(layout.spec(0)).variables
            spec = resolve(env={**step, "SLURM_STEP_NODELIST": text}, resolver=self.resolver)
            assert (spec.host, spec.num_nodes) == (hosts[0], len(hosts))

        law()


class TestTorch(ResolverContract):
    resolver = TORCH
    job_ids = st.none() | st.builds("{}/{}".format, st.sampled_from(["none", "bed7", "a/b"]), SMALL)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        by_hand = "TORCHELASTIC_RUN_ID" not in environ
        if name in {"MASTER_ADDR", "MASTER_PORT"}:
            return by_hand and environ.get("WORLD_SIZE") == "1"
        if name in {"LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"}:
            return by_hand
        return None if name == "TORCHELASTIC_USE_AGENT_STORE" else False

    BY_HAND: ClassVar = {"RANK": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "n0", "MASTER_PORT": "29500"}

    def test_four_variables_set_by_hand_are_enough(self) -> None:
        spec = resolve(env=self.BY_HAND, resolver=self.resolver)
        assert spec == DistSpec(rank=2, world_size=4, host="n0", port=29500, resolver="torch")

    def test_deepspeed_says_the_layout_by_names_of_its_own(self) -> None:
        deepspeed = {"LOCAL_RANK": "0", "LOCAL_SIZE": "2", "CROSS_RANK": "1", "CROSS_SIZE": "2"}
        spec = resolve(env=self.BY_HAND | deepspeed)
        assert (spec.local_rank, spec.local_world_size, spec.node_rank, spec.num_nodes) == (0, 2, 1, 2)
        agents = {"LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "2", "GROUP_WORLD_SIZE": "4"}
        spec = resolve(env=self.BY_HAND | deepspeed | agents)
        assert (spec.local_world_size, spec.node_rank, spec.num_nodes) == (1, 2, 4)

    def test_pods_of_a_pytorch_job_are_told_that_torchrun_reads_their_variables(self) -> None:
        pod = {"RANK": "1", "WORLD_SIZE": "16", "PET_NNODES": "2", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "1"}
        with pytest.raises(NotLaunched, match=r"PET_NPROC_PER_NODE='8'\): start torchrun train.py once"):
            resolve(env=self.BY_HAND | pod)

    def test_ranks_that_count_nodes_are_refused_but_with_a_local_rank(self) -> None:
        pod = {**self.BY_HAND, "PET_NPROC_PER_NODE": "8"}
        with pytest.raises(NotLaunched, match="torchrun once on each node"):
            resolve(env=pod, resolver=self.resolver)
        assert resolve(env={**pod, "LOCAL_RANK": "0"}, resolver=self.resolver).local_rank == 0


TYPED = ("--rank=3", "--world_size=4", "--host=10.0.0.1", "--port=29500")


@pytest.mark.parametrize(
    "capture",
    [capture for capture in captures() if "why" not in capture.tasks[0].truth],
    ids=lambda capture: capture.scenario,
)
def test_what_is_typed_beats_every_launcher(capture: Capture) -> None:
    spec = resolve(env=capture.tasks[0].variables, argv=TYPED)
    assert (spec.resolver, spec.rank, spec.world_size, spec.host) == ("cli-args", 3, 4, "10.0.0.1")


def test_every_plugin_of_this_distribution_is_held_to_the_contract() -> None:
    held = {contract.resolver.name for contract in ResolverContract.__subclasses__()}
    assert {entry.name for entry in entry_points(group="colossalai_env")} <= held
