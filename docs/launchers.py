"""Writes docs/reference/launchers.md from the resolvers' tables and the recorded launches."""

import re
import sys
from collections import Counter
from collections.abc import Iterator

from colossalai_env import ColossalaiEnvError, resolve
from colossalai_env._registry import resolvers
from colossalai_env._rows import Derived, Either, Row
from colossalai_env.resolver import Environ, Layer, Resolver
from colossalai_env.testing import Capture, Task, captures

NAMES = {
    "Ray": r"Ray",
    "deepspeed": r"deepspeed",
    "HTCondor": r"HTCondor",
    "GridEngine": r"GridEngine",
    "SageMaker": r"SageMaker",
    "Intel MPI": r"impi|Intel",
    "MPICH": r"mpich|MPICH|gforker",
    "Open MPI": r"openmpi|Open MPI",
    "PRRTE": r"PRRTE",
    "torchrun": r"torch",
    "Flux": r"[Ff]lux",
    "Slurm": r"srun|slurm",
}
"""Names for people, and what the launchers of the recordings are recognised by."""

INTRO = """\
# What is read of each launcher

For each launcher: how it is recognised, which variables each field of `DistSpec` is read from, what else it sets, and
what it leaves unknown. This page is generated from the resolvers' tables and from launches that were recorded with the
real launchers.
"""

FOUND_OUT = "found out when the ranks meet"


def won() -> Iterator[tuple[str, Task]]:
    """Return the recorded tasks, each with the name of the resolver that wins it."""
    for capture in captures():
        for task in capture.tasks:
            try:
                yield resolve(env=task.variables, argv=task.argv).resolver, task
            except ColossalaiEnvError:  # noqa: PERF203 - places that are no world are recorded too
                continue


def read(row: Row) -> str:
    """Describe which variables a row reads, by which rule, and whether they have to be there."""
    if isinstance(row, Either):
        return "<br>or ".join(read(way).removesuffix(" (may be absent)") for way in row.rows)
    if not row.inputs() and isinstance(row, Derived):
        return f"always {row.function()}: {row.function.__name__}"
    names = ", ".join(" or ".join(f"`{name}`" for name in item.names) for item in row.inputs())
    rule = f", by `{row.function.__name__}`" if isinstance(row, Derived) else ""
    rule += ", which all ranks have but rank 0" if any(item.only_others for item in row.inputs()) else ""
    if row.required is True:
        return names + rule
    when = f"where `{row.required}` is set" if isinstance(row.required, str) else "where it is needed"
    return f"{names}{rule} (required {when})" if row.required else f"{names}{rule} (may be absent)"


def first(row: Row) -> Row:
    """Return the first way in which a row finds its field."""
    return row.rows[0] if isinstance(row, Either) else row


def value(row: Row, task: Task | None) -> str:
    """Show what the row's variables held in a recorded task."""
    names = [name for item in first(row).inputs() for name in item.names]
    texts = [task.variables[name] for name in names if name in task.variables] if task else []
    return ", ".join(f"`{text}`" for text in dict.fromkeys(texts))


def informative(rows: list[tuple[str, Row]], task: Task) -> tuple[int, int]:
    """Rate a recorded task as an example: most fields are known, none is out of the ordinary, not rank 0."""
    inputs = [
        (name in task.variables, item.required)
        for _, row in rows
        for item in first(row).inputs()
        for name in item.names
    ]
    usual = sum(there for there, required in inputs if required) - sum(
        there for there, required in inputs if not required
    )
    return usual, task.truth["rank"]


def unknown(resolver: Resolver) -> Iterator[str]:
    """Describe, for each field that the launcher's variables do not hold, how it is found all the same."""
    known = dict(resolver.rows())
    for field in ("local_rank", "local_world_size", "node_rank", "num_nodes"):
        if field not in known:
            yield f"- `{field}`: {FOUND_OUT}"
    if "host" not in known or resolver.locate:
        ways = ", ".join(f"`{way.name}`" for way in resolver.locate)
        where = "`host`, where the variables lead to none: " if "host" in known else "`host`: "
        asked = f"the launcher is asked ({ways}), unless all ranks are on one node or `MASTER_ADDR` is set"
        yield f"- {where}{f'the directory answers, or {asked}' if resolver.directory else asked}"
    if "port" not in known:
        yield "- `port`: from the job id, unless `MASTER_PORT` is set"


def verified(resolver: Resolver, tasks: list[Task]) -> str:
    """Name how the table was verified: by runs of the launcher, or where its facts come from."""
    if tasks:
        return f"on the real launcher: {len(tasks)} recorded processes"
    if resolver.layer is Layer.ARGUMENTS:
        return "by real processes"
    return "from its source" if re.search(r"\bsources? of\b", resolver.doc or "") else "from its documentation"


def overview(found: list[tuple[Resolver, list[Task]]]) -> list[str]:
    """Return one row for each resolver."""
    rows = [
        f"| [{one.name}](#{one.name}) | {one.layer.name} | {'nodes' if one.counts_nodes else 'processes'} | "
        f"{verified(one, tasks)} |"
        for one, tasks in found
    ]
    return ["| resolver | layer | counts | verified |", "|---|---|---|---|", *rows, ""]


def section(resolver: Resolver, tasks: list[Task]) -> list[str]:
    """Describe one resolver."""
    rows = list(resolver.rows())
    example = max(tasks, key=lambda task: informative(rows, task), default=None)
    always = set[str].intersection(*(set(task.variables) for task in tasks)) if tasks else set[str]()
    others = ", ".join(f"`{name}`" for name in sorted(always.difference(resolver.variables())))
    return [
        f"## {resolver.name}",
        "",
        (resolver.doc or "").strip(),
        "",
        f"Recognised when: {(resolver.detect.__doc__ or '').strip()}",
        "",
        "| field | read from | for example |" if example else "| field | read from |",
        "|---|---|---|" if example else "|---|---|",
        *(
            f"| `{field}` | {read(row)} | {value(row, example)} |" if example else f"| `{field}` | {read(row)} |"
            for field, row in resolver.every_row()
        ),
        "",
        *(
            [f"Set in each of {len(tasks)} recorded processes, and no field is read from it: {others}.", ""]
            if others
            else []
        ),
        *(
            ["Not stated by variables:", "", *unknown(resolver), ""]
            if list(unknown(resolver))
            else ["The variables state every field.", ""]
        ),
    ]


def launcher(capture: Capture) -> tuple[str, str]:
    """Name a recorded launch's launcher and its version."""
    name = next(name for name, pattern in NAMES.items() if re.search(pattern, capture.launcher))
    return name, re.findall(r"\d+(?:\.\d+)+", capture.version)[0]


def recorded() -> list[str]:
    """Count the recorded launches and their processes."""
    launches = Counter(launcher(capture) for capture in captures())
    tasks: Counter[tuple[str, str]] = Counter()
    for capture in captures():
        tasks[launcher(capture)] += len(capture.tasks)
    rows = [f"| {name} | {version} | {count} | {tasks[name, version]} |" for (name, version), count in launches.items()]
    return [
        "## Recorded launches",
        "",
        "`colossalai_env.testing.captures()` returns them. Some nest, such as torchrun in srun.",
        "",
        "| launcher | version | launches | processes |",
        "|---|---|---|---|",
        *sorted(rows),
        f"| all | | {sum(launches.values())} | {sum(tasks.values())} |",
        "",
    ]


def page() -> str:
    """Return the whole page."""
    found = [item.resolver for item in resolvers(Environ()) if isinstance(item.resolver, Resolver)]
    tasks = list(won())
    tables = [(one, [task for name, task in tasks if name == one.name]) for one in found]
    lines = [INTRO, *overview(tables)]
    for resolver, own in tables:
        lines += section(resolver, own)
    return "\n".join([*lines, *recorded()])


if __name__ == "__main__":
    sys.stdout.write(page())
