"""Calls that are in the wrong place."""

from . import ColossalaiEnvError, where


class LaunchError(ColossalaiEnvError):
    """The call is in the wrong place."""


class AlreadyInitialized(LaunchError):
    """A process is in one job at a time."""

    first: str
    remedy: str

    def __str__(self) -> str:
        return f"this process is already {self.first}: {self.remedy}."


class NoGroup(LaunchError):
    """A process group was to be adopted, and this process is in none."""

    process: str

    def __str__(self) -> str:
        return (
            f"this process, {self.process}, is in no process group that could be adopted: call "
            "init_from_env(attach=True) after the group is made, or leave attach out, so that this call makes it."
        )


class WrongGroup(LaunchError):
    """In the process group that is to be adopted, this process is another rank than its launcher says."""

    rank: int
    world_size: int
    claim: str
    sources: str

    def __str__(self) -> str:
        return (
            f"in the process group that is to be adopted this process is rank {self.rank} of {self.world_size}, and "
            f"its launcher says {self.claim} ({self.sources}): make the group with the launcher's numbers, or, where "
            'the group is right, pass resolver="single-process".'
        )


class NotYetKnown(LaunchError):
    """Another library needs what the launcher's variables do not say, and what is known when the ranks have met."""

    resolver: str
    field: str
    rank: int
    call: str

    def __str__(self) -> str:
        return (
            f"{self.resolver} does not say the {self.field}{where(self.rank)}, which is known when the ranks have met: "
            f"call job = init_from_env() first, and {self.call}(job)."
        )


class WrongDevices(LaunchError, ValueError):
    """Another library was told to use other processes than the launcher has started."""

    library: str
    told: str
    claim: str
    advice: str

    def __str__(self) -> str:
        return f"{self.library} was told {self.told}, and this process is {self.claim}: {self.advice}."


class ChildOfRank(LaunchError):
    """A process that a rank started, such as a worker of a data loader: it is no rank itself."""

    child: str
    parent: str
    remedy: str

    def __str__(self) -> str:
        return f"this process, {self.child}, {self.parent}, and is no rank itself: {self.remedy}."


class UnsupportedPlatform(LaunchError):
    """The operating system lacks what the meeting of several ranks needs."""

    platform: str
    absent: str

    def __str__(self) -> str:
        return (
            f"several ranks cannot meet on {self.platform}, which has no {self.absent}: start them on Linux. "
            "resolve() and explain() work here, and init_from_env() does for a process alone."
        )


class UnsupportedTorch(LaunchError, ImportError):
    """The process group is torch's, and the torch of this Python cannot make it."""

    problem: str
    python: str
    host: str

    def __str__(self) -> str:
        return (
            f"{self.problem}, for {self.python} on {self.host}, and init_from_env() makes torch's "
            f"process group: {self.python} -m pip install 'torch>=2.6', or the build of it that fits this "
            "machine's accelerators (https://pytorch.org/get-started). resolve() and explain() work without torch."
        )


class WrongLauncher(LaunchError):
    """A `launch_from_*` function was called in a process that another launcher started, or none."""

    call: str
    starter: str
    reason: str
    seems: str
    fits: str

    def __str__(self) -> str:
        return (
            f"{self.call}() is for processes that {self.starter} starts: {self.reason}. "
            f"This one seems to be started by {self.seems}: start it with {self.starter}, or call {self.fits}."
        )
