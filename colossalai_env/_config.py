"""Config: what a training script is told to do, read from a file or a dict, and never changed again."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, MutableSequence, MutableSet, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from types import ModuleType
from typing import Any, NoReturn, TypeAlias, cast

from .errors import InvalidConfig, ReadOnlyConfig, UnknownConfigEntry, ends_at_caller, quoted

ConfigLike: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""What a config may be given as: the path of a file, or a mapping."""


class Config(Mapping[str, Any]):
    """A read-only mapping whose entries are also attributes, at every depth.

    Mappings inside it are Configs, lists and other sequences that can be changed are tuples, sets are frozen. Two are
    equal when their entries are, wherever they came from; a dict with the same entries is equal too.
    """

    __slots__ = ("_entries",)

    _entries: dict[str, Any]

    def __init__(self, entries: Mapping[str, Any] | None = None, /) -> None:
        """Copy the entries; raise `InvalidConfig` for a value that is no mapping, and a key that is no attribute."""
        if entries is not None and not isinstance(cast("object", entries), Mapping):
            raise InvalidConfig(f"config={quoted(entries)}", f"a dict is required, not {type(entries).__name__}", None)
        object.__setattr__(self, "_entries", _frozen_entries(entries or {}, "the dict", ""))

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - entries are of any type
        """Return an entry; raise `UnknownConfigEntry` with the ones there are."""
        if key in self._entries:
            return self._entries[key]
        raise UnknownConfigEntry(key, tuple(self._entries), tuple(get_close_matches(str(key), self._entries, 1)))

    def __getattr__(self, key: str) -> Any:  # noqa: ANN401 - entries are of any type
        try:
            return self[key]
        except UnknownConfigEntry as unknown:
            raise AttributeError(str(unknown), name=key, obj=self) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __setattr__(self, key: str, value: object) -> NoReturn:
        raise ReadOnlyConfig(key)

    def __delattr__(self, key: str) -> NoReturn:
        raise ReadOnlyConfig(key)

    def __setitem__(self, key: str, value: object) -> NoReturn:
        raise ReadOnlyConfig(key)

    def __delitem__(self, key: str) -> NoReturn:
        raise ReadOnlyConfig(key)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Config):
            return self._entries == other._entries
        return isinstance(other, Mapping) and self.to_dict() == _thawed(cast("Mapping[str, Any]", other))

    __hash__ = None  # type: ignore[assignment] # entries need not have hashes

    def __reduce__(self) -> tuple[type["Config"], tuple[dict[str, Any]]]:
        return Config, (self.to_dict(),)

    def __repr__(self) -> str:
        return f"Config({self.to_dict()!r})"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._entries})

    def to_dict(self) -> dict[str, Any]:
        """Return the entries as new plain dicts, lists and sets, which may be changed."""
        return cast("dict[str, Any]", _thawed(self))


def _made(entries: Mapping[Any, Any], source: str, path: str) -> Config:
    config = Config()
    object.__setattr__(config, "_entries", _frozen_entries(entries, source, path))
    return config


def _frozen(value: Any, source: str, path: str) -> Any:  # noqa: ANN401 - entries are of any type
    if isinstance(value, Config):
        return value
    if isinstance(value, Mapping):
        return _made(cast("Any", value), source, f"{path}.")
    if _is_list(value):
        items = cast("Sequence[object]", value)
        return tuple(_frozen(item, source, f"{path}[{index}]") for index, item in enumerate(items))
    return frozenset(cast("Iterable[object]", value)) if isinstance(value, MutableSet) else value


def _is_list(value: object) -> bool:
    """Return whether a value is a list of whatever library, or a plain tuple; a named one or a torch.Size is not."""
    return type(value) is tuple or (isinstance(value, MutableSequence) and not isinstance(value, bytearray))


def _frozen_entries(entries: Mapping[Any, Any], source: str, path: str) -> dict[str, Any]:
    for key in entries:
        problem = ""
        if not isinstance(key, str) or not key.isidentifier():
            problem = "is no identifier: write letters, digits and underscores, a digit not first"
        elif hasattr(Config, key):
            problem = "is the name of a method, and entries are attributes too: choose another"
        if problem:
            raise InvalidConfig(source, f"key {_name(path, key)} {problem}", _line_of(source, key))
    return {key: _frozen(value, source, f"{path}{key}") for key, value in entries.items()}


def _name(path: str, key: object) -> str:
    return repr(f"{path}{key}" if isinstance(key, str) else key)


def _line_of(source: str, key: object) -> int | None:
    """Find the line of a file that holds a key, where exactly one does."""
    if not os.path.isfile(source):
        return None
    with open(source, encoding="utf-8") as file:
        found = [number for number, line in enumerate(file, 1) if str(key) in line]
    return found[0] if len(found) == 1 else None


def _thawed(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _thawed(item) for key, item in cast("Mapping[str, object]", value).items()}
    if _is_list(value):
        return [_thawed(item) for item in cast("Sequence[object]", value)]
    return set(cast("Iterable[object]", value)) if type(value) is frozenset else value


@ends_at_caller
def load_config(config: ConfigLike, /) -> Config:
    """Read a config from a `.py`, `.toml`, `.json`, `.yaml` or `.yml` file, or take it from a mapping.

    A `.py` file runs as code, with its folder first on `sys.path` meanwhile: its public names become the entries, but
    for modules, classes and functions. Raises `InvalidConfig`, which names file, line and key.
    """
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return Config(config)
    if not isinstance(cast("object", config), (str, os.PathLike)):
        raise InvalidConfig(
            f"config={config!r}", f"a config is required, a path or a dict, not {type(config).__name__}", None
        )
    path = os.fspath(config)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _READERS:
        raise InvalidConfig(path, f"its suffix is {suffix!r}, expected one of {', '.join(_READERS)}", None)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        where = "" if os.path.isabs(path) else f" (looked for in {os.getcwd()})"
        raise InvalidConfig(path, f"it cannot be read: {error.strerror}{where}", None) from None
    entries = _READERS[suffix](path, text)
    if not isinstance(entries, Mapping):
        raise InvalidConfig(path, f"it holds a {type(entries).__name__}, expected names with values", None)
    return _made(cast("Any", entries), path, "")


def _python(path: str, text: bytes) -> dict[str, Any]:
    try:
        code = compile(text, path, "exec")
    except (SyntaxError, ValueError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        problem = (error.msg if isinstance(error, SyntaxError) else str(error)) or "invalid syntax"
        raise InvalidConfig(path, problem, line) from error
    with _importable(os.path.dirname(os.path.abspath(path))) as package:
        module = ModuleType(f"{package}.{os.path.splitext(os.path.basename(path))[0]}")
        module.__file__, module.__package__ = path, package
        sys.modules[module.__name__] = module
        try:
            exec(code, module.__dict__)  # noqa: S102 - a .py config runs as code, and the docs say so
        except Exception as error:
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
            raise InvalidConfig(path, f"{type(error).__name__}: {error}", lines[-1] if lines else None) from error
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and _is_entry(value)}


@contextmanager
def _importable(folder: str) -> Generator[str]:
    """Let a config import the files beside it, by name or relatively; the next config's files may bear equal names."""
    package = ModuleType("_colossalai_env_config")
    package.__path__ = [folder]
    before = set(sys.modules)
    sys.modules[package.__name__] = package
    sys.path.insert(0, folder)
    try:
        yield package.__name__
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if name.startswith(package.__name__) or (file and os.path.dirname(os.path.abspath(file)) == folder):
                del sys.modules[name]


def _is_entry(value: object) -> bool:
    from inspect import isclass, ismodule, isroutine

    code = ismodule(value) or isclass(value) or isroutine(value)
    return not code and type(value).__module__ != "__future__"


def _json(path: str, text: bytes) -> object:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InvalidConfig(path, f"key {key!r} is there twice", None)
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise InvalidConfig(path, error.msg, error.lineno) from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(path, f"it is no text in UTF-8: {error.reason}", None) from error


def _toml(path: str, text: bytes) -> object:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text.decode())
    except ValueError as error:  # of which both TOMLDecodeError and UnicodeDecodeError are children; it says the line
        raise InvalidConfig(path, str(error), None) from error


def _yaml(path: str, text: bytes) -> object:
    try:
        import yaml
    except ImportError as error:
        raise InvalidConfig(path, "reading YAML needs PyYAML: pip install PyYAML", None) from error
    import re

    class Loader(yaml.SafeLoader):
        """YAML in which 1e-4 is a number, as in YAML 1.2, and a key that is there twice is an error."""

    Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )

    def once(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        own: set[str] = set()
        for key, _ in node.value:
            if key.value in own and key.tag != "tag:yaml.org,2002:merge":
                raise InvalidConfig(path, f"key {key.value!r} is there twice", key.start_mark.line + 1)
            own.add(str(key.value))
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:map", once)
    try:
        entries = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise InvalidConfig(path, error.problem or str(error), line) from error
    except yaml.YAMLError as error:
        raise InvalidConfig(path, str(error), None) from error
    return {} if entries is None else entries


_READERS: Mapping[str, Callable[[str, bytes], Any]] = {
    ".py": _python,
    ".toml": _toml,
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
}
