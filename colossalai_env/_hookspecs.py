"""The one hook: it collects resolvers and takes no arguments."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .resolver import ResolverProtocol

PROJECT = "colossalai_env"
"""The name of the pluggy project, of the entry-point group and of the package."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def colossalai_env_resolvers() -> "Iterable[ResolverProtocol]":
    """Return the resolvers that this plugin brings."""
    raise NotImplementedError
