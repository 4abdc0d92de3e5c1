"""What is wrong with a program's config."""

from . import ColossalaiEnvError


class ConfigError(ColossalaiEnvError):
    """The config of the program is wrong."""


class InvalidConfig(ConfigError, ValueError):
    """A config that cannot be read, or that has an entry that cannot be."""

    source: str
    problem: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}, line {self.line}"
        return f"config: {place}: {self.problem}."


class UnknownConfigEntry(ConfigError, KeyError):
    """The config has no entry of this name."""

    key: str
    known: tuple[str, ...]
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        near = f", did you mean {self.near[0]!r}?" if self.near else ""
        entries = f"its entries are {', '.join(self.known)}" if self.known else "it is empty"
        return f"the config has no entry {self.key!r}{near or ':'} {entries}."


class ReadOnlyConfig(ConfigError, AttributeError, TypeError):
    """A config is not changed once it is read: all ranks and all parts of a program see the same."""

    key: str

    def __str__(self) -> str:
        return (
            f"the config is read-only, so {self.key!r} cannot be changed: change it in the file, or make another "
            "config from a changed config.to_dict()."
        )
