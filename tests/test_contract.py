"""The contract is honest: for each law, the page's example breaks exactly this one, and says so to people."""

import importlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import Phase, settings

from colossalai_env import DistSpec
from colossalai_env.errors import InvalidSpec
from colossalai_env.resolver import (
    Answer,
    Environ,
    HostAnswer,
    HostQuery,
    Layer,
    Resolver,
    always,
    any_of,
    derive,
    host_name,
    positive_number,
    var,
    whole_number,
)
from colossalai_env.testing import BrokenLaw, ResolverContract

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs/reference/contract.md").read_text()
BEGINNING, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
EXAMPLES = {
    section.split()[0]: "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL)) for section in SECTIONS
}
LAWS = [name for kind in ResolverContract.__mro__ for name in vars(kind) if name.startswith("test_")]


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
    assert sorted(EXAMPLES) == sorted(LAWS)


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
        detect=any_of("H_RANK", "H_SIZE"),
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


INDEX, MAIN, COUNT = "P_NODE", "P_MAIN", "P_NODES"


def main_first(node: int, main: int) -> int:
    return 0 if node == main else node + (node < main)


def told_to_others(spec: DistSpec) -> dict[str, str]:
    node = spec.node_rank or 0
    if spec.local_world_size != 1 or spec.rank not in {0, node, node + 1}:
        msg = "one process a node, and only the main node out of order"
        raise InvalidSpec(msg)
    main = node if spec.rank == 0 else 0 if spec.rank == node else node + 1
    return {MAIN: str(main), **({"P_ADDRESS": spec.host} if spec.rank and spec.host else {})}


def own(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | None:
    del spec, environ, seconds
    raise NotImplementedError


def platform(**changed: Any) -> Resolver:
    """Return the table of a platform that starts one process a node, and tells the others the main node's address."""
    rows: dict[str, Any] = {
        "rank": derive(main_first, var(INDEX, read=whole_number), var(MAIN, read=whole_number)),
        "world_size": var(COUNT),
        "node_rank": var(INDEX),
        "host": var("P_ADDRESS", only_others=True),
        "emulated": told_to_others,
    }
    return Resolver(
        name="p",
        layer=Layer.PLATFORM,
        detect=any_of(INDEX, COUNT),
        counts_nodes=True,
        doc="Facts: none.",
        **rows | changed,
    )


def address(text: str | None) -> str | None:
    return host_name(text) if text is not None else None


def address_of(endpoint: str) -> str:
    host, colon, port = endpoint.rpartition(":")
    if port != "6000":
        msg = "a host, and port 6000"
        raise ValueError(msg)
    return host_name(host) + colon + port


BY_LOCATE = {"host": derive(address, var("P_ADDRESS", required=False)), "locate": (HostQuery("own", own),)}


def nothing_else(spec: DistSpec) -> dict[str, str]:
    del spec
    return {}


MAIN_NODE = {
    "rank": var(INDEX),
    "node_rank": None,
    "main_node": var(MAIN),
    "emulated": nothing_else,
}
"""The same in the table's own words."""


def at(endpoint: str | None) -> str | None:
    return endpoint.rpartition(":")[0] if endpoint is not None else None


def endpoint_told(spec: DistSpec) -> dict[str, str]:
    return {"P_ENDPOINT": f"{spec.host}:6000"} if spec.rank else {}


ENDPOINT = {
    **MAIN_NODE,
    "emulated": endpoint_told,
    "host": derive(at, var("P_ENDPOINT", read=address_of, only_others=True)),
}


def from_one(text: str) -> int:
    return positive_number(text) - 1


def to_one(number: int) -> str:
    return str(number + 1)


FROM_ONE = {
    **MAIN_NODE,
    "rank": var(INDEX, read=from_one, write=to_one),
    "main_node": var(MAIN, read=from_one, write=to_one),
}

ONE_EACH = {"local_rank": always(0), "local_world_size": always(1), "num_nodes": var(COUNT)}


@pytest.mark.parametrize(
    "table",
    [
        platform(),
        platform(**BY_LOCATE),
        platform(**MAIN_NODE),
        platform(**ENDPOINT),
        platform(**FROM_ONE),
        attrs.evolve(platform(**ONE_EACH), counts_nodes=False),
    ],
    ids=[
        "the others are told",
        "rank 0 is asked for",
        "the table says which node is the main one",
        "the others are told host and port in one",
        "numbers count from 1",
        "rows that never change",
    ],
)
def test_true_tables_of_one_process_a_node_keep_every_law(table: Resolver) -> None:
    assert broken_laws(table) - {"test_a_lost_variable_makes_nobody_else_of_the_process"} == set()


@pytest.mark.parametrize(
    ("table", "law"),
    [
        (platform(rank=var(INDEX)), "test_each_process_is_read_as_its_own_rank"),
        (platform(host=derive(address, var("P_ADDRESS", required=False))), "test_all_ranks_of_a_launch_agree"),
        (
            platform(**ENDPOINT | {"host": derive(at, var("P_ENDPOINT", read=address_of, required=False))}),
            "test_all_ranks_of_a_launch_agree",
        ),
        (platform(**FROM_ONE | {"rank": var(INDEX, read=from_one)}), "test_each_process_is_read_as_its_own_rank"),
        (platform(local_rank=var(INDEX)), "test_what_the_launcher_would_set_is_read_as_meant"),
    ],
    ids=[
        "main node is not the first",
        "rank 0 is told nothing",
        "rank 0 is told no endpoint",
        "numbers count from 1 in one row",
        "local rank",
    ],
)
def test_false_tables_of_one_process_a_node_are_found_out(table: Resolver, law: str) -> None:
    assert law in broken_laws(table)


def test_a_row_that_rank_0_is_not_told_is_named() -> None:
    table = platform(host=derive(address, var("P_ADDRESS", required=False)))
    with (
        profile(max_examples=50),
        pytest.raises(BrokenLaw, match=r"host is None for rank 0 .*only_others=True is missing"),
    ):
        contract(table).test_all_ranks_of_a_launch_agree()


def endpoint_told_to_all(spec: DistSpec) -> dict[str, str]:
    return {"P_ENDPOINT": f"{spec.host}:6000"}


def test_rank_0_may_be_told_its_own_host_where_it_need_not_be() -> None:
    table = platform(**ENDPOINT | {"emulated": endpoint_told_to_all})
    with profile(max_examples=50):
        contract(table).test_a_lost_variable_makes_nobody_else_of_the_process()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            platform(**ENDPOINT | {"emulated": nothing_else}),
            "P_ENDPOINT is not .*: emulated= has to set P_ENDPOINT; where the launcher .*only_others=True",
        ),
        (
            platform(**ENDPOINT | {"host": derive(at, var("P_ENDPOINT", read=address_of))}),
            "P_ENDPOINT is not .* or only_others=True where it is rank 0 that lacks it",
        ),
        (
            platform(**MAIN_NODE | {"rank": var(INDEX, read=from_one)}),
            r"P_NODE is '0'.*: a row with read= needs write=, and derived rows need emulated=",
        ),
    ],
    ids=["a derived row", "a row that rank 0 is not told", "a row that is read from 1 and written from 0"],
)
def test_what_a_table_lacks_to_read_what_it_emulates_is_said(table: Resolver, told: str) -> None:
    with profile(max_examples=50), pytest.raises(BrokenLaw, match=told) as broken:
        contract(table).test_each_process_is_read_as_its_own_rank()
    assert not getattr(broken.value, "__notes__", [])


def table_doing(deed: Callable[[], object]) -> Resolver:
    def done(rank: int) -> int:
        deed()
        return rank

    local = derive(done, var("H_RANK", read=whole_number))
    return Resolver(
        name="h", layer=Layer.MPI, detect="H_RANK", rank=var("H_RANK"), world_size=var("H_SIZE"), local_rank=local
    )


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        (lambda: os.environ.update(RANK="0"), "os.putenv"),
        (lambda: os.environ.pop("PATH"), "os.unsetenv"),
        (lambda: os.listdir("/"), "os.listdir"),
        (lambda: socket.socket().close(), "socket.__new__"),
        (lambda: socket.getaddrinfo("localhost", 1), "socket.getaddrinfo"),
        (lambda: subprocess.run(["true"], check=False), "subprocess.Popen"),
        (lambda: importlib.import_module("torch"), "import torch"),
        (lambda: __import__("torch.distributed"), "import torch"),
        (lambda: importlib.import_module("mpi4py.MPI"), "import mpi4py"),
    ],
)
def test_every_effect_is_heard_refused_and_named(deed: Callable[[], object], told: str) -> None:
    before, torch = dict(os.environ), sys.modules.get("torch")
    with profile(max_examples=5), pytest.raises(BrokenLaw, match=f"without {re.escape(told)}\\b"):
        contract(table_doing(deed)).test_it_answers_without_any_effect()
    assert dict(os.environ) == before
    assert sys.modules.get("torch") is torch


def test_a_light_module_may_be_imported_when_it_is_needed() -> None:
    def deed() -> object:
        sys.modules.pop("colorsys", None)
        return importlib.import_module("colorsys")

    with profile(max_examples=5):
        contract(table_doing(deed)).test_it_answers_without_any_effect()


def test_a_resolver_that_raises_is_told_what_is_expected() -> None:
    class Raising:
        name, layer = "raising", Layer.MPI

        def resolve(self, environ: Environ) -> Answer:
            raise KeyError(len(environ.variables))

        def emulate(self, spec: DistSpec) -> Environ:
            return Environ(spec.to_env())

    with (
        profile(max_examples=5),
        pytest.raises(BrokenLaw, match=r"raised KeyError: .*expected NoMatch, Invalid or Claim"),
    ):
        contract(Raising()).test_each_process_is_read_as_its_own_rank()


def test_a_launcher_that_can_do_none_of_the_launches_is_told_apart_from_a_broken_one() -> None:
    def token(run: str) -> str:
        return run

    resolver = attrs.evolve(table_doing(lambda: None), job_id=derive(token, "H_RUN"), local_rank=None)
    with profile(max_examples=5), pytest.raises(BrokenLaw, match=r"job_id is None, which h always says\): draw others"):
        contract(resolver).test_all_ranks_of_a_launch_agree()


def test_a_way_back_that_refuses_all_launches_of_several_processes_is_found_out() -> None:
    def alone(spec: DistSpec) -> dict[str, str]:
        if spec.world_size > 1:
            msg = "h starts one process"
            raise InvalidSpec(msg)
        return {}

    resolver = attrs.evolve(table_doing(lambda: None), local_rank=None, emulated=alone)
    with profile(max_examples=5), pytest.raises(BrokenLaw, match="refuses all launches of several processes"):
        contract(resolver).test_each_process_is_read_as_its_own_rank()
