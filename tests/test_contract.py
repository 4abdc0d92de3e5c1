"""The contract is honest: for each law, the page's example breaks exactly this one, and says so to people."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from colossalai_env import Layer, Resolver, any_of, derive, var, whole_number
from colossalai_env.testing import BrokenLaw, ResolverContract

PAGE = (Path(__file__).parents[1] / "docs/reference/contract.md").read_text()
BEGINNING, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
EXAMPLES = {
    section.split()[0]: "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL)) for section in SECTIONS
}
LAWS = [name for name in vars(ResolverContract) if name.startswith("test_")]


def contract(resolver: Any) -> ResolverContract:
    made: ResolverContract = type("Contract", (ResolverContract,), {"resolver": resolver})()
    return made


def broken_laws(resolver: Any) -> set[str]:
    held, broken = contract(resolver), set[str]()
    with profile(max_examples=25, phases=[Phase.generate]):
        for law in LAWS:
            try:
                getattr(held, law)()
            except BrokenLaw:  # noqa: PERF203 - a law takes a tenth of a second
                broken.add(law)
    return broken


@pytest.fixture
def table() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", BEGINNING, re.DOTALL)), namespace)
    return namespace


@contextmanager
def profile(**options: Any) -> Generator[None]:
    """Let the laws try fewer examples for a while."""
    before = settings.default
    for name, kept in (("here", settings(before, derandomize=True, database=None, **options)), ("before", before)):
        settings.register_profile(name, parent=kept)
    settings.load_profile("here")
    try:
        yield
    finally:
        settings.load_profile("before")


def test_the_pages_own_table_keeps_every_law(table: dict[str, Any]) -> None:
    assert broken_laws(table["HOUSE"]) == set()


def test_every_law_has_its_section() -> None:
    assert [*EXAMPLES] == LAWS


@pytest.mark.parametrize("law", LAWS)
def test_an_example_breaks_exactly_its_law(law: str, table: dict[str, Any]) -> None:
    exec(EXAMPLES[law], table)
    assert broken_laws(table["broken"]) == {law}


def test_a_broken_law_is_told_in_a_sentence_with_the_smallest_environment() -> None:
    def guess(rank: int, here: int) -> int:
        return rank % here

    resolver = Resolver(
        name="h",
        layer=Layer.MPI,
        present=any_of("H_RANK", "H_SIZE"),
        rank=var("H_RANK"),
        world_size=var("H_SIZE"),
        local_rank=derive(guess, var("H_RANK", read=whole_number), var("H_HERE", read=whole_number)),
        local_world_size=var("H_HERE"),
    )
    with profile(max_examples=200), pytest.raises(BrokenLaw) as told:
        contract(resolver).test_what_the_launcher_would_set_is_read_as_meant()
    assert re.match(r"h: local_rank \d is read as \d for rank", str(told.value))
    assert "\n    H_RANK='" in str(told.value)
    assert len(told.value.environ.variables if told.value.environ else ()) == 3
