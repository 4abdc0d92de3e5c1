"""Hypothesis strategies for launches and for the specs of their ranks."""

from collections.abc import Callable

from hypothesis import strategies as st

from colossalai_env import DistSpec

from .layouts import Layout

HOSTS = st.from_regex(r"[a-z][a-z0-9]{0,7}(-[a-z0-9]{1,4}){0,2}", fullmatch=True)
ADDRESSES = st.ip_addresses().map(str)


def _block(counts: list[int]) -> list[int]:
    return [node for node, count in enumerate(counts) for _ in range(count)]


def _cyclic(counts: list[int]) -> list[int]:
    """Deal the ranks out in rounds, to the nodes that still have room: Slurm's cyclic, mpirun's --map-by node."""
    return [node for turn in range(max(counts)) for node, count in enumerate(counts) if turn < count]


def _wrapped(counts: list[int]) -> list[int]:
    """Fill a first half of each node in order and then come back for the rest: Hydra's -ppn."""
    first = [(count + 1) // 2 for count in counts]
    return _block(first) + _block([count - half for count, half in zip(counts, first, strict=True)])


@st.composite
def layouts(
    draw: st.DrawFn,
    max_ranks: int = 4096,
    job_ids: st.SearchStrategy[str | None] | None = None,
    agent_store: st.SearchStrategy[bool] | None = None,
) -> Layout:
    """Draw a launch of up to `max_ranks`: even or uneven nodes, in block, cyclic, wrapped or any other order."""
    nodes = draw(st.integers(1, min(64, max_ranks)))
    most = max(1, max_ranks // nodes)
    counts = draw(
        st.one_of(
            st.integers(1, most).map(lambda count: [count] * nodes),
            st.lists(st.integers(1, most), min_size=nodes, max_size=nodes),
        )
    )
    orders: list[Callable[[list[int]], list[int]]] = [_block, _cyclic, _wrapped]
    placed = draw(st.sampled_from(orders))(counts)
    if len(placed) <= 64 and draw(st.booleans()):
        placed = draw(st.permutations(placed))
    hosts = draw(st.lists(st.one_of(HOSTS, ADDRESSES), min_size=1, max_size=3, unique=True))
    names = [*hosts, *(f"node{index}" for index in range(nodes))][:nodes]
    return Layout(
        hosts=tuple(names),
        nodes=tuple(placed),
        port=draw(st.integers(1, 65535)),
        job_id=draw(job_ids if job_ids is not None else st.none()),
        agent_store=draw(agent_store if agent_store is not None else st.just(value=False)),
    )


@st.composite
def dist_specs(draw: st.DrawFn, max_ranks: int = 4096) -> DistSpec:
    """Draw the spec of one rank of a launch, with all fields filled and consistent."""
    layout = draw(layouts(max_ranks, job_ids=st.text("abc0123./", min_size=1, max_size=12)))
    return layout.spec(draw(st.integers(0, layout.world_size - 1)))
