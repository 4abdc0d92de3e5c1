"""Installed plugins and the resolvers they bring, found through entry points."""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pluggy

from . import _hookspecs as hookspecs
from ._entry_points import Elsewhere, entries
from .environ import Environ
from .errors import BrokenPlugin, ColossalaiEnvError, RivalPlugins, UnknownResolver
from .resolver import Layer, ResolverProtocol

if TYPE_CHECKING:
    from importlib.metadata import Distribution

DISABLE = "COLOSSALAI_ENV_DISABLE"
"""Names plugins, separated by commas, that are left out without being imported."""


class Plugin(NamedTuple):
    """An entry point of our group: a plugin that is installed, imported or not."""

    name: str
    module: str
    home: "str | Distribution | None"
    """The folder of its distribution's metadata, or the distribution."""

    @property
    def distribution(self) -> str:
        """The name and version of its distribution."""
        from importlib.metadata import Distribution

        found = Distribution.at(self.home) if isinstance(self.home, str) else self.home
        return f"{found.name} {found.version}" if found else "an unknown distribution"

    def broken(self, problem: str) -> BrokenPlugin:
        """Return the error that names this plugin."""
        return BrokenPlugin(self.name, self.distribution, problem)


class Registered(NamedTuple):
    """A resolver and the plugin that brought it."""

    resolver: ResolverProtocol
    plugin: Plugin


def installed() -> tuple[Plugin, ...]:
    """Return the plugins of all installed distributions, by name; nothing is imported."""
    try:
        found = [Plugin(*entry) for entry in entries(hookspecs.PROJECT)]
    except Elsewhere:
        from importlib.metadata import entry_points

        found = [Plugin(entry.name, entry.value, entry.dist) for entry in entry_points(group=hookspecs.PROJECT)]
    return tuple(sorted(found, key=lambda plugin: plugin.name))


def disabled(environ: Environ, plugins: Sequence[Plugin]) -> frozenset[str]:
    """Return the names in COLOSSALAI_ENV_DISABLE; raise `UnknownResolver` for one that no plugin provides."""
    listed = environ.get(DISABLE) or ""
    names = frozenset(name for name in listed.split(",") if name)
    known = tuple(dict.fromkeys(plugin.name for plugin in plugins))
    for name in sorted(names.difference(known)):
        raise UnknownResolver(DISABLE, name, known)
    return names


_loaded: dict[frozenset[str], tuple[Registered, ...]] = {}


def resolvers(environ: Environ) -> tuple[Registered, ...]:
    """Return the resolvers of all plugins that `environ` does not disable, ordered by layer and name.

    A process's plugins are loaded once for each set of disabled names. Raises `BrokenPlugin`,
    `RivalPlugins` or `UnknownResolver`: a plugin that is silently left out on one node means that
    another resolver answers there, and the job hangs.
    """
    listed = environ.get(DISABLE)
    key = frozenset([listed] if listed else ())
    if key not in _loaded:
        plugins = installed()
        _loaded[key] = load(plugins, disabled(environ, plugins))
    return _loaded[key]


class _Manager(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Look at what is named like a hook alone: pluggy looks into every name of a module, imported ones too."""
        return super().parse_hookimpl_opts(plugin, name) if name.startswith(hookspecs.PROJECT) else None


def load(plugins: Sequence[Plugin], without: frozenset[str] = frozenset()) -> tuple[Registered, ...]:
    """Import and register `plugins` but those named in `without`, and collect their resolvers."""
    manager = _Manager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name in without:
        manager.set_blocked(name)
    wanted = [plugin for plugin in plugins if not manager.is_blocked(plugin.name)]
    _refuse_rivals("plugin", [(plugin.name, plugin) for plugin in wanted], lambda plugin: plugin.distribution)
    for plugin in wanted:
        _register(manager, plugin)
    found = [Registered(resolver, plugin) for plugin in wanted for resolver in _collect(manager, plugin)]
    _refuse_rivals("resolver", [(item.resolver.name, item.plugin) for item in found], _owner)
    return tuple(sorted(found, key=lambda item: (item.resolver.layer, item.resolver.name)))


def _owner(plugin: Plugin) -> str:
    return f"plugin {plugin.name!r} of {plugin.distribution}"


def _refuse_rivals(kind: str, owned: Sequence[tuple[str, Plugin]], told: Callable[[Plugin], str]) -> None:
    owners: dict[str, list[Plugin]] = {}
    for name, plugin in owned:
        owners.setdefault(name, []).append(plugin)
    for name, rivals in owners.items():
        if len(rivals) > 1:
            raise RivalPlugins(kind, name, tuple(map(told, rivals)))


def _register(manager: pluggy.PluginManager, plugin: Plugin) -> None:
    try:
        manager.register(import_module(plugin.module), name=plugin.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise plugin.broken(str(error)) from error
    except (Exception, SystemExit) as error:
        raise plugin.broken(f"its import of {plugin.module} failed: {_told(error)}") from error


def _collect(manager: pluggy.PluginManager, plugin: Plugin) -> Iterable[ResolverProtocol]:
    """Call one plugin's implementation of the hook, so that its failure names it."""
    hook = manager.hook.colossalai_env_resolvers
    calls = [
        implementation.function for implementation in hook.get_hookimpls() if implementation.plugin_name == plugin.name
    ]
    if not calls:
        raise plugin.broken("it implements no hook, expected colossalai_env_resolvers marked with hookimpl")
    try:
        found = tuple(cast("Iterable[Any]", calls[0]()))
    except (Exception, SystemExit) as error:
        raise plugin.broken(f"its hook colossalai_env_resolvers failed: {_told(error)}") from error
    for resolver in found:
        if not isinstance(resolver, ResolverProtocol):
            raise plugin.broken(f"its hook returned {resolver!r}, expected resolvers: name, layer, resolve, emulate")
        for attribute, kind in (("name", str), ("layer", Layer)):
            if not isinstance(value := getattr(resolver, attribute), kind):
                raise plugin.broken(f"the {attribute} of its {resolver!r} is {value!r}, expected a {kind.__name__}")
    return found


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, ColossalaiEnvError) else f"{type(error).__name__}: {error}"
