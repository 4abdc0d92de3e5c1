"""What a rank of a fault does in memory: the library's own way into a group, a sum, and out of it."""

import zlib
from collections.abc import Callable
from typing import Any

import attrs

import colossalai_env._join as join
from colossalai_env import ColossalaiEnvError
from colossalai_env._addresses import is_loopback
from colossalai_env._arguments import arguments
from colossalai_env._config import Config
from colossalai_env._rendezvous.protocol.requests import Deadline
from colossalai_env._reporting import report_failure
from colossalai_env._resolution import examine
from colossalai_env.environ import Environ
from tests.faults.dialects import environment, keywords
from tests.faults.model import Bystander, Fault, Process, Rank
from tests.faults.runner import Record

from .network import Network
from .world import Actor, Stopped, World

CAP = 40.0
"""Seconds after which a fault is ended."""

STEPS = {"init", "try", "sum", "close", "hold", "nap"}


def is_played(fault: Fault) -> bool:
    """Tell whether all of a fault can be played in memory: nothing in it is about torch, the system or strangers."""
    seen = {at.seen for at in (*(act.at for act in fault.acts), *(process.after for process in fault.processes))}
    return not fault.looks and not {"ready", "done"} & (seen - {"ready"}) and all(map(_is_plain, fault.processes))


def _is_plain(process: Process) -> bool:
    if isinstance(process, Bystander):
        return process.name == "agent"
    special = [process.cold, process.files, process.torch_version, process.release, process.import_delay]
    special.append(process.keywords.get("device"))
    local = is_loopback(process.host) or process.host == "localhost"
    return not any(special) and local and "GLOO_SOCKET_IFNAME" not in process.settings and {*process.steps} <= STEPS


@attrs.define
class Life:
    """What a rank does, from its first step to its last."""

    world: World
    rank: Rank
    job: Any = None
    prefix: str = ""

    def lead(self) -> bool:
        """Do the steps, and close what is open; return whether all went well."""
        well = self._steps()
        self.close()
        return well

    def close(self) -> None:
        """Close the job, once."""
        if self.job is not None:
            self.job._connected.close()
            self.job = None

    def _steps(self) -> bool:
        for step in self.rank.steps:
            match step:
                case "init" | "try":
                    if not self.init() and step == "init":
                        return False
                case "sum":
                    if not self.sum():
                        return False
                case "hold":
                    self.hold()
                case "nap":
                    self.world.wait(lambda: False, 0.7)
                case _ if self.job is not None:
                    self.close()
                    self.world.say("closed")
                case _:
                    raise ValueError(step)
        return True

    def hold(self) -> None:
        """Wait until it is released."""
        me = self.world.me
        self.world.wait(lambda: me.released)

    def init(self) -> bool:
        """Join, as init_from_env does."""
        self.job = None
        self.world.say("entered", pid=self.world.me.trace.pid)
        try:
            self.job = self._join()
        except (ColossalaiEnvError, Stopped, KeyboardInterrupt) as error:
            deliberate = isinstance(error, ColossalaiEnvError)
            self.world.say("raised", kind=type(error).__name__, text=str(error), deliberate=deliberate)
            if not deliberate:
                raise
            return False
        self.prefix = self.job._connected.entered.group_prefix
        self.world.say("returned")
        return True

    def _join(self) -> Any:
        deadline = Deadline(self.world.clock, self.world.clock(), self.rank.timeout)
        environ = Environ(environment(self.rank, self.world.place, "colossalai_env"), [])
        asked = dict.fromkeys(("rank", "world_size", "local_rank", "host", "port", "backend"))
        given = arguments(None, **{**asked, **keywords(self.rank, self.world.place)})
        resolution = examine(environ, given)
        outcome = resolution.outcome
        if isinstance(outcome, ColossalaiEnvError):
            report_failure(outcome, resolution, environ, given)
            raise outcome
        return join.join_world(outcome, resolution.deciding, environ, deadline, None, Config)

    def sum(self) -> bool:
        """Sum over the group."""
        me, members = self.world.me, self.world.members[self.prefix]
        me.sums += 1
        mine = me.sums

        def short() -> list[Actor]:
            return [one for one in members.values() if one.sums < mine]

        self.world.wait(lambda: not short() or any(one.gone for one in short()))
        if short():
            self.world.say("collective failed", kind="RuntimeError", text="a peer is gone")
            return False
        told = [
            [zlib.crc32(one.process.job.encode()) if isinstance(one.process, Rank) else 0, rank, one.trace.pid]
            for rank, one in sorted(members.items())
        ]
        self.world.say("summed", sum=len(members), members=told)
        return True


def play(
    fault: Fault,
    cap: float = CAP,
    choose: Callable[[int], int] = lambda _count: 0,
    pace: Callable[[int], float] = lambda _pid: 1.0,
) -> Record:
    """Play a fault in memory, for at most `cap` seconds of its own clock."""
    world = World(fault, lambda world, rank: Life(world, rank).lead(), choose, pace)
    with Network(world).installed():
        return world.play(cap)
