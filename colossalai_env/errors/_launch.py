"""Calls that are in the wrong place."""

from . import ColossalaiEnvError


class LaunchError(ColossalaiEnvError):
    """The call is in the wrong place."""


class AlreadyInitialized(LaunchError):
    """A process is in one job at a time."""

    first: str
    remedy: str

    def __str__(self) -> str:
        return f"this process is already {self.first}: {self.remedy}."


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
