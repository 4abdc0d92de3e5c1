"""Installed plugins and the resolvers they bring, found through entry points."""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pluggy

from . import _hookspecs as hookspecs
from ._entry_points import Elsewhere, entries
from .environ import Environ
from .errors import BrokenPlugin, ColossalaiEnvError, NoPlugins, RivalPlugins, UnknownResolver
from .resolver import Layer, Resolver, ResolverProtocol

if TYPE_CHECKING:
    from importlib.metadata import Distribution

DISABLE = "COLOSSALAI_ENV_DISABLE"
"""Names plugins, separated by commas, that are left out without being imported."""


MARKS = f"{hookspecs.PROJECT}.marks"
"""Entry points of this group are named for the marker variables of a plugin, whose module they hold."""


class Plugin(NamedTuple):
    """An entry point of our group: a plugin that is installed, imported or not."""

    name: str
    module: str
    home: "str | Distribution | None"
    """The folder of its distribution's metadata, or the distribution."""
    marks: frozenset[str] = frozenset()
    """The marker variables that its metadata names, if it does."""

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
    plugins: list[Plugin] = []
    marks: dict[tuple[object, str], set[str]] = {}
    for group, name, module, home in _entries():
        if group == MARKS:
            marks.setdefault((home, module), set()).add(name)
        else:
            plugins.append(Plugin(name, module, home))
    marked = (plugin._replace(marks=frozenset(marks.get((plugin.home, plugin.module), ()))) for plugin in plugins)
    return tuple(sorted(marked, key=lambda plugin: plugin.name))


def _entries() -> "Iterable[tuple[str, str, str, str | Distribution | None]]":
    """Return group, name, value and home of all entry points of ours."""
    groups = (hookspecs.PROJECT, MARKS)
    try:
        return list(entries(*groups))
    except Elsewhere:
        from importlib.metadata import entry_points

        every = entry_points()
        found = [entry for group in groups for entry in every.select(group=group)]
        return [(entry.group, entry.name, entry.value, entry.dist) for entry in found]


def disabled(environ: Environ, plugins: Sequence[Plugin]) -> frozenset[str]:
    """Return the names in COLOSSALAI_ENV_DISABLE; raise `UnknownResolver` for one that no plugin provides."""
    listed = environ.get(DISABLE) or ""
    names = frozenset(name for name in listed.split(",") if name)
    known = tuple(dict.fromkeys(plugin.name for plugin in plugins))
    for name in sorted(names.difference(known)):
        raise UnknownResolver(DISABLE, name, known)
    return names


class Registry:
    """Plugins, and the resolvers that they bring.

    A plugin whose metadata names its marker variables is imported when one of them is set, and any other one at once.
    """

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        _refuse_rivals("plugin", [(plugin.name, plugin) for plugin in plugins], lambda plugin: plugin.distribution)
        self._plugins = {plugin.name: plugin for plugin in plugins}
        self._brought: dict[str, tuple[Registered, ...]] = {}
        """The resolvers of each plugin that is loaded."""
        self._always: set[str] = set()
        """Plugins whose marks are not known: they have to be asked to tell."""
        self._by_mark: dict[str, list[str]] = {}
        self._of([plugin.name for plugin in plugins if not plugin.marks])
        for plugin in plugins:
            marks = plugin.marks or marks_of(self._brought[plugin.name])
            for mark in marks or ():
                self._by_mark.setdefault(mark, []).append(plugin.name)
            if marks is None:
                self._always.add(plugin.name)
        self._options = [mark for mark in self._by_mark if mark.startswith("--")]

    def every(self) -> tuple[Registered, ...]:
        """Return all resolvers, ordered by layer and name."""
        return self._of(self._plugins)

    def called(self, environ: Environ) -> tuple[Registered, ...]:
        """Return those that may match, in the same order: a mark of their plugin is set, or its marks are not known."""
        marks = self._by_mark.keys() & environ.variables.keys()
        marks.update(option for option in self._options if option in environ)
        return self._of(self._always.union(*(self._by_mark[mark] for mark in marks)))

    def _of(self, names: Collection[str]) -> tuple[Registered, ...]:
        missing = [self._plugins[name] for name in names if name not in self._brought]
        if missing:
            self._load(missing)
        found = [item for name in names for item in self._brought[name]]
        return tuple(sorted(found, key=lambda item: (item.resolver.layer, item.resolver.name)))

    def _load(self, plugins: Sequence[Plugin]) -> None:
        brought = {**self._brought, **load(plugins)}
        _refuse_rivals(
            "resolver", [(one.resolver.name, one.plugin) for all_ in brought.values() for one in all_], _owner
        )
        self._brought = brought


_registries: dict[str, Registry] = {}
"""By the text of COLOSSALAI_ENV_DISABLE."""


def _registry(environ: Environ) -> Registry:
    listed = environ.get(DISABLE) or ""
    if listed not in _registries:
        plugins = installed()
        if not plugins:
            raise NoPlugins(os.path.dirname(__file__), sys.executable)
        without = disabled(environ, plugins)
        _registries[listed] = Registry([plugin for plugin in plugins if plugin.name not in without])
    return _registries[listed]


def resolvers(environ: Environ) -> tuple[Registered, ...]:
    """Return the resolvers of all plugins that `environ` does not disable, ordered by layer and name.

    Raises `NoPlugins`, `BrokenPlugin`, `RivalPlugins` or `UnknownResolver`: a plugin that is silently left out on one
    node means that another resolver answers there, and the job hangs.
    """
    return _registry(environ).every()


def called(environ: Environ) -> tuple[Registered, ...]:
    """Return those of them that may match; the other plugins are not even imported where their metadata names marks."""
    return _registry(environ).called(environ)


class _Manager(pluggy.PluginManager):
    """Looks at what is named like a hook alone: pluggy looks into every name of a module, imported ones too."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return super().parse_hookimpl_opts(plugin, name) if name.startswith(hookspecs.PROJECT) else None

    def parse_hookspec_opts(self, module_or_class: ModuleType | type, name: str) -> pluggy.HookspecOpts | None:
        return super().parse_hookspec_opts(module_or_class, name) if name.startswith(hookspecs.PROJECT) else None


def load(plugins: Sequence[Plugin]) -> dict[str, tuple[Registered, ...]]:
    """Import and register plugins, and collect the resolvers of each; raise `BrokenPlugin`."""
    manager = _Manager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for plugin in plugins:
        _register(manager, plugin)
    return {plugin.name: _collect(manager, plugin) for plugin in plugins}


def marks_of(brought: Sequence[Registered]) -> frozenset[str] | None:
    """Return the marks of a plugin's tables; None where a resolver of its is told otherwise."""
    known = [item.resolver.marks if isinstance(item.resolver, Resolver) else None for item in brought]
    return None if None in known else frozenset(mark for marks in known for mark in marks or ())


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


def _collect(manager: pluggy.PluginManager, plugin: Plugin) -> tuple[Registered, ...]:
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
    brought = tuple(Registered(resolver, plugin) for resolver in found)
    unnamed = (marks_of(brought) or plugin.marks) - plugin.marks if plugin.marks else ()
    if unnamed:
        raise plugin.broken(f"its metadata names marker variables under {MARKS}, and not {', '.join(sorted(unnamed))}")
    return brought


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, ColossalaiEnvError) else f"{type(error).__name__}: {error}"
