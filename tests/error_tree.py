"""The tree of errors, as it is and as it is drawn at the top of its module."""

from importlib import import_module

from colossalai_env import ColossalaiEnvError, errors

BASE = ColossalaiEnvError.__name__

EVERY: dict[str, type[ColossalaiEnvError]] = {
    name: found
    for module in (errors, *(import_module(f"{errors.__name__}.{room}") for room in errors.ROOMS))
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, ColossalaiEnvError)
}
"""All classes of errors, by name."""


def _drawn() -> dict[str, str]:
    """Read the drawing: each name, and the one that it stands under."""
    tree: dict[str, str] = {}
    above: list[tuple[int, str]] = [(0, "")]
    for line in str(errors.__doc__).splitlines():
        indent, words = len(line) - len(line.lstrip()), line.split()
        if indent < 4:
            continue
        while above[-1][0] >= indent:
            above.pop()
        names = words if EVERY.keys() >= {*words} else words[:1]  # the other words describe a kind
        for name in names:
            assert name not in tree, f"{name} is drawn twice"
            tree[name] = above[-1][1]
        above.append((indent, words[0]))
    return tree


TREE = _drawn()

KINDS = [name for name, parent in TREE.items() if parent == BASE]
"""What stands under the root itself."""

PARENTS = [name for name in TREE if name != BASE and name in TREE.values()]
"""What stands for others, and is never raised itself."""
