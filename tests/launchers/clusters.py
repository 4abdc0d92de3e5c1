"""The Slurms that the bed can be, as data: which release, and how its cluster is configured."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs


@attrs.frozen
class Release:
    """One release of Slurm: the installed one, or that of another Debian suite, in a root of its own."""

    number: str
    """What its version begins with; nothing for whatever is installed."""
    suite: str = ""
    """The Debian suite that has it."""
    moving: bool = False
    """Whether the suite goes on to other releases: what it no longer has cannot be run, and need not."""

    @property
    def root(self) -> Path | None:
        """Where its files are, or would be; None where they are this machine's own."""
        return Path(sys.prefix) / f"slurm-{self.number}" if self.suite else None

    @property
    def gone(self) -> Path:
        """Says what the suite has instead, where that was found."""
        return Path(f"{self.root}.gone")

    def obstacle(self) -> str:
        """Say why it cannot be run, or nothing."""
        if self.root is None or (self.root / "ready").exists():
            return ""
        found = f" ({self.gone.read_text().strip()})" if self.gone.exists() else ""
        return f"Slurm {self.number} has no root{found}: make {os.path.relpath(self.root)}/ready"


INSTALLED = Release("")
TRIXIE = Release("24.11", "trixie")
FORKY = Release("26.05", "forky", moving=True)
RELEASES = {release.number: release for release in (TRIXIE, FORKY)}


@attrs.frozen
class Cluster:
    """A release, and how its cluster is configured."""

    name: str
    release: Release
    select: str = "CR_CPU"
    """Its SelectTypeParameters."""
    more: str = ""
    """Further lines of slurm.conf."""
    files: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Further files beside slurm.conf."""

    @property
    def by_topology(self) -> bool:
        """Whether its blocks of tasks may follow another order than its lists of nodes."""
        return self.release.number >= "26.05"

    @property
    def prefix(self) -> str:
        """What the names of its recordings begin with."""
        return f"slurm{self.name}".replace(".", "").replace("-", "_") if self.release.suite else "slurm"


TREE = """
SwitchName=s1 Nodes=gpu-b07,rack2-n010
SwitchName=s2 Nodes=gpu-a02,rack1-n9
SwitchName=s3 Nodes=gpu-a01,rack1-n10,cn001
SwitchName=top Switches=s1,s2,s3
"""
"""Switches against the order of the nodes' names: what follows them is told from what follows the names."""

BLOCKS = """
BlockName=b1 Nodes=gpu-b07,rack2-n010
BlockName=b2 Nodes=gpu-a02,rack1-n9
BlockName=b3 Nodes=gpu-a01,rack1-n10
BlockName=b4 Nodes=cn001
BlockSizes=1
"""

RINGS = """---
- topology: rings
  cluster_default: true
  ring:
    rings:
      - ring: r1
        nodes: gpu-b07,gpu-a02,gpu-a01
      - ring: r2
        nodes: rack2-n010,rack1-n10,rack1-n9
      - ring: r3
        nodes: cn001
"""

ALPHA = """---
- topology: names
  cluster_default: true
  flat:
    alpha_step_rank: true
"""

BY_TREE, BY_BLOCK = "TopologyPlugin=topology/tree", "TopologyPlugin=topology/block"

CLUSTERS = {
    cluster.name: cluster
    for cluster in (
        Cluster("installed", INSTALLED),
        Cluster("24.11", TRIXIE),
        Cluster("24.11-tree", TRIXIE, more=BY_TREE, files={"topology.conf": TREE}),
        Cluster("26.05", FORKY),
        Cluster("26.05-tree", FORKY, more=BY_TREE, files={"topology.conf": TREE}),
        Cluster("26.05-pack", FORKY, select="CR_CPU,CR_Pack_Nodes"),
        Cluster("26.05-block", FORKY, more=BY_BLOCK, files={"topology.conf": BLOCKS}),
        Cluster("26.05-ring", FORKY, files={"topology.yaml": RINGS}),
        Cluster("26.05-alpha", FORKY, files={"topology.yaml": ALPHA}),
        Cluster(
            "26.05-tree-nodes-by-switch",
            FORKY,
            more=f"{BY_TREE}\nTopologyParam=SwitchAsNodeRank",
            files={"topology.conf": TREE},
        ),
        Cluster(
            "26.05-tree-names-first",
            FORKY,
            select="CR_CPU,CR_NO_DIST_TOPO_BLOCK",
            more=BY_TREE,
            files={"topology.conf": TREE},
        ),
    )
}
