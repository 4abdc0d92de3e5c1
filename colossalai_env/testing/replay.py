"""Recorded launches, held against what a resolver says of them."""

from collections.abc import Iterator

from colossalai_env import ColossalaiEnvError, DistSpec, explain
from colossalai_env._registry import resolvers
from colossalai_env.errors import NotAsked, NotLaunched
from colossalai_env.resolver import Environ, ResolverProtocol

from .broken_law import BrokenLaw
from .captures import Capture, Task

NUMBERS = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes")


def replay(resolver: ResolverProtocol | str | None, capture: Capture) -> tuple[DistSpec, ...]:
    """Resolve each task of a recorded launch, and return the specs.

    `resolver` is asked alone, by name or as an object; None asks all that are installed, as `resolve` does. Raises
    `BrokenLaw` where an answer is not the truth that the launcher told, where the tasks disagree, or where a place that
    is no world is not refused. What the answer leaves unsaid is no lie. A launch that no installed resolver knows is
    refused, or where nothing tells how many there are, taken for processes alone with a warning: it has no specs. Nor
    has one whose launcher alone knows how many there are.
    """
    asked = "resolve()" if resolver is None else resolver if isinstance(resolver, str) else resolver.name
    specs: list[DistSpec] = []
    unknown: list[str] = []
    for index, task in enumerate(capture.tasks):
        here = f"task {index} of {capture.scenario}, on {task.hostname}"
        refused = "why" in task.truth and "one task" not in task.truth["why"]
        resolution = explain(env=task.variables, argv=task.argv, resolver=resolver).resolution
        found = resolution.outcome
        if isinstance(found, ColossalaiEnvError):
            if isinstance(found, NotLaunched) and refused:
                continue
            if isinstance(found, NotAsked) or (isinstance(found, NotLaunched) and not _known(found.resolver)):
                unknown.append(here)
                continue
            raise BrokenLaw(asked, f"{here} is refused: {found}") from found
        if refused:
            raise BrokenLaw(asked, f"{here} is no world ({task.truth['why']}), and is read as {found}")
        if resolution.warnings and found.world_size == 1 < task.truth["world_size"]:
            unknown.append(here)
            continue
        for name, value, truth in _compared(task, found):
            if value not in truth:
                told = " or ".join(repr(one) for one in truth if one is not None)
                raise BrokenLaw(asked, f"{name} is read as {value!r} for {here}, and its launcher said {told}")
        specs.append(found)
    if unknown and specs:
        raise BrokenLaw(asked, f"{unknown[0]} is known to no resolver, and other tasks are read as {specs[0]}")
    _agree(asked, capture, specs)
    return tuple(specs)


def _known(name: str) -> bool:
    return name in {item.resolver.name for item in resolvers(Environ())}


def _compared(task: Task, spec: DistSpec) -> Iterator[tuple[str, object, tuple[object, ...]]]:
    """Return the fields whose truth is known: name, value read, and what it may be."""
    truth = task.truth
    for name in NUMBERS:
        if name in truth:
            yield name, getattr(spec, name), (None, truth[name])
    if "rank0_host" in truth:
        loopback = ("127.0.0.1",) if truth["num_nodes"] == 1 else ()
        yield "host", spec.host, (None, truth["rank0_host"], *loopback)
    if "master_port" in truth:
        yield "port", spec.port, (truth["master_port"],)


def _agree(asked: str, capture: Capture, specs: list[DistSpec]) -> None:
    if specs and sorted(spec.rank for spec in specs) != list(range(len(specs))):
        raise BrokenLaw(asked, f"the ranks of {capture.scenario} are {sorted(spec.rank for spec in specs)}")
    for name in ("world_size", "host", "port", "job_id", "resolver"):
        values = {getattr(spec, name) for spec in specs}
        if len(values) > 1:
            raise BrokenLaw(asked, f"the ranks of {capture.scenario} disagree on {name}: {sorted(map(str, values))}")
