"""Slurm on the bed: one munged, slurmctld on the head host, one slurmd a host, with fake GPUs."""

import os
import re
from pathlib import Path

import attrs

from .clusters import CLUSTERS, Cluster
from .testbed import HEAD, NODES, Bed, Ran, wait_until

TOOLS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "sattach", "scontrol", "scancel")

GPUS = {"gpu-a01": 4, "gpu-a02": 4, "gpu-b07": 2}

CONF = """
ClusterName=bed
SlurmctldHost={head}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
LaunchParameters=use_interactive_step
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters={select}
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%h
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%h.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%h.log
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=1000,batch_sched_delay=0
InactiveLimit=0
KillWait=1
GresTypes=gpu
{more}
{nodes}
PartitionName=gpu Nodes=gpu-a01,gpu-a02,gpu-b07 Default=YES State=UP OverSubscribe=NO
PartitionName=rack Nodes=rack1-n9,rack1-n10,rack2-n010 State=UP
PartitionName=odd Nodes=cn001,gpu-a02 State=UP
PartitionName=all Nodes=ALL State=UP
"""


@attrs.define
class Slurm:
    """Slurm's daemons on a bed; they end with it."""

    bed: Bed
    cluster: Cluster = CLUSTERS["installed"]

    @property
    def folder(self) -> Path:
        """Where the daemons keep their things."""
        return self.bed.folder / "slurm"

    def start(self) -> None:
        """Write the configuration, start the daemons, and wait until all nodes are idle."""
        (self.folder / "state").mkdir(parents=True)
        self._make_devices()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        etc = self.bed.folder / "etc" / "slurm"
        nodes = "\n".join(self._node(name) for name in NODES)
        given = {"head": HEAD, "folder": self.folder, "select": self.cluster.select, "more": self.cluster.more}
        (etc / "slurm.conf").write_text(CONF.format(nodes=nodes, **given))
        for name, text in self.cluster.files.items():
            (etc / name).write_text(text)
        if self.version() >= (23, 11):  # before, whoever asked for no cgroups was left alone
            (etc / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        gres = [f"NodeName={name} Name=gpu File={self.folder}/gpu[0-{count - 1}]" for name, count in GPUS.items()]
        (etc / "gres.conf").write_text("\n".join([*gres, ""]))
        munge = [f"--key-file={key}", f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munge.pid"]
        munge += [f"--log-file={self.folder}/munge.log", f"--seed-file={self.folder}/munge.seed", "--force"]
        self._daemon(HEAD, ["munged", *munge])
        self._daemon(HEAD, ["slurmctld"])
        for name in NODES:
            self._daemon(name, ["slurmd", "-N", "cn001" if name == "odd-host" else name])
        self.rest()

    def rest(self) -> None:
        """Wait until all nodes are idle: a job gets the first ones then."""
        wait_until(self._idle, "all nodes idle")

    def version(self) -> tuple[int, ...]:
        """Return the release's number, such as (24, 11, 5)."""
        said = self.run("slurmctld", "-V").out
        return tuple(int(number) for number in re.findall(r"\d+", said))

    def _make_devices(self) -> None:
        for index in range(4):
            os.mknod(self.folder / f"gpu{index}", 0o20666, os.makedev(1, 3))

    def _node(self, name: str) -> str:
        host = self.bed.hosts[name]
        gres = f" Gres=gpu:{GPUS[name]}" if name in GPUS else ""
        if name == "odd-host":
            return f"NodeName=cn001 NodeHostname={name} NodeAddr={host.address} CPUs=8 State=UNKNOWN"
        return f"NodeName={name} NodeAddr={host.address} CPUs=8{gres} State=UNKNOWN"

    def _daemon(self, host: str, argv: list[str]) -> None:
        ran = self.bed.run(host, argv)
        if ran.code:
            raise RuntimeError(f"{argv[0]} on {host}: {ran.err or ran.out}")

    def _idle(self) -> bool:
        states = self.bed.run(HEAD, ["sinfo", "-h", "-N", "-o", "%N %T"]).out.split()[1::2]
        return len(states) >= len(NODES) and set(states) == {"idle"}

    def run(self, *argv: str, seconds: float = 60) -> Ran:
        """Run one of Slurm's commands on the head host."""
        return self.bed.run(HEAD, argv, seconds=seconds)
