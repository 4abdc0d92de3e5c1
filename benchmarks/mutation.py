"""How many wrong tables the contract and the recorded launches tell from the right ones.

python benchmarks/mutation.py [--examples 20] [--only NAME]

Each first-party table is changed in one place, as an author may get it wrong. A mutant is killed when a recorded
launch is read otherwise than its launcher said, or when a test of the table's own contract fails.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import Phase, settings

from colossalai_env import _registry as registry
from colossalai_env._rows import READERS, Derived, Either, Row, Var, derive, text
from colossalai_env.resolver import Environ, Layer, Resolver
from colossalai_env.testing import Capture, ResolverContract, captures, replay

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.plugins import test_laws, test_laws_nodes, test_laws_tasks

LAWS = {module.__name__ for module in (test_laws, test_laws_nodes, test_laws_tasks)}

NUMBERS = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes")
SWAPPED = [("rank", "local_rank"), ("world_size", "local_world_size"), ("rank", "node_rank"),
           ("local_rank", "node_rank"), ("world_size", "num_nodes"), ("local_world_size", "num_nodes")]  # fmt: skip
GUESSES: Mapping[str, list[tuple[str, str, Callable[[int, int], int]]]] = {
    "local_rank": [("rank", "local_world_size", lambda rank, here: rank % here)],
    "node_rank": [("rank", "local_world_size", lambda rank, here: rank // here)],
    "num_nodes": [("world_size", "local_world_size", lambda size, here: size // here),
                  ("world_size", "local_world_size", lambda size, here: -(-size // here))],
    "local_world_size": [("world_size", "num_nodes", lambda size, nodes: size // nodes),
                         ("world_size", "num_nodes", lambda size, nodes: -(-size // nodes))],
}  # fmt: skip

PRESENT = "the same table: where it is read at all, `detect` has found the variable"

EXPLAINED: Mapping[str, str] = {
    "azureml: lost default: host never required": "the same table: the row of port misses AZ_BATCH_MASTER_NODE",
    **{f"cli-args: lost default: {field} never required": PRESENT for field in ("rank", "world_size", "host", "port")},
    "hydra: dropped mark: PMI_ID": "no mark: it is shown in the refusal alone, beside PMI_PORT, which tells the place",
    **{
        f"mpich-gforker: lost default: {field} never required": "the same table: another row misses the same variable"
        for field in ("rank", "world_size", "local_rank", "local_world_size")
    },
    **{
        f"mpich-gforker: {change}": "the same table: on one host it is the same number"
        for change in (
            *(f"guess: {field} from rank and local_world_size, 0" for field in ("local_rank", "node_rank")),
            *(f"guess: num_nodes from world_size and local_world_size, {index}" for index in (0, 1)),
            "swapped: rank and local_rank",
            "swapped: world_size and local_world_size",
        )
    },
    "slurm: lost default: world_size never required": PRESENT,
    "slurm: lost default: job_id never required": PRESENT,
    "slurm: lost default: job_id SLURM_JOB_ID may be absent": PRESENT,
    "slurm: lost default: job_id SLURM_STEP_ID may be absent": PRESENT,
    "slurm: lost default: node_rank never required": "the same table: the row of local_world_size misses SLURM_NODEID",
    "slurm: wrong layer: PLATFORM": "no resolver of this distribution is of the layers STEP and PLATFORM but Slurm's",
    "torch: lost default: agent_store never required": "the same table: the row's one variable may be absent anyway",
    "torch: dropped mark: TORCHELASTIC_RUN_ID": "the same answers: the other mark tells, and job_id misses this one",
    "torch: dropped mark: TORCHELASTIC_RESTART_COUNT": "the same answers: the other mark tells, as above",
}
"""Why a survivor survives: it is no other table, or nothing here could tell."""


@attrs.frozen
class Mutant:
    """A table that is wrong in one place."""

    kind: str
    what: str
    table: Resolver

    def __str__(self) -> str:
        return f"{self.table.name}: {self.kind}: {self.what}"


def mutants(table: Resolver) -> Iterator[Mutant]:
    """Change a table in every place."""
    rows = dict(table.rows())
    sure = set[str]()
    for field, whole in rows.items():
        missed = {*sure}
        for row, put in ways(whole):
            for what, changed in changes(field, row, rows, missed):
                kind, _, where = what.partition(":")
                yield Mutant(kind, f"{field}{where}", evolved(table, field, put(changed)))
        for row in whole.rows if isinstance(whole, Either) else ():
            others = Either(tuple(other for other in whole.rows if other is not row))
            yield Mutant("dropped way", f"{field} by {rule(row)}", evolved(table, field, others))
        sure.update(item.names[0] for item in whole.inputs() if whole.required is True and item.required is True)
    yield from guesses(table, rows)
    for one, other in SWAPPED:
        if one in rows and other in rows and rows[one] is not rows[other]:
            yield Mutant("swapped", f"{one} and {other}", attrs.evolve(table, **{one: rows[other], other: rows[one]}))
    for mark in marks(table):
        yield Mutant("dropped mark", mark, attrs.evolve(table, detect=unmarked(table, mark)))
    for layer in sorted({*Layer} - {table.layer, Layer.ALONE}):
        yield Mutant("wrong layer", layer.name, attrs.evolve(table, layer=layer))
    yield from dropped(table)


def changes(field: str, row: Var | Derived, rows: Mapping[str, Row], missed: set[str]) -> Iterator[tuple[str, Row]]:
    """Change one way of a row; a constant can only be another one."""
    if row.inputs():
        defaults = other_defaults(row, missed)
        missed.update(item.names[0] for item in row.inputs() if row.required and item.required is True)
        yield from (*other_variables(field, row, rows), *defaults, *first_items(row))
    for by in (1, -1) if field in NUMBERS else ():
        yield f"off by one: {by:+}", shifted(field, row, by)


def dropped(table: Resolver) -> Iterator[Mutant]:
    """Leave out what a table says besides its rows and marks."""
    if isinstance(table.host, Var) and table.host.only_others:
        yield Mutant("dropped", "only_others", attrs.evolve(table, host=table.host._replace(only_others=False)))
    if table.main_node is not None:
        yield Mutant("dropped", "main_node", attrs.evolve(table, main_node=None))
        for what, changed in (
            *other_variables("main_node", table.main_node, dict(table.rows())),
            *other_defaults(table.main_node, set()),
            *((f"off by one: {by:+}", shifted("main_node", table.main_node, by)) for by in (1, -1)),
        ):
            kind, _, where = what.partition(":")
            yield Mutant(kind, f"main_node{where}", attrs.evolve(table, main_node=changed))
    if table.accelerators is not None:
        yield Mutant("dropped", "accelerators", attrs.evolve(table, accelerators=None))
    without = attrs.fields(Resolver).exclude.default
    if table.exclude is not without:
        yield Mutant("dropped", "exclude", attrs.evolve(table, exclude=without))


def ways(row: Row) -> Iterator[tuple[Var | Derived, Callable[[Row], Row]]]:
    """Return each of a row's ways to say its field, with what puts another one in its place."""
    if not isinstance(row, Either):
        yield row, lambda changed: changed
        return
    for place in range(len(row.rows)):
        before, after = row.rows[:place], row.rows[place + 1 :]
        yield row.rows[place], lambda changed, before=before, after=after: Either((*before, changed, *after))


def rule(row: Var | Derived) -> str:
    """Name a row."""
    return row.names[0] if isinstance(row, Var) else row.function.__name__


def guesses(table: Resolver, rows: Mapping[str, Row]) -> Iterator[Mutant]:
    """Compute a field by // or % instead of reading it."""
    for field, rules in GUESSES.items():
        if field in rows and not rows[field].inputs():
            continue  # a constant
        for number, (one, other, rule) in enumerate(rules):
            inputs = [(name, rows.get(name)) for name in (one, other)]
            if all(isinstance(row, Var) for _, row in inputs):
                read = [row._replace(read=READERS[name]) for name, row in inputs if isinstance(row, Var)]
                yield Mutant(
                    "guess", f"{field} from {one} and {other}, {number}", evolved(table, field, derive(rule, *read))
                )


def evolved(table: Resolver, field: str, row: Row) -> Resolver:
    """Change one row; a launcher goes on setting what it set."""
    follows = {"rank": "node_rank", "world_size": "num_nodes"}.get(field, "") if table.counts_nodes else ""
    same = follows and getattr(table, follows) is getattr(table, field)
    changed: Resolver = attrs.evolve(table, **{field: row}, **({follows: None} if same else {}))
    before = getattr(table, field)
    if isinstance(row, Derived) and isinstance(before, Var):

        def emulated(spec: Any) -> Mapping[str, str]:
            value = getattr(spec, field)
            return {**({} if value is None else {before.names[0]: str(value)}), **table.emulated(spec)}

        return attrs.evolve(changed, emulated=emulated)
    return changed


def other_variables(field: str, row: Var | Derived, rows: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    """Read the variable of another field, or one that nobody sets; of several names the first or the others alone."""
    neighbours = [other.inputs()[0].names[0] for name, other in rows.items() if name != field and other.inputs()][:4]
    for position, item in enumerate(row.inputs()):
        for name in dict.fromkeys([*neighbours, item.names[0] + "S"]):
            if name not in item.names:
                changed = item._replace(names=(name,))
                yield f"another variable: {item.names[0]} -> {name}", replaced(row, position, changed)
        if len(item.names) > 1:
            for names in (item.names[:1], item.names[1:]):
                changed = item._replace(names=names)
                yield f"lost default: only {' or '.join(names)}", replaced(row, position, changed)


def replaced(row: Var | Derived, position: int, item: Var) -> Row:
    """Change one of a row's variables."""
    if isinstance(row, Var):
        return item
    return row._replace(variables=(*row.variables[:position], item, *row.variables[position + 1 :]))


def other_defaults(row: Var | Derived, missed: set[str]) -> list[tuple[str, Row]]:
    """Ask for what may be absent, and let be absent what must be there, unless an earlier row or way misses it."""
    same = tuple(f"{name} may be absent" for name in missed)
    if {item.names[0] for item in row.inputs()} <= missed:
        same += ("never required",)
    if isinstance(row, Derived) and not any(item.required for item in row.variables):
        same += ("never required",)
    return [changed for changed in _other_defaults(row) if not changed[0].endswith(same)]


def _other_defaults(row: Var | Derived) -> Iterator[tuple[str, Row]]:
    if row.required is not True:
        yield "lost default: always required", row._replace(required=True)
    if row.required is not False:
        yield "lost default: never required", row._replace(required=False)
    for position, item in enumerate(row.inputs() if isinstance(row, Derived) else ()):
        required = item.required is not True
        changed = item._replace(required=required)
        yield (
            f"lost default: {item.names[0]} {'required' if required else 'may be absent'}",
            replaced(row, position, changed),
        )


def first_items(row: Var | Derived) -> Iterator[tuple[str, Row]]:
    """Read a list up to its first comma."""
    for position, item in enumerate(row.inputs() if isinstance(row, Derived) else ()):
        if item.names[0].endswith(("LIST", "PER_NODE")) and item.read is not None:

            def read(value: str, reader: Callable[[str], Any] = item.read) -> Any:
                return reader(value.partition(",")[0])

            yield f"first item: of {item.names[0]}", replaced(row, position, item._replace(read=read))


def shifted(field: str, row: Var | Derived, by: int) -> Row:
    """Add to the value of a row."""
    if isinstance(row, Var):
        reader = row.read or READERS.get(field, text)
        return row._replace(read=lambda value: reader(value) + by)
    function = row.function
    return row._replace(function=lambda *values: function(*values) + by)


class Spy(Environ):
    """Notes which variables are looked at."""

    looked: ClassVar[set[str]] = set()

    def get(self, name: str) -> str | None:
        """Look a variable up."""
        Spy.looked.add(name)
        return super().get(name)


def marks(table: Resolver) -> list[str]:
    """Return the variables that tell the launcher, in any of its recorded tasks, or in what is emulated."""
    Spy.looked.clear()
    for environ in (Environ(), *(Environ(task.variables, task.argv) for one in captures() for task in one.tasks)):
        try:
            table.detect(Spy(environ.variables, environ.argv))
        except Exception:  # noqa: BLE001, PERF203 - a refusal has looked too
            continue
    return sorted(Spy.looked)


def unmarked(table: Resolver, mark: str) -> Callable[[Environ], Any]:
    """Tell the launcher without looking at one of its marks."""

    def detect(environ: Environ) -> Any:
        variables = {name: value for name, value in environ.variables.items() if name != mark}
        argv = [word for word in environ.argv if word.partition("=")[0] != mark]
        return table.detect(Environ(variables, argv))

    detect.__doc__ = table.detect.__doc__
    return detect


def killer(mutant: Mutant, contract: type[ResolverContract], recorded: list[Capture]) -> str | None:
    """Return what tells the mutant from the table, or None."""
    plugins = registry.Registry(registry.installed())
    for item in plugins.every():
        if item.resolver.name == mutant.table.name:
            plugins._brought[item.plugin.name] = (item._replace(resolver=mutant.table),)
    before = dict(registry._registries)
    registry._registries[""] = plugins
    try:
        for capture in recorded:
            try:
                replay(None, capture)
                if "why" not in capture.tasks[0].truth:
                    test_laws.test_what_is_typed_beats_every_launcher(capture)
            except (Exception, pytest.fail.Exception):  # noqa: BLE001, PERF203 - however it fails, it fails
                return f"capture {capture.scenario}"
        held = type("Mutated", (contract,), {"resolver": mutant.table})()
        for law in [name for name in dir(held) if name.startswith("test_")]:
            for arguments in parameters(getattr(held, law)):
                try:
                    getattr(held, law)(*arguments)
                except (Exception, pytest.fail.Exception):  # noqa: BLE001, PERF203
                    return law
    finally:
        registry._registries.clear()
        registry._registries.update(before)
    return None


def parameters(test: Callable[..., None]) -> list[tuple[Any, ...]]:
    """Return what pytest would call a test with."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    values = marks[0].args[1] if marks else [()]
    return [value if isinstance(value, tuple) else (value,) for value in values]


def main() -> int:
    """Make all mutants, print the survivors and the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--only", help="one resolver's name")
    asked = parser.parse_args()
    settings.register_profile(
        "mutation", max_examples=asked.examples, derandomize=True, database=None, phases=[Phase.generate]
    )
    settings.load_profile("mutation")
    recorded = list(captures())
    began = time.monotonic()
    killers: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    survivors: list[Mutant] = []
    contracts = [one for one in ResolverContract.__subclasses__() if one.__module__ in LAWS]
    for contract in contracts:
        table = contract.resolver
        if not isinstance(table, Resolver) or asked.only not in {None, table.name}:
            continue
        unchanged = killer(Mutant("unchanged", "", table), contract, recorded)
        if unchanged:
            sys.exit(f"{table.name} is killed unchanged, by {unchanged}")
        for mutant in mutants(table):
            kinds[mutant.kind] += 1
            killed = killer(mutant, contract, recorded)
            if killed:
                killers[killed.split()[0]] += 1
            else:
                survivors.append(mutant)
                print(f"survives  {mutant}: {EXPLAINED.get(str(mutant), 'UNEXPLAINED')}", flush=True)
    total = kinds.total()
    print(f"\n{total} mutants: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    print("killed by: " + ", ".join(f"{name} {count}" for name, count in killers.most_common()))
    killed = total - len(survivors)
    print(f"{killed} of {total} killed, {100 * killed / total:.1f} in 100, in {time.monotonic() - began:.0f} s")
    return int(killed < 0.95 * total or any(str(mutant) not in EXPLAINED for mutant in survivors))


if __name__ == "__main__":
    sys.exit(main())
