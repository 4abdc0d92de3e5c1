"""A whole launch: which rank runs where."""

from collections import Counter

import attrs

from colossalai_env import DistSpec


@attrs.frozen
class Layout:
    """Hosts, and for each rank the index of its host.

    The ranks of a host are numbered in their order, or as `local_ranks` says.
    """

    hosts: tuple[str, ...]
    """The hosts' names, by node."""
    nodes: tuple[int, ...]
    """The node of each rank."""
    port: int = 29500
    """The TCP port of rank 0's store."""
    job_id: str | None = None
    """The launch's own token, in the launcher's form."""
    agent_store: bool = False
    """Whether the launcher serves the store."""
    local_ranks: tuple[int, ...] | None = None
    """The local rank of each rank, where they do not follow the order of the ranks."""

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return len(self.nodes)

    def spec(self, rank: int) -> DistSpec:
        """Return one rank's spec, with every field filled."""
        node = self.nodes[rank]
        return DistSpec(
            rank=rank,
            world_size=len(self.nodes),
            local_rank=self.nodes[:rank].count(node) if self.local_ranks is None else self.local_ranks[rank],
            local_world_size=Counter(self.nodes)[node],
            node_rank=node,
            num_nodes=len(self.hosts),
            host=self.hosts[self.nodes[0]],
            port=self.port,
            job_id=self.job_id,
            agent_store=self.agent_store,
        )
