"""The kit for authors of resolvers: launches, environments, recorded ones, and the contract of every resolver."""

from .broken_law import BrokenLaw
from .captures import Capture, Task, captures
from .contract import ResolverContract
from .environments import environs
from .launching import Ended, launch_as
from .layouts import Layout
from .replay import replay
from .strategies import dist_specs, host_lists, layouts

__all__ = [
    "BrokenLaw",
    "Capture",
    "Ended",
    "Layout",
    "ResolverContract",
    "Task",
    "captures",
    "dist_specs",
    "environs",
    "host_lists",
    "launch_as",
    "layouts",
    "replay",
]
