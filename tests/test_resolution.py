"""resolve() and explain(): layers, ties, overrides, refusals."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from colossalai_env_openmpi import OPENMPI
from colossalai_env_torch import TORCH

from colossalai_env import ColossalaiEnvError, DistSpec, explain, resolve
from colossalai_env.errors import (
    ConflictingResolvers,
    ContradictoryVariables,
    IncompleteArguments,
    MalformedVariable,
    MissingVariable,
    NotLaunched,
    PartialEnvironment,
    ResolverDoesNotMatch,
    UnknownResolver,
)
from colossalai_env.resolver import Answer, Environ, Layer, Resolver, var

OMPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "prterun-login0-4785@1",
}
HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
BY_HAND = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
STEP = {
    "SLURM_JOB_ID": "212", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_STEP_NODELIST": "gpu-a[01-02]", "SLURM_NTASKS": "3",
}  # fmt: skip


def test_with_nothing_found_it_is_a_single_process() -> None:
    spec = resolve(env={})
    assert (spec.rank, spec.world_size, spec.local_rank, spec.num_nodes, spec.host) == (0, 1, 0, 1, None)
    assert spec.resolver == "single-process"


def test_the_innermost_launcher_is_right() -> None:
    assert resolve(env=OMPI | STEP).resolver == "openmpi"
    assert resolve(env=BY_HAND | OMPI | STEP).resolver == "torch"
    argv = ["--rank", "0", "--world_size", "2", "--host", "h", "--port", "1"]
    assert resolve(env=BY_HAND | OMPI | STEP, argv=argv).resolver == "cli-args"


def test_an_unusable_inner_launcher_does_not_give_way_to_an_outer_one() -> None:
    with pytest.raises(MissingVariable, match="OMPI_COMM_WORLD_LOCAL_RANK"):
        resolve(env={name: value for name, value in OMPI.items() if name != "OMPI_COMM_WORLD_LOCAL_RANK"} | STEP)


def test_a_place_that_is_no_world_is_no_obstacle_to_an_inner_launcher() -> None:
    body = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "6", "SLURM_NNODES": "3"}
    with pytest.raises(NotLaunched, match=r"srun python train\.py"):
        resolve(env=body)
    assert resolve(env=body | OMPI).rank == 1
    assert resolve(env=body, rank=0, world_size=2, host="h", port=1).rank == 0
    assert resolve(env=body | {"COLOSSALAI_ENV_RESOLVER": "single-process"}).world_size == 1
    assert resolve(env=body | {"SLURM_NTASKS": "1"}).resolver == "single-process"


def test_two_claims_of_one_layer_that_disagree_are_an_error_naming_both() -> None:
    with pytest.raises(
        ConflictingResolvers, match=r"hydra says rank 2 of 4 .*, openmpi says rank 1 of 4 .*RESOLVER=hydra or"
    ):
        resolve(env=OMPI | HYDRA)
    assert resolve(env=OMPI | HYDRA | {"COLOSSALAI_ENV_RESOLVER": "hydra"}).rank == 2
    assert resolve(env=OMPI | HYDRA, resolver="openmpi").rank == 1
    assert resolve(env=OMPI | HYDRA | {"PMI_RANK": "1"}).rank == 1


def test_marks_of_which_some_are_missing_are_no_claim_and_no_single_process() -> None:
    assert resolve(env={"WORLD_SIZE": "8"} | OMPI).resolver == "openmpi"
    with pytest.raises(PartialEnvironment, match=r"torch: WORLD_SIZE set but RANK not.*COLOSSALAI_ENV_DISABLE=torch"):
        resolve(env={"WORLD_SIZE": "8"})
    assert resolve(env={"WORLD_SIZE": "8", "COLOSSALAI_ENV_DISABLE": "torch"}).world_size == 1


def test_keywords_beat_the_namespace_which_beats_the_launcher_field_by_field() -> None:
    args = SimpleNamespace(host="from-args", port="1234", backend=None, rank=None)
    spec = resolve(env=OMPI, args=args)
    assert (spec.rank, spec.local_rank, spec.host, spec.port) == (1, 1, "from-args", 1234)
    spec = resolve(env=OMPI, args=args, host="from-keyword", backend="gloo")
    assert (spec.host, spec.port, spec.backend) == ("from-keyword", 1234, "gloo")
    assert spec.sources["host"] == "argument host"
    assert spec.sources["port"] == "args.port"


@pytest.mark.parametrize("value", [-1, "-1", "", None])
def test_what_stands_for_not_given_is_not_given(value: Any) -> None:
    fields = ("rank", "world_size", "local_rank", "host", "port", "backend")
    args = SimpleNamespace(**dict.fromkeys(fields, value))
    assert resolve(env=OMPI | STEP, args=args) == resolve(env=OMPI | STEP)
    assert resolve(env=OMPI, **dict.fromkeys(fields, value)) == resolve(env=OMPI)


@pytest.mark.parametrize(("field", "default"), [("rank", 0), ("world_size", 1), ("local_rank", 0)])
def test_a_parsers_default_gives_way_to_a_launcher_unless_it_was_typed(field: str, default: int) -> None:
    args = SimpleNamespace(**{field: default})
    assert resolve(env=BY_HAND | {"LOCAL_RANK": "1"}, args=args).rank == 1
    assert resolve(env=BY_HAND | {"LOCAL_RANK": "1"}, args=args).local_rank == 1
    assert resolve(env={}, args=args).world_size == 1
    typed = [f"--{field.replace('_', '-')}", str(default)]
    if field == "local_rank":
        assert resolve(env=BY_HAND | {"LOCAL_RANK": "1"}, args=args, argv=typed).local_rank == 0
    with pytest.raises(
        ConflictingResolvers, match=r"the arguments say rank 0 of 1 \(args.rank, args.world_size\), torch"
    ):
        resolve(env=BY_HAND, args=SimpleNamespace(rank=0, world_size=1))


def test_rank_and_world_size_that_are_typed_are_a_claim_where_no_launcher_makes_one() -> None:
    typed = ["--rank", "1", "--world-size=2"]
    with pytest.raises(IncompleteArguments, match="--rank and --world_size given, but nothing says --host and --port"):
        resolve(argv=typed)
    with pytest.raises(IncompleteArguments, match="nothing says --port: give --port too"):
        resolve(argv=[*typed, "--host", "h"])
    master = {"MASTER_ADDR": "h", "MASTER_PORT": "1"}
    spec = resolve(env=master, argv=typed)
    assert (spec.rank, spec.world_size, spec.host, spec.port, spec.resolver) == (1, 2, "h", 1, "cli-args")
    assert resolve(argv=["--rank", "0", "--world_size", "1"]).world_size == 1
    assert resolve(argv=["--rank", "16"]).resolver == "single-process"
    assert resolve(env=OMPI, argv=typed).resolver == "openmpi"
    assert resolve(env=BY_HAND | {"WORLD_SIZE": "4"}, argv=[*typed, "--hostname", "localhost"]).world_size == 4
    with pytest.raises(MalformedVariable, match="--rank is 'x'"):
        resolve(argv=["--rank", "x", "--world_size", "2"])


def test_what_kubernetes_sets_for_a_service_is_no_port() -> None:
    service = {"MASTER_PORT": "tcp://10.96.3.4:29500"}
    assert resolve(env=STEP | service).port == resolve(env=STEP).port
    assert resolve(env=BY_HAND | service, port=29500).port == 29500
    with pytest.raises(MalformedVariable, match=r"Service named master: export MASTER_PORT=NUMBER.*enableServiceLinks"):
        resolve(env=BY_HAND | service)
    assert resolve(env=service).world_size == 1


@pytest.mark.parametrize("processes", ["auto", "gpu", "1"])
def test_a_pod_of_one_process_is_a_rank_though_the_operator_sets_torchruns_input(processes: str) -> None:
    pod = BY_HAND | {"PET_NPROC_PER_NODE": processes, "PET_NNODES": "2", "PET_NODE_RANK": "1"}
    assert (resolve(env=pod).rank, resolve(env=pod).world_size) == (1, 2)


def test_an_id_of_any_bytes_gives_a_port() -> None:
    assert 10000 <= (resolve(env=STEP | {"COLOSSALAI_ENV_JOB_ID": "a\udcff"}).port or 0) < 32768


def test_master_addr_and_port_beat_what_a_launcher_leads_to() -> None:
    spec = resolve(env=STEP | {"MASTER_ADDR": "10.0.0.9"})
    assert (spec.host, spec.sources["host"]) == ("10.0.0.9", "MASTER_ADDR")
    assert spec.port == resolve(env=STEP).port
    assert resolve(env=STEP | {"MASTER_PORT": "4711"}).port == 4711


def test_a_rank_given_by_hand_takes_nothing_that_a_launcher_says_of_another() -> None:
    spec = resolve(env=OMPI, rank=0)
    assert (spec.rank, spec.world_size, spec.local_rank, spec.local_world_size) == (0, 4, None, None)
    spec = resolve(env=STEP, rank=0, world_size=8, host="h", port=1)
    assert (spec.resolver, spec.local_rank, spec.num_nodes, spec.job_id) == ("arguments", None, None, None)
    with pytest.raises(IncompleteArguments, match="give world_size too"):
        resolve(env={}, rank=1)


def test_what_agrees_with_torchrun_leaves_the_agents_store_in_use() -> None:
    served = BY_HAND | {
        "TORCHELASTIC_RUN_ID": "r", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_USE_AGENT_STORE": "True",
        "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1",
    }  # fmt: skip
    assert resolve(env=served, rank=1, world_size=2, host="node1", port=29500).agent_store
    assert not resolve(env=served, port=29501).agent_store


def test_rank_of_a_world_too_small_names_both_arguments() -> None:
    with pytest.raises(
        ContradictoryVariables, match=r"rank counts from 0 and must be below world_size.*argument rank='5'"
    ):
        resolve(env={}, rank=5, world_size=2, host="h", port=1)


def test_ranks_that_count_nodes_are_refused_with_the_torchrun_command() -> None:
    with pytest.raises(NotLaunched, match=r"torchrun --nnodes=\$WORLD_SIZE"):
        resolve(env=BY_HAND | {"PET_NPROC_PER_NODE": "8"})
    assert resolve(env=BY_HAND | {"PET_NPROC_PER_NODE": "8", "LOCAL_RANK": "0"}).rank == 1


def test_a_world_of_one_set_by_hand_needs_no_address() -> None:
    assert resolve(env={"RANK": "0", "WORLD_SIZE": "1"}).world_size == 1
    with pytest.raises(MissingVariable, match="MASTER_ADDR"):
        resolve(env={"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"})
    assert resolve(env={"RANK": "0", "WORLD_SIZE": "2"}, host="h", port=1).host == "h"


def test_slurms_bare_pair_is_accepted_with_the_rest_unknown() -> None:
    for size in ("SLURM_NPROCS", "SLURM_NTASKS"):
        spec = resolve(env={"SLURM_PROCID": "1", size: "2"})
        assert (spec.rank, spec.world_size, spec.local_rank, spec.num_nodes, spec.host) == (1, 2, None, None, None)


def test_ipv6_addresses_are_hosts() -> None:
    assert resolve(env=BY_HAND | {"MASTER_ADDR": "fe80::1"}).host == "fe80::1"


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
@pytest.mark.parametrize("value", [" 3", "3.0", "\uff11", "1_0", "", "-1", "4294967296"])
def test_a_malformed_number_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(MalformedVariable, match=f"{name} is ") as caught:
        resolve(env=BY_HAND | {name: value})
    assert repr(value) in str(caught.value)
    assert "expected a whole number" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MASTER_PORT", "0", "1 to 65535"),
        ("MASTER_PORT", "65536", "1 to 65535"),
        ("MASTER_ADDR", "node1:29500", "without port"),
        ("MASTER_ADDR", "[::1]", "brackets"),
        ("MASTER_ADDR", "node1 ", "spaces"),
    ],
)
@pytest.mark.parametrize("launcher", [BY_HAND, STEP, OMPI], ids=["by hand", "slurm", "openmpi"])
def test_a_malformed_address_is_named_with_its_value(
    launcher: dict[str, str], name: str, value: str, expected: str
) -> None:
    with pytest.raises(MalformedVariable, match=f"{name} is ") as caught:
        resolve(env=launcher | {name: value})
    assert repr(value) in str(caught.value)
    assert expected in str(caught.value)


def test_one_resolver_can_be_asked_alone() -> None:
    with pytest.raises(UnknownResolver, match=r"COLOSSALAI_ENV_RESOLVER is 'slrum'.*slurm"):
        resolve(env={"COLOSSALAI_ENV_RESOLVER": "slrum"})
    with pytest.raises(ResolverDoesNotMatch, match=r"slurm was asked for alone.*seems to run under openmpi"):
        resolve(env=OMPI, resolver="slurm")
    with pytest.raises(UnknownResolver, match="argument resolver is 'x'"):
        resolve(env={}, resolver="x")


class House:
    """A launcher that no table expresses."""

    name = "house"
    layer = Layer.PLATFORM

    def resolve(self, environ: Environ) -> Answer:
        del environ
        raise RuntimeError("boom")

    def emulate(self, spec: DistSpec) -> Environ:
        raise NotImplementedError


def test_a_resolver_can_be_handed_in_and_its_own_failure_bears_its_name() -> None:
    assert resolve(env=OMPI, resolver=OPENMPI).rank == 1
    with pytest.raises(ColossalaiEnvError, match="'house' failed: RuntimeError: boom"):
        resolve(env={}, resolver=House())


def test_explain_says_who_was_asked_who_won_and_where_each_value_came_from() -> None:
    text = str(explain(env=OMPI | STEP | {"MASTER_PORT": "4711"}))
    assert "openmpi         mpi        wins: rank 1 of 4" in text
    assert "slurm           step       outranked: rank 1 of 3" in text
    assert "torch           worker     no: no RANK, WORLD_SIZE" in text
    assert "rank              1  <- OMPI_COMM_WORLD_RANK" in text
    assert "port              4711  <- MASTER_PORT" in text
    assert "node_rank         unknown" in text


def test_explain_tells_errors_instead_of_raising_them() -> None:
    report = explain(env=BY_HAND | {"RANK": "x"})
    assert "invalid: torch: RANK is 'x'" in str(report)
    told: dict[str, Any] = json.loads(json.dumps(report.to_dict()))
    assert told["error"]["type"] == "MalformedVariable"
    assert {resolver["name"] for resolver in told["resolvers"]} > {"torch", "slurm", "openmpi", "hydra", "cli-args"}


def test_explain_as_a_dict_has_the_spec_and_its_sources() -> None:
    told = json.loads(json.dumps(explain(env=BY_HAND, rank=1).to_dict()))
    assert told["spec"]["host"] == "node1"
    assert told["sources"]["host"] == "MASTER_ADDR"
    (torch,) = [resolver for resolver in told["resolvers"] if resolver["name"] == TORCH.name]
    assert (torch["won"], torch["answer"], torch["layer"]) == (True, "claim", "worker")


def test_the_launch_of_by_hand_ranks_can_be_given_an_id() -> None:
    assert resolve(env=BY_HAND | {"COLOSSALAI_ENV_JOB_ID": "mine"}).job_id == "mine"


def test_a_launchers_own_id_is_not_replaced_by_the_one_for_launches_without() -> None:
    """Restarted workers would have the id of those before them, and find what they have left in the agent's store."""
    agent = {"TORCHELASTIC_RUN_ID": "9", "TORCHELASTIC_RESTART_COUNT": "1", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}
    worker = {**BY_HAND, **agent, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    assert resolve(env={**worker, "COLOSSALAI_ENV_JOB_ID": "mine"}).job_id == "9/1"
    assert resolve(env={**STEP, "COLOSSALAI_ENV_JOB_ID": "mine"}).job_id == resolve(env=STEP).job_id


NAMELESS = {name: text for name, text in OMPI.items() if name != "PMIX_NAMESPACE"}
TWO_OF_AWS = {"AWS_BATCH_JOB_NUM_NODES": "2", "AWS_BATCH_JOB_MAIN_NODE_INDEX": "1", "AWS_BATCH_JOB_ID": "j"}


@pytest.mark.parametrize(
    ("env", "found", "asked"),
    [
        (OMPI, "host unknown, will be asked: mpi4py, pmix", ["mpi4py", "pmix"]),
        (OMPI | {"COLOSSALAI_ENV_LOCATE": "pmix"}, "host unknown, will be asked: pmix", ["pmix"]),
        (OMPI | {"COLOSSALAI_ENV_LOCATE": "none"}, "host unknown, nothing is asked for it: export MASTER_ADDR", []),
        (NAMELESS | {"MASTER_ADDR": "n1"}, "job_id unknown, will be asked: mpi4py, pmix", ["mpi4py", "pmix"]),
        (NAMELESS | {"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}, "job_id unknown\n", []),
        (
            TWO_OF_AWS | {"AWS_BATCH_JOB_NODE_INDEX": "1"},
            "host unknown, this host's own address, which the other ranks are told",
            [],
        ),
        ({}, "host unknown\n", []),
    ],
    ids=["asked", "in one way", "in no way", "for an id", "for nothing", "rank 0 is not told", "alone"],
)
def test_explain_shows_how_what_is_unknown_will_be_found(env: dict[str, str], found: str, asked: list[str]) -> None:
    explanation = explain(env=env)
    lines = "".join(f"{' '.join(line.split())}\n" for line in str(explanation).splitlines())
    assert f"\n{found}" in lines
    assert explanation.to_dict()["will_be_asked"] == asked


def test_every_refusal_ends_with_the_way_to_a_single_process() -> None:
    alone = 'for one process alone, in a notebook too, export COLOSSALAI_ENV_RESOLVER=single-process or pass resolver="'
    error = NotLaunched("acme", "this is its script", (("ACME_RUN", "7"),), "start the processes with acmerun")
    assert str(error).startswith(f"acme: this is its script (ACME_RUN='7'): start the processes with acmerun; {alone}")
    pod = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "1", "PET_NPROC_PER_NODE": "8"}
    with pytest.raises(NotLaunched, match=alone):
        resolve(env=pod)
    assert resolve(env=pod, resolver="single-process").world_size == 1


def test_a_main_node_is_for_launchers_that_count_nodes() -> None:
    with pytest.raises(ValueError, match=r"house: main_node and accelerators are for .* add counts_nodes=True"):
        Resolver(name="house", layer=Layer.MPI, detect="H", rank=var("H"), world_size=var("S"), main_node=var("M"))


def test_a_main_node_that_is_none_of_the_nodes_is_named() -> None:
    with pytest.raises(
        ContradictoryVariables, match=r"of 2 nodes, .* none is number 2 .*AWS_BATCH_JOB_MAIN_NODE_INDEX='2'"
    ):
        resolve(env=TWO_OF_AWS | {"AWS_BATCH_JOB_NODE_INDEX": "0", "AWS_BATCH_JOB_MAIN_NODE_INDEX": "2"})
