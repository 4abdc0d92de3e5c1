"""The mpiexecs of MPICH and of Intel MPI: Hydra, and gforker, which starts all processes on one host."""

from collections.abc import Iterable, Mapping

from colossalai_env import (
    DistSpec,
    Environ,
    InvalidSpec,
    Layer,
    Located,
    NotAWorld,
    NotMine,
    Resolver,
    Way,
    all_of,
    any_of,
    derive,
    hookimpl,
    var,
)


def ask_pmi(spec: DistSpec, environ: Environ, seconds: float) -> Located | str:
    """Ask over the channel that each process inherits; what that takes is imported when it is needed."""
    from .pmi import ask

    return ask(spec, environ, seconds)


def ask_mpi4py(spec: DistSpec, environ: Environ, seconds: float) -> Located | str:
    """Broadcast by mpi4py, where its library is MPICH's or Intel's."""
    from colossalai_env_mpi import broadcast

    del environ
    return broadcast("hydra", ("MPICH", "Intel"), spec, seconds)


started = any_of("MPI_LOCALRANKID", "MPI_LOCALNRANKS")


def by_hydra(environ: Environ) -> NotMine | None:
    """Any of MPI_LOCALRANKID and MPI_LOCALNRANKS is set. With ``-pmi-port`` no variable says the world's size."""
    absent = started(environ)
    if absent is None and "PMI_PORT" in environ and "PMI_FD" not in environ:
        raise NotAWorld(
            "hydra",
            "mpiexec was told -pmi-port, with which the world's size is said over that port alone",
            environ.found(["PMI_ID", "PMI_PORT"]),
            "leave -pmi-port out (mpiexec -n 4 python train.py), or give rank and size as arguments: "
            "--rank $PMI_ID --world_size 4, with --host and --port",
        )
    return absent


HYDRA = Resolver(
    name="hydra",
    layer=Layer.MPI,
    present=by_hydra,
    rank=var("PMI_RANK"),
    world_size=var("PMI_SIZE"),
    local_rank=var("MPI_LOCALRANKID"),
    local_world_size=var("MPI_LOCALNRANKS"),
    job_id=var("I_MPI_HYDRA_UUID", required=False),
    locate=(Way("pmi", ask_pmi), Way("mpi4py", ask_mpi4py)),
    doc="""Hydra, the mpiexec of MPICH 4 and 5 and of Intel MPI.

Facts: runs of MPICH 4.0, 4.3 and 5.0 and Intel MPI 2021.18 and 2021.19. PMI_RANK alone is no mark of Hydra: Slurm's
``srun --mpi=pmi2`` sets it too. No variable holds rank 0's host; Hydra is asked for it.
""",
)

marked = all_of("MPI_APPNUM", "MPI_UNIVERSE_SIZE")


def by_gforker(environ: Environ) -> NotMine | None:
    """MPI_APPNUM and MPI_UNIVERSE_SIZE are set beside PMI_RANK or PMI_SIZE, which are not those of a task of Flux."""
    if "PMI_RANK" not in environ and "PMI_SIZE" not in environ:
        return NotMine("no PMI_RANK or PMI_SIZE")
    pmi, flux = (
        [environ.get(name) for name in names]
        for names in (("PMI_RANK", "PMI_SIZE"), ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"))
    )
    if pmi == flux:
        return NotMine("PMI_RANK and PMI_SIZE are those of a task of Flux")
    return marked(environ)


def one_host(mark: str) -> int:
    """Return how many hosts gforker has."""
    del mark
    return 1


def first_host(mark: str) -> int:
    """Return the index of gforker's one host."""
    del mark
    return 0


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return gforker's marks; raise `InvalidSpec` for a world that spans hosts."""
    if spec.num_nodes not in {1, None} or spec.local_rank not in {spec.rank, None}:
        problem = "gforker starts all processes on one host, numbered by their ranks"
        raise InvalidSpec(problem, ("num_nodes", "local_rank"))
    return {"MPI_APPNUM": "0", "MPI_UNIVERSE_SIZE": "-1", "PMI_RANK": str(spec.rank), "PMI_SIZE": str(spec.world_size)}


GFORKER = Resolver(
    name="mpich-gforker",
    layer=Layer.MPI,
    present=by_gforker,
    rank=var("PMI_RANK"),
    world_size=var("PMI_SIZE"),
    local_rank=var("PMI_RANK"),
    local_world_size=var("PMI_SIZE"),
    node_rank=derive(first_host, "MPI_UNIVERSE_SIZE"),
    num_nodes=derive(one_host, "MPI_UNIVERSE_SIZE"),
    emulated=emulated,
    locate=(Way("pmi", ask_pmi),),
    doc="""gforker, the other mpiexec of MPICH, which starts all processes on its own host.

Facts: runs of ``mpiexec.gforker`` of MPICH 4.3.2 and 5.0.2. PMI_RANK and PMI_SIZE are set by Flux and by Slurm's
``srun --mpi=pmi2`` too, MPI_APPNUM and MPI_UNIVERSE_SIZE by gforker alone. Ranks are numbered through all programs of
one command. A port comes from a token that rank 0 publishes.
""",
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolvers of Hydra and of gforker; where both claim, Hydra's name comes first."""
    return [HYDRA, GFORKER]
