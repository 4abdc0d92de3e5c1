"""Writes docs/reference/launchers.md from the resolvers' tables and the recorded launches."""

import sys
from collections import Counter

from colossalai_env import Environ
from colossalai_env.registry import resolvers
from colossalai_env.resolver import Derived, Resolver, Row
from colossalai_env.testing import captures

NAMES = {
    "srun": "Slurm",
    "openmpi4": "Open MPI 4.1",
    "openmpi5": "Open MPI 5",
    "mpich": "MPICH",
    "impi": "Intel MPI",
    "torchrun": "torchrun",
}


def read(row: Row) -> str:
    """Say which variables a row reads, and by which rule."""
    names = ", ".join(f"`{' or '.join(item.names)}`" for item in row.inputs())
    rule = f", by `{row.function.__name__}`" if isinstance(row, Derived) else ""
    if row.required is True:
        return names + rule
    when = f"where `{row.required}` is set" if isinstance(row.required, str) else "where it is needed"
    return f"{names}{rule} (required {when})" if row.required else f"{names}{rule} (may be absent)"


def section(resolver: Resolver) -> list[str]:
    """Describe one resolver."""
    said = dict(resolver.rows())
    silent = [name for name in ("local_rank", "local_world_size", "node_rank", "num_nodes", "host") if name not in said]
    ways = ", ".join(way.name for way in resolver.locate)
    return [
        f"## {resolver.name}",
        "",
        (resolver.doc or "").strip(),
        "",
        "| field | read from |",
        "|---|---|",
        *(f"| {field} | {read(row)} |" for field, row in said.items()),
        "",
        f"Recognised when: {(resolver.present.__doc__ or '').strip()}",
        "",
        f"Not said by its variables: {', '.join(silent) or 'nothing'}."
        + (f" Ways to ask for rank 0's host: {ways}." if ways else ""),
        "",
    ]


def recorded() -> list[str]:
    """Count the recorded launches and their tasks."""
    launches: Counter[tuple[str, str]] = Counter()
    tasks: Counter[tuple[str, str]] = Counter()
    for capture in captures():
        key = NAMES.get(capture.launcher, capture.launcher), capture.version
        launches[key] += 1
        tasks[key] += len(capture.tasks)
    rows = [
        f"| {name} | {version} | {launches[name, version]} | {tasks[name, version]} |"
        for name, version in sorted(launches)
    ]
    total = f"| all | | {sum(launches.values())} | {sum(tasks.values())} |"
    return [
        "## Recorded launches",
        "",
        "| launcher | version | launches | tasks |",
        "|---|---|---|---|",
        *rows,
        total,
        "",
    ]


def page() -> str:
    """Return the whole page."""
    found = [item.resolver for item in resolvers(Environ()) if isinstance(item.resolver, Resolver)]
    lines = ["# What is read of each launcher", "", "This page is generated from the resolvers' tables.", ""]
    for resolver in found:
        lines += section(resolver)
    return "\n".join([*lines, *recorded()])


if __name__ == "__main__":
    sys.stdout.write(page())
