"""The contract, for platforms that start one process on each node."""

import pytest
from colossalai_env_aws_batch import AWS_BATCH
from colossalai_env_azureml import AZUREML
from colossalai_env_dstack import DSTACK
from colossalai_env_kubeflow import KUBEFLOW
from colossalai_env_sagemaker import SAGEMAKER
from colossalai_env_skypilot import SKYPILOT
from colossalai_env_volcano import VOLCANO

from colossalai_env import resolve
from colossalai_env.errors import MalformedVariable, NotLaunched
from colossalai_env.resolver import Environ
from colossalai_env.testing import ResolverContract
from colossalai_env.testing.strategies import TOKENS
from tests.plugins.nesting import OfPlatforms

STATED: dict[str, tuple[dict[str, str], dict[str, object]]] = {
    "kubeflow": ({"PET_NODE_RANK": "2", "PET_NNODES": "3", "PET_MASTER_ADDR": "j-0", "PET_MASTER_PORT": "29400"},
     {"host": "j-0", "port": 29400}),
    "sagemaker": ({"SM_HOSTS": '["algo-1","algo-2","algo-3"]', "SM_CURRENT_HOST": "algo-3", "TRAINING_JOB_NAME": "j"},
     {"host": "algo-1", "job_id": "j"}),
    "azureml": ({"AZ_BATCHAI_TASK_INDEX": "2", "AZUREML_NODE_COUNT": "3", "AZ_BATCH_MASTER_NODE": "10.0.0.4:6000",
                 "AZUREML_RUN_ID": "j"}, {"host": "10.0.0.4", "port": 6000, "job_id": "j"}),
    "aws-batch": ({"AWS_BATCH_JOB_NODE_INDEX": "2", "AWS_BATCH_JOB_NUM_NODES": "3", "AWS_BATCH_JOB_ID": "j#2",
                   "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0", "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.4"},
     {"host": "10.0.0.4", "job_id": "j"}),
    "skypilot": ({"SKYPILOT_NODE_RANK": "2", "SKYPILOT_NUM_NODES": "3", "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5\n",
                  "SKYPILOT_TASK_ID": "j"}, {"host": "10.0.0.4", "job_id": "j"}),
    "dstack": ({"DSTACK_NODE_RANK": "2", "DSTACK_NODES_NUM": "3", "DSTACK_MASTER_NODE_IP": "10.0.0.4",
                "DSTACK_RUN_ID": "j"}, {"host": "10.0.0.4", "job_id": "j"}),
    "volcano": ({"VC_TASK_INDEX": "2", "VC_WORKER_NUM": "3", "VC_WORKER_HOSTS": "j-worker-0.j,j-worker-1.j"},
     {"host": "j-worker-0.j"}),
}  # fmt: skip
"""What node 2 of 3 finds on each platform, and what it means besides."""

ACCELERATORS = {
    "dstack": "DSTACK_GPUS_PER_NODE",
    "sagemaker": "SM_NUM_GPUS",
    "skypilot": "SKYPILOT_NUM_GPUS_PER_NODE",
}
"""Where a platform states how many accelerators a node has."""


class Platform(OfPlatforms):
    """The further laws of a platform's contract."""

    def test_each_field_is_read_from_its_variable(self) -> None:
        node, fields = STATED[self.resolver.name]
        spec = resolve(env=node)
        assert (spec.resolver, spec.rank, spec.world_size) == (self.resolver.name, 2, 3)
        assert (spec.local_rank, spec.local_world_size, spec.node_rank, spec.num_nodes) == (0, 1, 2, 3)
        assert {field: getattr(spec, field) for field in fields} == fields

    def test_one_process_a_node_is_a_world_but_not_where_a_node_has_several_accelerators(self) -> None:
        node, fields = STATED[self.resolver.name]
        variable = ACCELERATORS.get(self.resolver.name)
        spec = resolve(env={**node, "LOCAL_RANK": "0"})
        assert spec == resolve(env=node)
        if variable is None:
            return
        assert spec == resolve(env={**node, variable: "1"}) == resolve(env={**node, variable: "8", "LOCAL_RANK": "0"})
        with pytest.raises(NotLaunched) as caught:
            resolve(env={**node, variable: "8"})
        rank = "2" if self.resolver.name == "sagemaker" else f"${next(iter(node))}"
        where = f"--master-addr={fields['host']} --master-port={spec.port if 'port' in fields else 29500}"
        assert f"torchrun --nnodes=3 --node-rank={rank} --nproc-per-node=8 {where} train.py" in str(caught.value)
        assert f"{variable}='8'" in str(caught.value)
        assert "export LOCAL_RANK=0" in str(caught.value)


class TestKubeflow(Platform, ResolverContract):
    resolver = KUBEFLOW

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        return None if name == "PET_NPROC_PER_NODE" or environ.get("PET_NNODES") == "1" else False

    def test_what_torchrun_is_to_start_is_torchruns(self) -> None:
        pod = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "j-node-0-0.j", "PET_MASTER_PORT": "29400"}
        assert resolve(env={**pod, "PET_NPROC_PER_NODE": "1"}).resolver == "kubeflow"
        for other in ({"PET_NPROC_PER_NODE": "8"}, {"PET_NPROC_PER_NODE": "auto"}, {"PET_RDZV_ENDPOINT": "e"}):
            with pytest.raises(NotLaunched, match=r"torchrun train\.py in place of python train\.py"):
                resolve(env={**pod, **other})


class TestSagemaker(Platform, ResolverContract):
    resolver = SAGEMAKER

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name == "TRAINING_JOB_NAME"

    def test_several_neuron_cores_are_several_accelerators(self) -> None:
        two = {"SM_HOSTS": '["algo-1","algo-2"]', "SM_CURRENT_HOST": "algo-2", "SM_NUM_GPUS": "0"}
        assert resolve(env={**two, "SM_NUM_NEURONS": "1"}).rank == 1
        with pytest.raises(NotLaunched, match=r"--nnodes=2 --node-rank=1 --nproc-per-node=32 --master-addr=algo-1 "):
            resolve(env={**two, "SM_NUM_NEURONS": "32"})


class TestAzureml(Platform, ResolverContract):
    resolver = AZUREML

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return True if name == "AZUREML_RUN_ID" else None

    def test_the_other_name_of_a_nodes_number_is_read_too(self) -> None:
        node = {"AZUREML_NODE_COUNT": "2", "AZ_BATCH_MASTER_NODE": "10.0.0.4:6000", "NODE_RANK": "1"}
        spec = resolve(env=node)
        assert (spec.rank, spec.world_size, spec.host, spec.port) == (1, 2, "10.0.0.4", 6000)
        assert resolve(env={**node, "AZ_BATCHAI_TASK_INDEX": "0"}).rank == 0

    def test_several_main_instances_are_malformed(self) -> None:
        node = {"AZUREML_NODE_COUNT": "2", "AZ_BATCHAI_TASK_INDEX": "1"}
        with pytest.raises(MalformedVariable, match="AZ_BATCH_MASTER_NODE"):
            resolve(env={**node, "AZ_BATCH_MASTER_NODE": "10.0.0.4:6000,10.0.0.5:6000"})

    def test_a_job_of_one_instance_is_alone(self) -> None:
        spec = resolve(env={"AZUREML_NODE_COUNT": "1", "AZUREML_RUN_ID": "r"})
        assert (spec.resolver, spec.world_size) == ("single-process", 1)


class TestAwsBatch(Platform, ResolverContract):
    resolver = AWS_BATCH
    job_ids = TOKENS

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        del environ
        return name == "AWS_BATCH_JOB_ID"

    def test_the_main_node_is_rank_0_and_the_others_keep_their_order(self) -> None:
        job = {"AWS_BATCH_JOB_NUM_NODES": "4", "AWS_BATCH_JOB_MAIN_NODE_INDEX": "2"}
        child = {"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.7"}
        specs = [
            resolve(env={**job, "AWS_BATCH_JOB_NODE_INDEX": str(node), **({} if node == 2 else child)})
            for node in range(4)
        ]
        assert [spec.rank for spec in specs] == [1, 2, 0, 3]
        assert [spec.host for spec in specs] == ["10.0.0.7", "10.0.0.7", None, "10.0.0.7"]


class TestSkypilot(Platform, ResolverContract):
    resolver = SKYPILOT

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        if name == "SKYPILOT_NODE_IPS":
            return environ.get("SKYPILOT_NUM_NODES") == "1"
        return name in {"SKYPILOT_TASK_ID", "SKYPILOT_NUM_GPUS_PER_NODE"}


class TestDstack(Platform, ResolverContract):
    resolver = DSTACK

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        if name == "DSTACK_MASTER_NODE_IP":
            return environ.get("DSTACK_NODES_NUM") == "1"
        return name in {"DSTACK_RUN_ID", "DSTACK_GPUS_PER_NODE"}

    def test_the_runs_name_serves_where_dstack_is_too_old_to_say_its_id(self) -> None:
        node = {"DSTACK_NODE_RANK": "0", "DSTACK_NODES_NUM": "1", "DSTACK_RUN_NAME": "n", "DSTACK_MASTER_NODE_IP": ""}
        assert resolve(env=node).job_id == "n"
        assert resolve(env={**node, "DSTACK_RUN_ID": "i"}).job_id == "i"


class TestVolcano(Platform, ResolverContract):
    resolver = VOLCANO

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        return name == "VC_WORKER_HOSTS" and environ.get("VC_WORKER_NUM") == "1"

    def test_several_tasks_are_refused_with_the_question(self) -> None:
        pod = {"VC_TASK_INDEX": "0", "VC_MASTER_NUM": "1", "VC_WORKER_NUM": "2", "VC_WORKER_HOSTS": "a,b"}
        with pytest.raises(NotLaunched, match=r"which pods come first is not said .*VC_MASTER_NUM='1'.*plugin pytorch"):
            resolve(env=pod)
