"""A whole launch: which rank runs where."""

from collections import Counter

import attrs

from colossalai_env import DistSpec


@attrs.frozen
class Layout:
    """Hosts, and for each rank the index of its host; the ranks of a host are numbered in their order."""

    hosts: tuple[str, ...]
    nodes: tuple[int, ...]
    port: int
    job_id: str | None = None
    agent_store: bool = False

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
            local_rank=self.nodes[:rank].count(node),
            local_world_size=Counter(self.nodes)[node],
            node_rank=node,
            num_nodes=len(self.hosts),
            host=self.hosts[self.nodes[0]],
            port=self.port,
            job_id=self.job_id,
            agent_store=self.agent_store,
        )
