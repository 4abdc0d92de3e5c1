"""Launchers that no installed resolver knows: nobody they started is alone in silence."""

import pytest

from colossalai_env import explain, resolve
from colossalai_env._unknown_launchers import LIGHTNING, MARKS, Mark, find
from colossalai_env.errors import NotLaunched
from colossalai_env.resolver import Environ, Layer, NoMatch, Resolver, var
from colossalai_env.testing import Capture, captures

REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("Lightning", {"NODE_RANK": "0", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "torchrun"),
    ("mpirun_rsh", {"MPIRUN_RANK": "1", "MPIRUN_NPROCS": "4"}, "one of 4"),
    ("Platform MPI", {"MPI_RANKID": "1", "MPI_NRANKS": "4"}, "one of 4"),
    ("ALPS", {"ALPS_APP_PE": "3"}, "one of several"),
    ("PMI", {"PMI_RANK": "1", "PMI_SIZE": "3", "PMI_FD": "9"}, "one of 3"),
    ("PMI", {"PMI_RANK": "1", "PMI_SIZE": "3", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}, "one of 3"),
    ("PMI", {"PMI_ID": "1", "PMI_PORT": "a:1"}, "one of several"),
    ("JAX", {"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2"}, "one of 2"),
    ("PaddlePaddle", {"PADDLE_TRAINER_ID": "1", "PADDLE_TRAINERS_NUM": "2"}, "one of 2"),
    ("TensorFlow", {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 0}}'}, "one of 2"),
    ("torchrun", {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "auto", "PET_NODE_RANK": "1"}, "torchrun train.py"),
    ("torchrun", {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "8"}, "8 processes"),
    ("torchrun", {"PET_NNODES": "1:3", "PET_RDZV_ENDPOINT": "etcd"}, "several processes"),
    ("Kubeflow's MPIJob", {"K_MPI_JOB_ROLE": "launcher", "HYDRA_HOST_FILE": "/etc/mpi/hostfile"}, "mpirun"),
    ("Determined", {"DET_TRIAL_ID": "7", "DET_SLOT_IDS": "[0,1]"}, "determined.launch.torch_distributed"),
    ("Determined", {"DET_TRIAL_ID": "7", "DET_SLOT_IDS": "[0]",
                    "DET_EXPERIMENT_CONFIG": '{"resources": {"slots_per_trial": 16}}'}, "16 accelerators"),
    ("GridEngine", {"JOB_SCRIPT": "QRSH", "PE": "mpi", "NSLOTS": "2", "NHOSTS": "1"}, "gives no rank"),
    ("GridEngine", {"PE_HOSTFILE": "/h", "NSLOTS": "6", "NHOSTS": "3", "JOB_SCRIPT": "/j", "PE": "mpi"}, "3 hosts"),
    ("PBS", {"PBS_TASKNUM": "2", "PBS_JOBID": "7"}, "pbsdsh"),
    ("PBS", {"PBS_NUM_NODES": "2", "PBS_TASKNUM": "1"}, "2 nodes"),
    ("LSF's blaunch", {"LSF_PM_TASKID": "1", "LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "2"}, "one of 2"),
    ("LSF", {"LSB_MCPU_HOSTS": "a 4 b 4", "LSB_DJOB_NUMPROC": "8"}, "2 hosts"),
    ("Lepton", {"LEPTON_JOB_WORKER_INDEX": "1", "LEPTON_JOB_TOTAL_WORKERS": "2"}, "one of 2 nodes"),
    ("Volcano Engine", {"MLP_ROLE_INDEX": "1", "MLP_WORKER_NUM": "2"}, "one of 2 nodes"),
    ("ModelArts", {"VC_TASK_INDEX": "1", "MA_NUM_HOSTS": "2"}, "one of 2 nodes"),
    ("a TPU pod", {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b"}, "one of 2 nodes"),
]  # fmt: skip

DOUBTED: list[tuple[str, dict[str, str]]] = [
    ("PBS", {"PBS_NODEFILE": "/var/spool/pbs/aux/7.head", "PBS_JOBID": "7.head"}),
    ("GridEngine", {"PE_HOSTFILE": "/h", "NSLOTS": "8", "NHOSTS": "1"}),
    ("LSF", {"LSB_DJOB_NUMPROC": "4", "LSB_MCPU_HOSTS": "a 4"}),
    ("Kubernetes", {"JOB_COMPLETION_INDEX": "3"}),
    ("Ray", {"RAY_JOB_ID": "1", "RAY_RAYLET_PID": "7"}),
    ("env://", {"MASTER_ADDR": "a"}),
    ("env://", {"LOCAL_RANK": "1"}),
    ("env://", {"NODE_RANK": "1"}),
    ("env://", {"LOCAL_WORLD_SIZE": "2"}),
]

ALONE: list[dict[str, str]] = [
    {"WORLD_SIZE": "1"},
    {"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "1"},
    {"PALS_RANKID": "0", "PMI_RANK": "0", "PMI_SIZE": "1"},
    {
        "FLUX_TASK_RANK": "0",
        "FLUX_JOB_SIZE": "1",
        "PMI_RANK": "0",
        "PMI_SIZE": "1",
        "PMIX_RANK": "0",
        "PMIX_NAMESPACE": "ƒ7",
    },
    {"FLUX_ENCLOSING_ID": "f1", "FLUX_JOB_ID": "f2", "FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "1"},
    {"TF_CONFIG": '{"cluster": {"chief": ["a:1"]}}'},
    {"TF_CONFIG": "{"},
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "PMIX_RANK": "1", "PMIX_NAMESPACE": "slurm.pmix.6.0"},
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "PMI_RANK": "1", "PMI_SIZE": "3", "PMI_JOBID": "6.0", "PMI_FD": "9"},
    {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "auto"},
    {"PE_HOSTFILE": "/h", "NSLOTS": "1", "NHOSTS": "1", "JOB_SCRIPT": "/j", "PE": "smp"},
    {"PBS_NUM_NODES": "1", "PBS_NUM_PPN": "8", "PBS_TASKNUM": "1", "PBS_NODEFILE": "/n"},
    {"LSB_MCPU_HOSTS": "a 1", "LSB_DJOB_NUMPROC": "1", "LSB_JOBID": "7"},
    {"SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-1"},
    {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "1"},
    {"VC_TASK_INDEX": "0", "VC_TASK_NUM": "1"},
    {"DET_TRIAL_ID": "7", "DET_SLOT_IDS": "[0]", "DET_EXPERIMENT_CONFIG": '{"resources": {"slots_per_trial": 1}}'},
    {"DET_TRIAL_ID": "7", "DET_SLOT_IDS": "[]"},
    {"AZUREML_NODE_COUNT": "1"},
    {"DSTACK_NODE_RANK": "0", "DSTACK_NODES_NUM": "1", "DSTACK_MASTER_NODE_IP": ""},
    {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"},
]


@pytest.mark.parametrize(("launcher", "env", "words"), REFUSED, ids=lambda item: item if isinstance(item, str) else "")
def test_a_process_of_a_launcher_that_nobody_knows_is_refused_by_name(
    launcher: str, env: dict[str, str], words: str
) -> None:
    with pytest.raises(NotLaunched) as caught:
        resolve(env=env)
    refusal = str(caught.value)
    assert refusal.startswith(f"{launcher}: ")
    assert words in refusal
    assert 'COLOSSALAI_ENV_RESOLVER=single-process or pass resolver="single-process"' in refusal
    assert any(f"{name}={text!r}" in refusal for name, text in env.items())
    assert f"\nNotLaunched: {refusal}\n" in str(explain(env=env))


@pytest.mark.parametrize(("launcher", "env", "words"), REFUSED, ids=lambda item: item if isinstance(item, str) else "")
def test_a_process_that_is_told_who_it_is_or_that_it_is_alone_is_not_refused(
    launcher: str, env: dict[str, str], words: str
) -> None:
    del launcher, words
    assert resolve(env=env, rank=1, world_size=2, host="h", port=1).rank == 1
    assert resolve(env=env, resolver="single-process").world_size == 1
    chosen = explain(env=env | {"COLOSSALAI_ENV_RESOLVER": "single-process"}).resolution
    assert (chosen.spec().world_size, chosen.warnings) == (1, ())
    assert len(explain(env=env, rank=0, world_size=1).resolution.warnings) == 1


@pytest.mark.parametrize(("launcher", "env"), DOUBTED, ids=lambda item: item if isinstance(item, str) else "")
def test_where_a_process_alone_may_be_meant_there_is_one_warning(launcher: str, env: dict[str, str]) -> None:
    explanation = explain(env=env)
    (warning,) = explanation.resolution.warnings
    assert explanation.resolution.spec().world_size == 1
    assert warning.startswith(f"{launcher}: ")
    assert "so it is taken to be alone" in warning
    assert f"Warning: {warning}" in str(explanation)
    assert explanation.to_dict()["warnings"] == [warning]


@pytest.mark.parametrize("env", ALONE, ids=lambda env: next(iter(env)))
def test_a_launch_of_one_process_is_alone_without_a_word(env: dict[str, str]) -> None:
    resolution = explain(env=env).resolution
    assert (resolution.spec().world_size, resolution.warnings) == (1, ())


TYPED = [["--nproc-per-node", "4"], ["--nproc_per_node=4"], ["--nnodes", "2", "--node_rank", "1"], ["--node-rank=1"]]


@pytest.mark.parametrize("argv", TYPED, ids=" ".join)
def test_options_of_torchrun_behind_the_script_are_one_warning(argv: list[str]) -> None:
    (warning,) = explain(argv=argv).resolution.warnings
    assert "an option of torchrun stands among the script's own arguments" in warning
    assert "torchrun --nproc-per-node=4 train.py" in warning


EXAMPLES = (
    [Environ(env) for _, env, _ in REFUSED]
    + [Environ(env) for _, env in DOUBTED]
    + [Environ(argv=argv) for argv in TYPED]
)


def knows_better(environ: Environ) -> NoMatch:
    """One process was asked for."""
    del environ
    return NoMatch("one process")


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: f"{mark.launcher} {mark.marks[0]}")
def test_a_row_gives_way_to_a_resolver_that_reads_its_mark_unless_several_launchers_set_it(mark: Mark) -> None:
    rank, size = var(mark.marks[0]), var("SIZE")
    known = Resolver(name="known", layer=Layer.MPI, detect=knows_better, rank=rank, world_size=size)
    example = next(environ for environ in EXAMPLES if find(environ, list) is mark)
    assert (find(example, lambda: [known]) is mark) == mark.shared


def test_a_child_of_lightnings_launcher_in_a_rank_of_open_mpi_is_refused_by_name() -> None:
    ompi = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    child = {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0"}
    with pytest.raises(NotLaunched, match=r"Lightning: .*NODE_RANK='0', LOCAL_RANK='1', WORLD_SIZE='2'.*torchrun"):
        resolve(env=ompi | child)
    assert resolve(env=ompi | child | {"LOCAL_RANK": "0"}).resolver == "openmpi"
    assert LIGHTNING in MARKS


@pytest.mark.parametrize("capture", list(captures()), ids=lambda capture: capture.scenario)
def test_no_recorded_task_of_several_is_alone_in_silence(capture: Capture) -> None:
    for task in capture.tasks:
        found = explain(env=task.variables, argv=task.argv).resolution
        if task.truth.get("world_size", 1) > 1 and getattr(found.outcome, "world_size", 0) == 1:
            assert found.warnings
