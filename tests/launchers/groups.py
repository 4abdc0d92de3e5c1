"""Process groups on the bed, as data: a launcher, how it is typed, and where rank 0 must be."""

import attrs

V3 = "gpu-b07,gpu-a01,gpu-a02"
OMPI3 = "--host gpu-b07:1,gpu-a01:1,gpu-a02:1 -np 3"
HYDRA3 = f"-hosts {V3} -ppn 1 -n 3"
AGENT = "--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id bed --rdzv-endpoint gpu-a01:29500"


@attrs.frozen
class Group:
    """One job that forms a process group."""

    name: str
    kind: str
    options: str
    rank0: str
    """The host on which rank 0 runs."""
    size: int = 3
    script: tuple[str, ...] = ()
    """Words after the script, for the ranks' own command line."""
    exported: tuple[str, ...] = ()
    """Variables that are set for all ranks."""
    cold: bool = False
    """Whether its ranks import torch themselves: Hydra's channel is for the process alone that it started."""
    torchrun: str = ""
    agents: tuple[tuple[str, str], ...] = ()


GROUPS = [
    Group("srun_block", "srun", "-N3 -n3 --exclusive", "gpu-a01", cold=True),
    Group("srun_cyclic", "srun", "-N2 -n4 --exclusive --distribution=cyclic", "gpu-a01", 4),
    Group("srun_arbitrary", "srun", "-n3 -m arbitrary --nodelist={list121}", "gpu-b07"),
    Group("srun_odd_name", "srun", "-p odd -N2 -n2", "odd-host", 2),
    Group("srun_in_one_node", "srun", "-N1 -n2", "gpu-a01", 2),
    Group("openmpi4", "openmpi4", OMPI3, "gpu-b07"),
    Group("openmpi5", "openmpi5", OMPI3, "gpu-b07", cold=True),
    Group("prterun", "prterun", OMPI3, "gpu-b07", cold=True),
    Group("mpich", "mpich", HYDRA3, "gpu-b07", cold=True),
    Group("impi", "impi", HYDRA3, "gpu-b07", cold=True),
    Group("openmpi4_given", "openmpi4", OMPI3, "gpu-b07", script=("--host", "gpu-b07", "--port", "29611")),
    Group("openmpi5_given", "openmpi5", OMPI3, "gpu-b07", script=("--host", "gpu-b07", "--port", "29612")),
    Group("mpich_given", "mpich", HYDRA3, "gpu-b07", script=("--host", "gpu-b07", "--port", "29613")),
    Group("impi_given", "impi", HYDRA3, "gpu-b07", script=("--host", "gpu-b07", "--port", "29614")),
    Group("mpich_exported", "mpich", HYDRA3, "gpu-b07", exported=("MASTER_ADDR=gpu-b07", "MASTER_PORT=29615")),
    Group("openmpi5_exported", "openmpi5", OMPI3, "gpu-b07", exported=("MASTER_ADDR=gpu-b07", "MASTER_PORT=29616")),
    Group("torchrun", "torchrun", "", "gpu-a01", 2, agents=(("gpu-a01", AGENT), ("gpu-a02", AGENT))),
    Group("torchrun_in_srun", "srun", "-N2 -n2 --ntasks-per-node=1 --exclusive", "gpu-a01", 2, torchrun=AGENT),
]
