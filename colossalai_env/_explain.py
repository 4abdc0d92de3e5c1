"""explain(): who was asked, who claimed, who won, and where each value came from; as text or as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ._arguments import arguments, mistyped, unread
from ._candidates import Candidate
from ._derived import allowed, is_asked_for
from ._resolution import Resolution, examine
from .environ import Environ
from .errors import ColossalaiEnvError
from .resolver import Claim, NoMatch, Resolver, ResolverProtocol
from .spec import FIELDS, DistSpec


@attrs.frozen
class Explanation:
    """Why `resolve` answers as it does: ``str()`` for people, `to_dict` for programs."""

    resolution: Resolution
    will_be_asked: tuple[str, ...] | None = None
    """The ways in which the launcher will be asked for what its variables do not say; None where nothing is missing."""

    def __str__(self) -> str:
        """Return the report: one line a resolver, then one line a field, or the error."""
        lines = ["Resolvers asked, innermost first:"]
        lines += [f"  {self._answer(candidate)}" for candidate in self.resolution.candidates]
        lines += [f"Warning: {warning}" for warning in self.resolution.warnings]
        outcome = self.resolution.outcome
        if isinstance(outcome, ColossalaiEnvError):
            return "\n".join([*lines, f"{type(outcome).__name__}: {outcome}", where_told(type(outcome).__name__)])
        width = max(len(name) for name in FIELDS)
        lines.append(f"Answer: {outcome}")
        lines += [f"  {name:{width}}  {self._told(outcome, name)}" for name in FIELDS if name != "resolver"]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain values that JSON can carry."""
        outcome = self.resolution.outcome
        report: dict[str, Any] = {
            "resolvers": [self._candidate(item) for item in self.resolution.candidates],
            "warnings": list(self.resolution.warnings),
        }
        if isinstance(outcome, ColossalaiEnvError):
            report["error"] = {"type": type(outcome).__name__, "message": str(outcome)}
        else:
            report["spec"] = {name: getattr(outcome, name) for name in FIELDS}
            report["sources"] = dict(outcome.sources)
            report["will_be_asked"] = list(self.will_be_asked or ())
        return report

    def _won(self, candidate: Candidate) -> bool:
        outcome = self.resolution.outcome
        return isinstance(outcome, DistSpec) and outcome.resolver == candidate.name

    def _answer(self, candidate: Candidate) -> str:
        answer, layer = candidate.answer, candidate.layer.name.lower()
        head = f"{candidate.name:15} {layer:10} "
        if isinstance(answer, NoMatch):
            partial = f", only {', '.join(answer.found)} set" if answer.found else ""
            return f"{head}no: {answer.reason}{partial}"
        if isinstance(answer, Claim):
            claim = f"rank {answer.spec.rank} of {answer.spec.world_size}"
            return f"{head}{'wins' if self._won(candidate) else 'outranked'}: {claim}"
        return f"{head}invalid: {answer.error}"

    def _candidate(self, candidate: Candidate) -> dict[str, Any]:
        answer = candidate.answer
        report: dict[str, Any] = {
            "name": candidate.name,
            "layer": candidate.layer.name.lower(),
            "distribution": candidate.origin,
            "won": self._won(candidate),
        }
        if isinstance(answer, NoMatch):
            report.update(
                answer="no match", reason=answer.reason, found=list(answer.found), missing=list(answer.missing)
            )
        elif isinstance(answer, Claim):
            report.update(answer="claim", rank=answer.spec.rank, world_size=answer.spec.world_size)
        else:
            report.update(answer="invalid", error=type(answer.error).__name__, reason=str(answer.error))
        return report

    def how_found(self, field: str) -> str:
        """Return in words how init_from_env will find an unknown host or job id; empty for what the ranks find out."""
        spec = self.resolution.outcome
        if self.will_be_asked is None or isinstance(spec, ColossalaiEnvError):
            return ""
        if field == "host" and _knows_itself(self.resolution):
            return "this host's own address, which the other ranks are told"
        if field != ("host" if spec.host is None else "job_id"):
            return ""
        if self.will_be_asked:
            return f"will be asked: {', '.join(self.will_be_asked)}"
        return "nothing is asked for it: export MASTER_ADDR and MASTER_PORT on every rank"

    def _told(self, spec: DistSpec, name: str) -> str:
        value = getattr(spec, name)
        source = spec.sources.get(name)
        if value is None:
            return ", ".join(filter(None, ("unknown", self.how_found(name))))
        return f"{value}  <- {source}" if source else f"{value}"


def where_told(error: str) -> str:
    """Return where the pages say of an error when it is raised and what to do."""
    return f"More about it: docs/reference/errors.md#{error.lower()}"


def explain(
    *,
    env: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
    args: object = None,
    resolver: str | ResolverProtocol | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    local_rank: int | None = None,
    host: str | None = None,
    port: int | None = None,
    backend: str | None = None,
) -> Explanation:
    """Explain what `resolve` answers to the same arguments, errors included."""
    given = arguments(
        args, rank=rank, world_size=world_size, local_rank=local_rank, host=host, port=port, backend=backend
    )
    environ = Environ.snapshot(env, argv)
    resolution = examine(environ, given, resolver, explained=True)
    not_read = unread(environ, resolution.outcome) if isinstance(resolution.outcome, DistSpec) else ()
    resolution = resolution._replace(warnings=(*resolution.warnings, *not_read, *mistyped(environ)))
    return Explanation(resolution, _will_be_asked(resolution, environ))


def _knows_itself(resolution: Resolution) -> bool:
    """Return whether this is a rank 0 whose address all others are told."""
    spec, deciding = resolution.outcome, resolution.deciding
    table = deciding.resolver if deciding is not None else None
    told = isinstance(table, Resolver) and table.tells_others_alone
    return told and isinstance(spec, DistSpec) and spec.rank == 0 and spec.host is None


def _will_be_asked(resolution: Resolution, environ: Environ) -> tuple[str, ...] | None:
    """Return the ways in which init_from_env will ask the launcher; None where nothing is missing."""
    spec, deciding = resolution.outcome, resolution.deciding
    if isinstance(spec, ColossalaiEnvError) or deciding is None or not is_asked_for(spec):
        return None
    if _knows_itself(resolution):
        return ()
    table = deciding.resolver
    directory = getattr(table, "directory", None)
    if directory is not None and directory(spec, environ) is not None:
        return ("directory",)
    return allowed([way.name for way in getattr(table, "locate", ())], environ)
