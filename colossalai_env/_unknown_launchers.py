"""Marks of launchers that no installed resolver knows: a process with one is not taken for a single one in silence.

This table is the one place where the core names launchers. A row gives way to a resolver that reads its mark. Facts:
runs of GridEngine 8.1, Ray 2.60, PRRTE 5, MPICH 5 and Lightning 2.6; the sources of Kubeflow's mpi-operator 0.8 and of
Determined 0.38; for all others their documentation.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from .environ import Environ
from .errors import NotLaunched
from .resolver import Resolver
from .spec import whole_number

BY_RANK = (
    "install a plugin that does, start the processes with torchrun or srun, or give each one --rank, --world_size, "
    "--host and --port"
)

BODY = "start the processes with mpirun, or torchrun once on each host"

ON_NODE = "this is one of {count} nodes, and no installed resolver reads this platform's variables"

Count: TypeAlias = Callable[[Environ], int | None]
"""Returns how many processes or nodes there are; ``None`` where no variable says it, 1 where the row does not apply."""


def unsaid(environ: Environ) -> int | None:
    """Return None: no variable states how many there are."""
    del environ
    return None


def number(name: str) -> Count:
    """Read a variable that holds the number."""

    def count(environ: Environ) -> int | None:
        try:
            return whole_number(environ.get(name) or "")
        except ValueError:
            return None

    return count


def several_on(name: str, separator: str | None = ",") -> Count:
    """Count the entries of a list."""
    return lambda environ: len((environ.get(name) or "").split(separator)) or None


def _json(name: str, environ: Environ) -> Any:  # noqa: ANN401 - whatever the text holds
    try:
        return json.loads(environ.get(name) or "")
    except ValueError:
        return None


def in_json_list(name: str) -> Count:
    """Count the entries of a JSON list."""

    def count(environ: Environ) -> int | None:
        try:
            return len(_json(name, environ))
        except TypeError:
            return None

    return count


def tensorflow_tasks(environ: Environ) -> int | None:
    """Count the tasks of TF_CONFIG's cluster."""
    try:
        return sum(len(tasks) for tasks in _json("TF_CONFIG", environ)["cluster"].values()) or 1
    except (KeyError, TypeError, AttributeError):
        return 1


def torchruns_workers(environ: Environ) -> int | None:
    """Multiply torchrun's nodes and processes a node, where they are numbers; a range of nodes is several."""
    nodes, here = number("PET_NNODES")(environ), number("PET_NPROC_PER_NODE")(environ)
    return None if nodes is None else nodes * (1 if here is None else here)


def slots_of_trial(environ: Environ) -> int | None:
    """Read how many accelerators a trial has over all its containers, or else how many this container has."""
    asked = _json("DET_EXPERIMENT_CONFIG", environ)
    try:
        return int(asked["resources"]["slots_per_trial"]) or 1
    except (KeyError, TypeError, ValueError):
        return in_json_list("DET_SLOT_IDS")(environ) or 1


def lsf_hosts(environ: Environ) -> int | None:
    """Count the hosts of pairs such as ``host1 4 host2 4``."""
    return len((environ.get("LSB_MCPU_HOSTS") or "").split()) // 2 or None


def pmi_size(environ: Environ) -> int | None:
    """Read PMI_SIZE; what srun left there, in a shell inside of a step, is Slurm's, whose resolver has had its say."""
    return 1 if {"SLURM_JOB_ID", "PMI_JOBID"} <= environ.variables.keys() else number("PMI_SIZE")(environ)


def when(name: str, text: str) -> Count:
    """Apply the row where a variable holds this text."""
    return lambda environ: None if environ.get(name) == text else 1


def above_one(name: str) -> Count:
    """Apply the row where a number that counts from 1 is not the first."""
    return lambda environ: None if (number(name)(environ) or 0) > 1 else 1


class Mark(NamedTuple):
    """One launcher, or one place of it, and what tells it."""

    launcher: str
    marks: tuple[str, ...]
    """Variables, or options, that are all set; the first is the one that a resolver of this launcher reads."""
    how_many: Count = unsaid
    unless: tuple[str, ...] = ()
    """Variables of launchers that are told better by them."""
    place: str = "this process is one of {count}, and no installed resolver reads this launcher's variables"
    advice: str = BY_RANK
    shown: tuple[str, ...] = ()
    """What is shown besides the marks."""
    refused: bool = True
    """Whether a process alone cannot be meant; where it may be, there is a warning."""
    shared: bool = False
    """Whether launchers of several kinds set it, so that no resolver takes the row away."""
    listing: str = ""
    """A variable that names a file with a line for each slot of the job, where no variable says how many there are."""

    def applies(self, environ: Environ) -> bool:
        """Return whether the marks are there, and more than one process with them."""
        variables = environ.variables
        for mark in self.marks:
            if mark not in variables and not (mark.startswith("--") and mark in environ):
                return False
        return not any(name in variables for name in self.unless) and self.how_many(environ) != 1

    def found(self, environ: Environ) -> tuple[tuple[str, str], ...]:
        """Return the variables that tell it."""
        return environ.found(tuple(dict.fromkeys((*self.marks, *self.shown))))

    def sentence(self, environ: Environ) -> str:
        """Return where this process is."""
        return self.place.format(count=self.how_many(environ) or "several")

    def refusal(self, environ: Environ) -> NotLaunched:
        """Return the error."""
        return NotLaunched(self.launcher, self.sentence(environ), self.found(environ), self.advice)

    def warning(self, environ: Environ) -> str:
        """Return the warning of a process that is alone all the same."""
        values = ", ".join(f"{name}={text!r}" for name, text in self.found(environ))
        return f"{self.launcher}: {self.sentence(environ)} ({values}), so it is taken to be alone: {self.advice}"


def ranked(launcher: str, rank: str, size: str, **more: Any) -> Mark:  # noqa: ANN401 - fields of a Mark
    """Describe a launcher whose processes have a rank and a size."""
    return Mark(launcher, (rank,), number(size), shown=(size,), **more)


def on_nodes(platform: str, rank: str, size: str, count: Count | None = None, *, shared: bool = False) -> Mark:
    """Describe a platform that starts one command on each node."""
    nodes = "NODES" if count else f"${size}"
    advice = f"start torchrun --nnodes={nodes} --node-rank=${rank} --nproc-per-node=gpu --master-addr=ADDRESS train.py"
    return Mark(platform, (rank, size), count or number(size), place=ON_NODE, advice=advice, shared=shared)


LIGHTNING = Mark(
    "Lightning",
    ("NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"),
    number("WORLD_SIZE"),
    unless=("RANK",),
    place="Lightning's own launcher, or one like it, started this process or is about to start others, without a RANK",
    advice="start all processes with torchrun, so that Lightning starts none",
)

MARKS: tuple[Mark, ...] = (
    LIGHTNING,
    ranked("mpirun_rsh", "MPIRUN_RANK", "MPIRUN_NPROCS"),
    ranked("Platform MPI", "MPI_RANKID", "MPI_NRANKS"),
    ranked("ALPS", "ALPS_APP_PE", "PMI_SIZE"),
    Mark("PMI", ("PMI_RANK",), pmi_size, shown=("PMI_SIZE",), shared=True),
    Mark("PMI", ("PMI_ID",), pmi_size, shown=("PMI_PORT",), shared=True),
    ranked("JAX", "JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    ranked("PaddlePaddle", "PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM"),
    Mark("TensorFlow", ("TF_CONFIG",), tensorflow_tasks),
    Mark(
        "torchrun",
        ("PET_NNODES",),
        torchruns_workers,
        place="torchrun's input is set, for {count} processes, and torchrun did not start this one",
        advice="start torchrun train.py in place of python train.py: it reads these variables",
        shown=("PET_NPROC_PER_NODE", "PET_NODE_RANK"),
        shared=True,
    ),
    Mark(
        "Kubeflow's MPIJob",
        ("K_MPI_JOB_ROLE",),
        place="this is the launcher of an MPIJob, or a shell in one of its pods, and mpirun did not start it",
        advice="start the processes with mpirun in the launcher's pod: it knows the others",
        shown=("OMPI_MCA_orte_default_hostfile", "HYDRA_HOST_FILE", "I_MPI_HYDRA_HOST_FILE"),
    ),
    Mark(
        "Determined",
        ("DET_TRIAL_ID", "DET_SLOT_IDS"),
        slots_of_trial,
        place="this trial has {count} accelerators, and Determined says ranks in files alone",
        advice="make python3 -m determined.launch.torch_distributed python3 train.py the entry point",
        shown=("DET_ALLOCATION_ID",),
    ),
    Mark(
        "GridEngine",
        ("JOB_SCRIPT", "PE"),
        when("JOB_SCRIPT", "QRSH"),
        unless=("PE_HOSTFILE",),
        place="qrsh started this process as one of several, and gives no rank",
        advice=BODY,
    ),
    Mark(
        "GridEngine",
        ("PE_HOSTFILE", "NSLOTS", "NHOSTS"),
        number("NHOSTS"),
        place="this is the script of a job with slots on {count} hosts, not one of its tasks",
        advice=BODY,
    ),
    Mark(
        "GridEngine",
        ("PE_HOSTFILE", "NSLOTS"),
        number("NSLOTS"),
        place="this job has {count} slots on one host, which may be threads of one process",
        advice="if they are meant for processes, start these with torchrun or mpirun",
        refused=False,
    ),
    Mark(
        "PBS",
        ("PBS_TASKNUM",),
        above_one("PBS_TASKNUM"),
        place="pbsdsh started this process as one of several, and gives no rank",
        advice=BODY,
        shown=("PBS_JOBID",),
    ),
    Mark(
        "PBS",
        ("PBS_NUM_NODES",),
        number("PBS_NUM_NODES"),
        place="this is the script of a job with {count} nodes, not one of its tasks",
        advice=BODY,
        shown=("PBS_JOBID",),
    ),
    Mark(
        "PBS",
        ("PBS_NODEFILE", "PBS_JOBID"),
        place="this may be the script of a job with {count} hosts, which stand in a file",
        advice=BODY,
        unless=("PBS_NUM_NODES",),
        refused=False,
        listing="PBS_NODEFILE",
    ),
    Mark("LSF's blaunch", ("LSF_PM_TASKID", "LSB_JOBID"), number("LSB_DJOB_NUMPROC"), shown=("LSB_DJOB_NUMPROC",)),
    Mark(
        "LSF",
        ("LSB_MCPU_HOSTS",),
        lsf_hosts,
        place="this is the script of a job with slots on {count} hosts, not one of its tasks",
        advice="start the processes with jsrun or mpirun, or torchrun once on each host",
    ),
    Mark(
        "LSF",
        ("LSB_DJOB_NUMPROC",),
        number("LSB_DJOB_NUMPROC"),
        place="this job has {count} slots on one host, which may be threads of one process",
        advice="if they are meant for processes, start these with torchrun or mpirun",
        refused=False,
    ),
    on_nodes("Lepton", "LEPTON_JOB_WORKER_INDEX", "LEPTON_JOB_TOTAL_WORKERS"),
    on_nodes("Volcano Engine", "MLP_ROLE_INDEX", "MLP_WORKER_NUM"),
    on_nodes("ModelArts", "VC_TASK_INDEX", "MA_NUM_HOSTS", shared=True),
    on_nodes("a TPU pod", "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES", several_on("TPU_WORKER_HOSTNAMES")),
    Mark(
        "Kubernetes",
        ("JOB_COMPLETION_INDEX",),
        place="this pod is one of an Indexed Job or a JobSet, which says no number of pods",
        advice="if the pods are meant to be one world, give each RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
        refused=False,
    ),
    Mark(
        "Ray",
        ("RAY_RAYLET_PID",),
        place="this process is a worker, and its environment says no world",
        advice="if the workers are meant to be one world, give each rank, world_size, host and port",
        shown=("RAY_JOB_ID",),
        refused=False,
    ),
    *(
        Mark(
            "env://",
            (name,),
            place="this is set, and neither a rank nor a number of processes",
            advice="if this process is one of several, set RANK and WORLD_SIZE too, or start all with torchrun",
            refused=False,
            shared=True,
        )
        for name in ("MASTER_ADDR", "LOCAL_RANK", "NODE_RANK", "LOCAL_WORLD_SIZE")
    ),
    *(
        Mark(
            "torchrun",
            (option,),
            place="an option of torchrun stands among the script's own arguments, where torchrun does not read it",
            advice="if several processes are meant, type it before the script: torchrun --nproc-per-node=4 train.py",
            refused=False,
            shared=True,
        )
        for option in ("--nproc-per-node", "--nnodes", "--node-rank")
    ),
)
"""The innermost first."""

DAEMONS = ("RAY_RAYLET_PID",)
"""Variables of workers that a daemon starts: what launchers outside left there is the daemon's."""


def find(environ: Environ, resolvers: Callable[[], Iterable[object]]) -> Mark | None:
    """Return the first row that applies and that none of these resolvers, which are only then looked at, takes over."""
    for mark in MARKS:
        if mark.applies(environ) and (mark.shared or not any(_reads(resolver, mark) for resolver in resolvers())):
            return mark
    return None


def _reads(resolver: object, mark: Mark) -> bool:
    """Return whether a table reads a mark first of all: other names of a field are other launchers' too."""
    rows = resolver.rows() if isinstance(resolver, Resolver) else ()
    return any(item.names[0] == mark.marks[0] for _, row in rows for item in row.inputs())


def of_a_daemon(environ: Environ) -> bool:
    """Return whether a daemon started this process, so that nothing outside describes it."""
    return any(name in environ for name in DAEMONS)
