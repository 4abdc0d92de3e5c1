"""Hypothesis strategies for launches, for the specs of their ranks, and for lists of hosts."""

from collections import Counter
from itertools import product
from string import ascii_lowercase, digits

from hypothesis import strategies as st

from colossalai_env import DistSpec

from .layouts import Layout

LETTERS = st.sampled_from(ascii_lowercase)
PARTS = st.lists(st.text(ascii_lowercase + digits, min_size=1, max_size=4).map("-{}".format), max_size=2).map("".join)
HOSTS = st.builds("{}{}{}".format, LETTERS, st.text(ascii_lowercase + digits, max_size=7), PARTS)
ADDRESSES = st.ip_addresses().map(str)
NAMES = st.lists(st.one_of(HOSTS, ADDRESSES), min_size=1, max_size=3, unique=True)
ORDERS = st.sampled_from(["block", "cyclic", "plane", "wrapped", "main", "any"])
KINDS = st.integers(0, 2)
PORTS = st.integers(1, 65535)
TOKENS = st.text("abc0123-", min_size=1, max_size=12)
"""Job ids without a form of their own."""


def _dealt(counts: list[int], plane: int) -> list[int]:
    """Deal the ranks out in rounds of `plane`, to the nodes that still have room.

    A plane of 1 is Slurm's cyclic and mpirun's ``--map-by node``; a plane as large as the nodes is a block.
    """
    rounds = range(0, max(counts), plane)
    return [
        node for start in rounds for node, count in enumerate(counts) for _ in range(start, min(start + plane, count))
    ]


def _wrapped(counts: list[int]) -> list[int]:
    """Fill a first half of each node in order and then come back for the rest: Hydra's -ppn."""
    first = [(count + 1) // 2 for count in counts]
    rest = [count - half for count, half in zip(counts, first, strict=True)]
    return [node for turn in (first, rest) for node, count in enumerate(turn) for _ in range(count)]


def _placed(draw: st.DrawFn, counts: list[int]) -> list[int]:
    order = draw(ORDERS)
    if order == "wrapped":
        return _wrapped(counts)
    if order == "main":
        main = draw(st.integers(0, len(counts) - 1))
        nodes = [main, *(node for node in range(len(counts)) if node != main)]
        return [nodes[node] for node in _dealt(counts, max(counts))]
    plane = {"cyclic": 1, "plane": 2}.get(order, max(counts))
    placed = _dealt(counts, plane)
    return draw(st.permutations(placed)) if order == "any" and len(placed) <= 64 else placed


def _counts(draw: st.DrawFn, nodes: int, most: int) -> list[int]:
    """Draw how many ranks each node has: one, as many as the others, or any number."""
    kind = draw(KINDS) if most > 1 else 0
    if kind < 2:
        return [draw(st.integers(1, most)) if kind else 1] * nodes
    return draw(st.lists(st.integers(1, most), min_size=nodes, max_size=nodes))


def _shuffled_local_ranks(draw: st.DrawFn, nodes: list[int]) -> tuple[int, ...]:
    """Give the ranks of each node their local ranks in any order, as mpirun's rank files do."""
    left = {node: draw(st.permutations(range(count))) if count > 1 else [0] for node, count in Counter(nodes).items()}
    return tuple(left[node].pop(0) for node in nodes)


@st.composite
def layouts(
    draw: st.DrawFn,
    max_ranks: int = 4096,
    job_ids: st.SearchStrategy[str | None] | None = None,
    agent_store: st.SearchStrategy[bool] | None = None,
    *,
    one_a_node: bool = False,
) -> Layout:
    """Draw a launch of up to `max_ranks`: even or uneven nodes; in block, cyclic, plane, wrapped or any other order.

    Local ranks follow the order of the ranks, or not; rank 0's node need not be the first. A third of the launches, or
    with `one_a_node` all, has one process on each node. `job_ids` draws the launch's token, `agent_store` whether the
    launcher serves the store; without them there is neither.
    """
    nodes = draw(st.integers(1, min(64, max_ranks)))
    most = 1 if one_a_node else max(1, max_ranks // nodes)
    placed = _placed(draw, _counts(draw, nodes, most))
    shuffled = len(placed) <= 64 and draw(st.booleans())
    hosts = draw(NAMES)
    names = [*hosts, *(f"node{index}" for index in range(nodes))][:nodes]
    return Layout(
        hosts=tuple(names),
        nodes=tuple(placed),
        port=draw(PORTS),
        job_id=None if job_ids is None else draw(job_ids),
        agent_store=False if agent_store is None else draw(agent_store),
        local_ranks=_shuffled_local_ranks(draw, placed) if shuffled else None,
    )


@st.composite
def dist_specs(draw: st.DrawFn, max_ranks: int = 4096) -> DistSpec:
    """Draw the spec of one rank of a launch, with all fields filled and consistent.

    So does ``st.from_type(DistSpec)`` once this package is imported.
    """
    layout = draw(layouts(max_ranks, job_ids=TOKENS))
    return layout.spec(draw(st.integers(0, layout.world_size - 1)))


st.register_type_strategy(DistSpec, dist_specs())

_Expanded = tuple[str, list[str]]


@st.composite
def _brackets(draw: st.DrawFn) -> _Expanded:
    """Draw a bracket of ranges, each padded as its first number is, and all that it stands for."""
    texts: list[str] = []
    numbers: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        low, span, width = draw(st.integers(0, 120)), draw(st.integers(0, 12)), draw(st.integers(1, 4))
        texts.append(f"{low:0{width}}" + (f"-{low + span:0{width}}" if span else ""))
        numbers += [f"{number:0{width}}" for number in range(low, low + span + 1)]
    return f"[{','.join(texts)}]", numbers


@st.composite
def _terms(draw: st.DrawFn) -> _Expanded:
    names = st.from_regex(r"[a-z][a-z-]{0,4}[a-z]", fullmatch=True)
    parts: list[_Expanded] = []
    for turn in range(draw(st.integers(0, 2))):
        name = draw(names) if turn == 0 else "x"
        parts += [(name, [name]), draw(_brackets())]
    last = draw(st.sampled_from(["", "-ib"])) if parts else draw(names)
    parts.append((last, [last]))
    return "".join(text for text, _ in parts), ["".join(words) for words in product(*(words for _, words in parts))]


@st.composite
def host_lists(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    """Draw a list of hosts as schedulers write it, such as ``gpu-a[01-02,07],rack[1-2]n[9-10]-ib``, and its expansion.

    Hosts come in the order given, and a name's last bracket runs fastest.
    """
    terms = draw(st.lists(_terms(), min_size=1, max_size=4))
    return ",".join(text for text, _ in terms), tuple(host for _, hosts in terms for host in hosts)
