"""The launches, as data: what is typed, where, and what is special about it."""

import re
from collections.abc import Mapping

import attrs

from .testbed import HEAD


@attrs.frozen
class Scenario:
    """One command line on the bed, which starts one launch, or several in parts."""

    name: str
    kind: str
    """Which launcher: srun, torchrun, or one that `launch.PROGRAMS` names."""
    options: str = ""
    """The launcher's options; {hosts222} and its like are hostfiles."""
    more: str = ""
    """The options of a second program in the same world."""
    outer: str = ""
    """``sbatch`` or ``salloc`` with its options, in whose body the launcher is called."""
    host: str = HEAD
    """Where the command is typed."""
    env: Mapping[str, str] = attrs.field(factory=dict[str, str])
    agents: tuple[tuple[str, str], ...] = ()
    """For torchrun on several hosts: host and options of each agent."""
    module: str = "torch.distributed.run"
    """The module that is the agent."""
    words: str = ""
    """Words after the probe's own."""
    torchrun: str = ""
    """torchrun's options, where the launcher starts torchrun."""
    script: str = ""
    """The body of an sbatch, with {srun:PART} for ``srun --label`` into a part and {probe:PART} for a bare process."""
    parts: tuple[str, ...] = ("",)
    """The parts that a script starts; a part that begins with ``body`` is no world."""
    several: bool = True
    """For a part that is no world: whether several tasks were asked for."""
    since: tuple[int, ...] = ()
    """The first release of Slurm that can do it."""

    @property
    def spans(self) -> bool:
        """Whether it starts a launch of Slurm's over several nodes."""
        world = any(not part.startswith("body") for part in self.parts)
        return world and bool(re.search(r"-N[2-9]|--nodelist=|-w \S+,", f"{self.outer} {self.options} {self.script}"))


def _srun(name: str, options: str, outer: str = "", since: tuple[int, ...] = ()) -> Scenario:
    return Scenario(f"slurm_{name}", "srun", options, outer=outer, since=since)


def _step_that_runs(command: str) -> str:
    """Return a script whose first step of three tasks runs a command in its task 1."""
    return f"srun -N1 -n3 sh -c 'test $SLURM_PROCID != 1 || {command}'"


SLURM = [
    _srun("block", "-N3 -n6 --exclusive --distribution=block"),
    _srun("cyclic", "-N3 -n6 --exclusive --distribution=cyclic"),
    _srun("plane", "-N3 -n6 --exclusive --distribution=plane=2"),
    _srun("plane_uneven", "-N2 -n5 --exclusive --distribution=plane=2"),
    _srun("default_packed", "-N3 -n6"),
    _srun("packed_uneven", "-N2 -n4"),
    _srun("one_task", "-n1"),
    _srun("one_node", "-N1 -n3"),
    _srun("two_per_node", "-N3 --ntasks-per-node=2"),
    _srun("cpus_per_task", "-N2 -n4 -c2 --exclusive"),
    _srun("overcommit", "-N2 -n6 -O"),
    _srun("numeric_names", "-p rack -N3 -n5 --exclusive"),
    _srun("named_nodes", "-w gpu-b07,gpu-a01 -n4 --exclusive"),
    _srun("excluded", "-x gpu-a01 -N2 -n4 --exclusive"),
    _srun("odd_name", "-p odd -N2 -n4 --exclusive"),
    _srun("pmi2", "-N3 -n6 --exclusive --mpi=pmi2"),
    _srun("pmix", "-N3 -n6 --exclusive --mpi=pmix"),
    _srun("kill_on_exit", "-N2 -n2 -K -W0"),
    _srun("gpus_per_task", "-N2 -n4 --ntasks-per-node=2 --gpus-per-task=1"),
    _srun("gpus_on_one_node", "-N1 -n4 --gpus=4"),
    _srun("gpu_bind_map", "-N1 -n4 --gpus=4 --gpu-bind=map_gpu:3,2,1,0"),
    _srun("gpu_bind_single", "-N2 -n4 --ntasks-per-node=2 --gpus-per-node=2 --gpu-bind=single:1"),
    Scenario(
        "slurm_arbitrary", "srun", "-n5 -m arbitrary --nodelist={list13121}", env={"SLURM_HOSTFILE": "{list13121}"}
    ),
    Scenario(
        "slurm_arbitrary_packed", "srun", "-n5 -m arbitrary,Pack --nodelist={list13121}",
        env={"SLURM_HOSTFILE": "{list13121}"},
    ),
    Scenario(
        "slurm_arbitrary_pmix", "srun", "-n5 -m arbitrary --mpi=pmix --nodelist={list13121}",
        env={"SLURM_HOSTFILE": "{list13121}"},
    ),
    Scenario(
        "slurm_arbitrary_on_two", "srun", "-n3 -m arbitrary --nodelist={list121}", env={"SLURM_HOSTFILE": "{list121}"}
    ),
    _srun("block_packed", "-N3 -n6 -m block,Pack"),
    _srun("block_spread", "-N3 -n6 --exclusive -m *,NoPack"),
    _srun("cyclic_packed", "-N3 -n6 --exclusive -m cyclic,Pack"),
    _srun("block_of_sockets", "-N3 -n6 --exclusive -m block:cyclic"),
    _srun("cyclic_of_sockets", "-N3 -n6 --exclusive -m cyclic:block"),
    _srun("one_per_node", "-N3 -n3 --exclusive"),
    _srun("all_nodes", "-p all -N7 -n9 --exclusive"),
    _srun("rack_by_names", "-p all -w rack1-n10,rack1-n9,gpu-a02,cn001 -n6 --exclusive"),
    _srun("no_memory", "-N3 -n6 --exclusive --mem=0"),
    _srun("external", "--external-launcher -N2 -n4 --exclusive", since=(24, 11)),
    _srun("fewer_than_nodes", "-n2", outer="sbatch -N3 -n6 --exclusive"),
    _srun("as_many_as_nodes", "-n3", outer="sbatch -N3 -n6 --exclusive"),
    _srun("in_sbatch_cyclic", "", outer="sbatch -N3 -n6 --exclusive -m cyclic"),
    _srun("in_sbatch", "", outer="sbatch -N3 -n6 --exclusive"),
    _srun("in_sbatch_nodes_only", "-n4", outer="sbatch -N2 --exclusive"),
    _srun("in_salloc", "", outer="salloc -N3 -n6 --exclusive"),
    _srun("subset", "-N1 -n2 -w gpu-a02", outer="sbatch -N3 -n6 --exclusive"),
    _srun("relative", "-N2 -n3 -r1", outer="sbatch -N3 -n6 --exclusive"),
    _srun("overlap", "-N2 -n4 --overlap", outer="sbatch -N3 -n6 --exclusive"),
    _srun("preserve_env", "--preserve-env -N2 -n2", outer="sbatch -N3 -n6 --exclusive"),
    _srun("preserve_env_same", "--preserve-env", outer="sbatch -N3 -n6 --exclusive"),
    Scenario(
        "slurm_concurrent_steps", "srun", outer="sbatch -N2 -n4 --exclusive",
        script="{srun:a} --exact -N1 -n2 PROBE & {srun:b} --exact -N1 -n2 PROBE & wait", parts=("a", "b"),
    ),
    Scenario(
        "slurm_later_steps", "srun", outer="sbatch -N2 -n4 --exclusive",
        script="{srun:a} PROBE; {srun:b} -N1 -n1 PROBE; {srun:c} -N2 -n3 PROBE", parts=("a", "b", "c"),
    ),
    Scenario(
        "slurm_array", "srun", outer="sbatch -N1 -n2 --array=0-1 --exclusive",
        script="case $SLURM_ARRAY_TASK_ID in 0) {srun:a} PROBE;; 1) {srun:b} PROBE;; esac", parts=("a", "b"),
    ),
    Scenario(
        "slurm_heterogeneous", "srun", outer="sbatch -N1 -n2 --exclusive : -N2 -n4 --exclusive",
        script="{srun:both} --het-group=0,1 PROBE; {srun:first} --het-group=0 PROBE; "
        "{srun:second} --het-group=1 PROBE",
        parts=("both", "first", "second"),
    ),
    Scenario(
        "slurm_heterogeneous_colon", "srun", outer="sbatch -N1 -n2 --exclusive : -N2 -n4 --exclusive",
        script="{srun:both} PROBE : PROBE", parts=("both",),
    ),
    Scenario(
        "slurm_heterogeneous_other_order", "srun",
        outer="sbatch -w gpu-b07 -N1 -n2 --exclusive : -w gpu-a[01-02] -N2 -n3 --exclusive",
        script="{srun:both} --het-group=0,1 PROBE; {srun:cyclic} -m cyclic --het-group=0,1 PROBE; "
        "{srun:second} --het-group=1 PROBE",
        parts=("both", "cyclic", "second"),
    ),
    Scenario(
        "slurm_heterogeneous_wide", "srun",
        outer="sbatch -w gpu-a02,gpu-b07 -N2 -n3 --exclusive : -w gpu-a01 -N1 -n2 --exclusive",
        script="{srun:block} --het-group=0,1 PROBE; {srun:cyclic} -m cyclic --het-group=0,1 PROBE",
        parts=("block", "cyclic"),
    ),
    Scenario(
        "slurm_heterogeneous_later", "srun", outer="sbatch -p rack -N1 -n1 : -p gpu -N3 -n6 --exclusive",
        script="{srun:nodes} --het-group=1 PROBE", parts=("nodes",),
    ),
    Scenario(
        "slurm_heterogeneous_of_three", "srun",
        outer="sbatch -w gpu-b07 -N1 -n1 --exclusive : -w gpu-a02 -n1 --exclusive : -w gpu-a01 -n2 --exclusive",
        script="{srun:all} --het-group=0,1,2 PROBE; {srun:last} --het-group=1,2 PROBE", parts=("all", "last"),
    ),
    Scenario("slurm_batch_body", "srun", outer="sbatch -N3 -n6", script="{probe:body}", parts=("body",)),
    Scenario("slurm_batch_body_nodes_only", "srun", outer="sbatch -N2", script="{probe:body}", parts=("body",)),
    Scenario(
        "slurm_batch_body_one_task", "srun", outer="sbatch -n1", script="{probe:body}", parts=("body",), several=False
    ),
    Scenario("slurm_salloc_shell", "srun", outer="salloc -N3 -n6", script="{probe:body}", parts=("body",)),
    Scenario(
        "slurm_salloc_shell_one_task", "srun", outer="salloc -n1", script="{probe:body}", parts=("body",),
        several=False,
    ),
    Scenario(
        "slurm_ssh_into_a_job", "srun", outer="salloc -N2 -n4", script="{ssh} gpu-a02 {probe:body}",
        parts=("body",), several=False,
    ),
    Scenario(
        "slurm_interactive_step", "srun", outer="salloc -N2 -n4",
        script="srun --interactive --preserve-env {probe:body}", parts=("body",),
    ),
    Scenario(
        "slurm_sbatch_in_step", "srun", outer="sbatch -N2 -n3 --exclusive",
        script="{srun:a} PROBE; srun -N2 -n3 sh -c 'test $SLURM_PROCID != 1 || "
        "sbatch --wait -p rack -N1 -o /dev/null {folder}/inner.sh'", parts=("a", "body"),
    ),
    Scenario(
        "slurm_array_over_nodes", "srun", outer="sbatch -N3 -n6 --array=3,5 --exclusive",
        script="case $SLURM_ARRAY_TASK_ID in 3) {srun:a} PROBE;; 5) {srun:b} PROBE;; esac", parts=("a", "b"),
    ),
    Scenario(
        "slurm_batch_body_one_gpu", "srun", outer="sbatch --gpus=1", script="{probe:body}", parts=("body",),
        several=False,
    ),
    Scenario(
        "slurm_batch_body_of_an_array", "srun", outer="sbatch -n1 --array=3,5",
        script="test $SLURM_ARRAY_TASK_ID = 3 || exit 0; {probe:body}", parts=("body",), several=False,
    ),
    Scenario(
        "slurm_interactive_step_one_task", "srun", outer="salloc -n1",
        script="srun --interactive --preserve-env {probe:body}", parts=("body",), several=False,
    ),
    Scenario(
        "slurm_salloc_in_batch", "srun", outer="sbatch -n2", script="salloc -p rack -N2 -n3 sh {folder}/inner.sh",
        parts=("body",),
    ),
    Scenario(
        "slurm_salloc_one_task_in_batch", "srun", outer="sbatch -n2", script="salloc -p rack -n1 sh {folder}/inner.sh",
        parts=("body",), several=False,
    ),
    Scenario(
        "slurm_sbatch_one_task_in_batch", "srun", outer="sbatch -n2",
        script="sbatch -p rack -n1 -o /dev/null {folder}/inner.sh; until ls {folder}/body/*.json; do sleep 0.1; done",
        parts=("body",), several=False,
    ),
    Scenario(
        "slurm_sbatch_one_task_in_step", "srun", outer="salloc -n3", parts=("body",), several=False,
        script=_step_that_runs("sbatch --wait -p rack -n1 -o /dev/null {folder}/inner.sh"),
    ),
    Scenario(
        "slurm_salloc_one_task_in_step", "srun", outer="salloc -n3", parts=("body",), several=False,
        script=_step_that_runs("salloc -p rack -n1 sh {folder}/inner.sh"),
    ),
    Scenario(
        "slurm_salloc_in_step", "srun", outer="salloc -n3", parts=("body",),
        script=_step_that_runs("salloc -p rack -N1 -n2 sh {folder}/inner.sh"),
    ),
    Scenario(
        "slurm_salloc_alike_in_step", "srun", outer="salloc -n3", parts=("body",),
        script=_step_that_runs("salloc -p rack -N1 -n3 sh {folder}/inner.sh"),
    ),
    Scenario(
        "slurm_salloc_over_nodes_in_step", "srun", outer="salloc -n3", parts=("body",),
        script=_step_that_runs("salloc -p rack -N2 -n4 sh {folder}/inner.sh"),
    ),
    Scenario(
        "slurm_salloc_here_in_step", "srun", outer="salloc -n3 -w gpu-a01", parts=("body",),
        script=_step_that_runs("salloc -w gpu-a01 -n2 sh {folder}/inner.sh"),
    ),
    Scenario(
        "slurm_other_job_in_step", "srun", outer="salloc -n3", parts=("a",),
        script=_step_that_runs("( unset SLURM_JOB_ID SLURM_JOBID; {srun:a} -p rack -N2 -n3 PROBE )"),
    ),
    Scenario(
        "slurm_step_in_step", "srun", outer="salloc -N2 -n4 --exclusive", parts=("a",),
        script=_step_that_runs("{srun:a} --overlap -N2 -n4 PROBE"),
    ),
    Scenario(
        "slurm_step_in_salloc_in_step", "srun", outer="salloc -n3", parts=("a",),
        script=_step_that_runs("salloc -p rack -N2 -n3 {srun:a} PROBE"),
    ),
]  # fmt: skip

HOSTFILES = {
    "hosts222": "gpu-a01 slots=2\ngpu-a02 slots=2\ngpu-b07 slots=2\n",
    "hosts132": "gpu-b07 slots=1\ngpu-a01 slots=3\ngpu-a02 slots=2\n",
    "list222": "gpu-a01:2\ngpu-a02:2\ngpu-b07:2\n",
    "list132": "gpu-b07:1\ngpu-a01:3\ngpu-a02:2\n",
    "list121": "gpu-b07\ngpu-a01\ngpu-b07\n",
    "list13121": "gpu-b07\ngpu-a01\ngpu-b07\ngpu-a02\ngpu-b07\n",
}
"""The first two as Open MPI reads them, then as Hydra does, then as srun's arbitrary distribution does."""


def _open_mpi(kind: str, *only: str) -> list[Scenario]:
    crowd = "--oversubscribe" if kind < "openmpi5" else "--map-by :OVERSUBSCRIBE"
    options = {
        "slot": "--hostfile {hosts222} -np 6",
        "node": "--hostfile {hosts222} -np 6 --map-by node",
        "uneven": "--hostfile {hosts132} -np 6",
        "uneven_by_node": "--hostfile {hosts132} -np 4 --map-by node",
        "ranked_by_node": "--hostfile {hosts132} -np 6 --map-by slot --rank-by node",
        "part": "--hostfile {hosts222} -np 3",
        "ppr": "--hostfile {hosts222} -np 3 --map-by ppr:1:node",
        "hosts": "--host gpu-a02:2,gpu-a01:1 -np 3",
        "one_remote_host": "--host gpu-b07:4 -np 4",
        "crowded": f"--host gpu-a01:1,gpu-a02:1 -np 5 {crowd}",
        "one": "--host gpu-a01:1 -np 1",
    }
    every = [
        *(Scenario(f"{kind}_{name}", kind, words) for name, words in options.items()),
        Scenario(f"{kind}_two_programs", kind, "--hostfile {hosts222} -np 2", more="-np 3"),
        Scenario(f"{kind}_here", kind, f"-np 3 {crowd}", host="gpu-a02"),
        Scenario(f"{kind}_in_sbatch", kind, outer="sbatch -N3 -n6 --exclusive"),
        Scenario(f"{kind}_in_salloc", kind, outer="salloc -N3 -n6 --exclusive"),
    ]
    return [scenario for scenario in every if not only or scenario.name.removeprefix(f"{kind}_") in only]


OWN = {"mpich": "-launcher", "mpich43": "-launcher", "impi": "-bootstrap"}
"""How Hydra is told to start its proxies by srun, whose variables the ranks then inherit."""


def _hydra(kind: str, *only: str) -> list[Scenario]:
    options = {
        "wrapped": "-hosts gpu-a01,gpu-a02,gpu-b07 -ppn 1 -n 6",
        "ppn2": "-hosts gpu-a01,gpu-a02,gpu-b07 -ppn 2 -n 6",
        "ppn3_uneven": "-hosts gpu-a01,gpu-a02 -ppn 3 -n 5",
        "hostfile": "-f {list222} -n 6",
        "uneven": "-machinefile {list132} -n 6",
        "other_order": "-hosts gpu-b07,gpu-a01 -ppn 1 -n 2",
        "one_remote_host": "-hosts gpu-b07 -n 3",
        "one": "-hosts gpu-a01 -n 1",
    }
    outer = {"sbatch": "sbatch -N3 -n6 --exclusive", "salloc": "salloc -N3 -n6 --exclusive"}
    every = [
        *(Scenario(f"{kind}_{name}", kind, words) for name, words in options.items()),
        Scenario(f"{kind}_two_programs", kind, "-hosts gpu-b07,gpu-a01 -ppn 2 -n 3", more="-n 2"),
        Scenario(f"{kind}_here", kind, "-n 3", host="gpu-a02"),
        *(
            Scenario(f"{kind}_by_srun_in_{name}", kind, f"{OWN[kind]} slurm -ppn 2 -n 6", outer=words)
            for name, words in outer.items()
        ),
        *(
            Scenario(f"{kind}_in_{name}", kind, "-hosts gpu-a01,gpu-a02,gpu-b07 -ppn 2 -n 6", outer=words)
            for name, words in outer.items()
        ),
    ]
    return [scenario for scenario in every if not only or scenario.name.removeprefix(f"{kind}_") in only]


GFORKER = [
    Scenario("gforker_here", "gforker", "-n 3", host="gpu-a02"),
    Scenario("gforker_two_programs", "gforker", "-n 1", host="gpu-a02", more="-n 2"),
    Scenario("gforker_in_sbatch", "gforker", "-n 3", outer="sbatch -N2 -n4 --exclusive"),
]


C10D = "--rdzv-backend c10d --rdzv-id bed --rdzv-endpoint gpu-a01:29500"
STATIC = "--master-addr gpu-a01 --master-port 29500"

TORCHRUN = [
    Scenario("torchrun_standalone", "torchrun", agents=(("gpu-a01", "--standalone --nproc-per-node 2"),)),
    Scenario("torchrun_one", "torchrun", agents=(("gpu-a01", "--standalone --nproc-per-node 1"),)),
    Scenario(
        "torchrun_c10d", "torchrun",
        agents=tuple((host, f"--nnodes 2 --nproc-per-node 2 {C10D}") for host in ("gpu-a01", "gpu-a02")),
    ),
    Scenario(
        "torchrun_c10d_uneven", "torchrun",
        agents=tuple((host, f"--nnodes 2 --nproc-per-node {n} {C10D}") for host, n in (("gpu-a01", 1), ("gpu-a02", 3))),
    ),
    Scenario(
        "torchrun_static", "torchrun",
        agents=tuple(
            (host, f"--nnodes 2 --node-rank {n} --nproc-per-node 2 {STATIC}")
            for n, host in enumerate(("gpu-a01", "gpu-a02"))
        ),
    ),
    Scenario(
        "torchrun_two_agents_on_a_host", "torchrun",
        agents=tuple(("gpu-a01", f"--nnodes 2 --nproc-per-node {n} {C10D}") for n in (1, 2)),
    ),
    Scenario(
        "torchrun_in_srun", "srun", "-N2 -n2 --ntasks-per-node=1 --exclusive",
        torchrun=f"--nnodes 2 --nproc-per-node 2 {C10D}",
    ),
    Scenario(
        "torchrun_in_sbatch_srun", "srun", "--ntasks-per-node=1", outer="sbatch -N2 -n2 --exclusive",
        torchrun=f"--nnodes 2 --nproc-per-node 2 {C10D}",
    ),
    Scenario(
        "torchrun_in_openmpi4", "openmpi4", "-x LOGLEVEL --host gpu-a01:1,gpu-a02:1 -np 2",
        torchrun=f"--nnodes 2 --nproc-per-node 2 {C10D}",
    ),
    Scenario(
        "torchrun_restarted", "torchrun", words="--fail-once",
        agents=(("gpu-a01", "--standalone --nproc-per-node 2 --max-restarts 1"),),
    ),
    Scenario(
        "torchrun_launch_module", "torchrun", module="torch.distributed.launch",
        agents=(("gpu-a01", "--nproc-per-node 2 --master-port 29500"),),
    ),
    Scenario(
        "torchrun_in_openmpi5", "openmpi5", "-x LOGLEVEL --host gpu-a01:1,gpu-a02:1 -np 2",
        torchrun=f"--nnodes 2 --nproc-per-node 2 {C10D}",
    ),
    Scenario(
        "torchrun_in_impi", "impi", "-hosts gpu-a01,gpu-a02 -ppn 1 -n 2",
        torchrun=f"--nnodes 2 --nproc-per-node 2 {C10D}",
    ),
    Scenario(
        "torchrun_in_mpich", "mpich", "-hosts gpu-a01,gpu-a02 -ppn 1 -n 2",
        torchrun=f"--nnodes 2 --nproc-per-node 2 {C10D}",
    ),
]  # fmt: skip

SCENARIOS = [
    *SLURM,
    *_open_mpi("openmpi4", "slot", "uneven_by_node", "crowded", "in_sbatch"),
    *_open_mpi("openmpi418", "uneven", "ranked_by_node", "two_programs", "in_salloc"),
    *_open_mpi("openmpi5"),
    *_hydra("mpich43", "wrapped", "uneven", "in_sbatch"),
    *_hydra("mpich"),
    *_hydra("impi"),
    *GFORKER,
    *TORCHRUN,
]
"""Each family's newest in full, and a few launches of the older ones, of which there are recordings too."""
