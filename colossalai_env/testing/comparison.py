"""Answers of resolvers as values that can be compared, and as words."""

import attrs

from colossalai_env import ColossalaiEnvError, DistSpec
from colossalai_env.resolver import Answer, Claim, Invalid, NoMatch


def without_id(answer: DistSpec | ColossalaiEnvError) -> DistSpec | ColossalaiEnvError:
    """Return an answer without its job id."""
    if not isinstance(answer, DistSpec):
        return answer
    sources = {name: source for name, source in answer.sources.items() if name != "job_id"}
    return attrs.evolve(answer, job_id=None, sources=sources)


def plain(answer: Answer | DistSpec | ColossalaiEnvError) -> object:
    """Return what can be compared: specs with their sources, errors by their words."""
    if isinstance(answer, Claim):
        return plain(answer.spec)
    if isinstance(answer, Invalid):
        return plain(answer.error)
    if isinstance(answer, DistSpec):
        return answer, dict(answer.sources)
    return answer if isinstance(answer, NoMatch) else (type(answer), str(answer))


def described(answer: Answer) -> str:
    """Return the answer in words."""
    if isinstance(answer, Claim):
        return f"Claim({answer.spec})"
    return f"NoMatch({answer.reason})" if isinstance(answer, NoMatch) else f"Invalid({answer.error})"
