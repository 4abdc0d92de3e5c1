"""The failure of a law of the contract, or of a replayed launch."""

import attrs

from colossalai_env.resolver import Environ


@attrs.define
class BrokenLaw(AssertionError):
    """A law that a resolver breaks, with the smallest environment in which it does."""

    resolver: str
    sentence: str
    environ: Environ | None = None

    def __str__(self) -> str:
        """Print the sentence, then the environment, one variable a line."""
        lines = [f"{self.resolver}: {self.sentence}"]
        if self.environ is not None:
            lines += [f"    {name}={text!r}" for name, text in self.environ.variables.items()]
            lines += [f"    {argument}" for argument in self.environ.argv]
            lines += ["    (no variables)"] if lines[1:] == [] else []
        return "\n".join(lines)
