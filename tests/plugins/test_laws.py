"""The laws that every resolver keeps, whatever its launcher."""

from importlib.metadata import entry_points
from typing import Any

import attrs
import pytest
from colossalai_env_cli import CLI_ARGS
from colossalai_env_hydra import HYDRA
from colossalai_env_openmpi import OPENMPI
from colossalai_env_slurm import SLURM
from colossalai_env_torch import TORCH
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env import Claim, ColossalaiEnvError, DistSpec, Environ, Resolver, resolve
from colossalai_env.testing import Layout, layouts

SMALL = st.integers(0, 10**6)
JOB_IDS: dict[str, st.SearchStrategy[str | None]] = {
    "cli-args": st.none(),
    "hydra": st.none() | st.uuids().map(str),
    "openmpi": st.none() | st.from_regex(r"prterun-[a-z0-9]{1,9}-[0-9]{1,7}@1", fullmatch=True),
    "slurm": st.builds("{}.{}{}".format, SMALL, SMALL, st.sampled_from(["", "r1", "r12"])),
    "torch": st.none() | st.builds("{}/{}".format, st.sampled_from(["none", "bed7", "a/b"]), SMALL),
}
RESOLVERS = [CLI_ARGS, HYDRA, OPENMPI, SLURM, TORCH]
each_resolver = pytest.mark.parametrize("resolver", RESOLVERS, ids=lambda resolver: resolver.name)

GARBLED = [
    "",
    " ",
    " 3",
    "3 ",
    "3.0",
    "\uff11",
    "1_0",
    "-1",
    "+1",
    "0x1",
    "4294967296",
    "1e3",
    "one",
    "2(x",
    "n[1-",
    "\n",
]
GARBLED_HOSTS = [
    "",
    " a",
    "a ",
    "a b",
    "a:29500",
    "[::1]",
    "http://a",
    "a/b",
    "\uff11",
    "1.2.3",
    "256.1.1.1",
    "::g",
    "-a",
]


def launches(resolver: Resolver, max_ranks: int = 4096) -> st.SearchStrategy[Layout]:
    agent = st.booleans() if resolver.agent_store else st.just(value=False)
    return layouts(max_ranks, job_ids=JOB_IDS[resolver.name], agent_store=agent)


def said(resolver: Resolver, spec: DistSpec) -> DistSpec:
    """Keep of a spec what the launcher's variables can say."""
    fields = {name for name, _ in resolver.rows()} | {"resolver", "sources"}
    silent: dict[str, Any] = {
        name: False if name == "agent_store" else None for name in attrs.fields_dict(DistSpec) if name not in fields
    }
    return attrs.evolve(spec, resolver=resolver.name, **silent)


def some_ranks(draw: st.DataObject, layout: Layout) -> list[int]:
    if layout.world_size <= 32:
        return list(range(layout.world_size))
    return draw.draw(st.lists(st.integers(0, layout.world_size - 1), min_size=8, max_size=8, unique=True))


def test_every_installed_first_party_plugin_is_held_to_the_laws() -> None:
    installed = {entry.name for entry in entry_points(group="colossalai_env")}
    assert {resolver.name for resolver in RESOLVERS} == installed


@each_resolver
def test_what_a_launcher_would_set_is_read_as_what_it_meant(resolver: Resolver) -> None:
    @given(st.data())
    def law(data: st.DataObject) -> None:
        layout = data.draw(launches(resolver))
        for rank in some_ranks(data, layout):
            spec = layout.spec(rank)
            answer = resolver.resolve(resolver.emulate(spec))
            assert answer == Claim(said(resolver, spec))

    law()


@each_resolver
def test_all_ranks_of_a_launch_agree_and_differ_in_rank(resolver: Resolver) -> None:
    @given(st.data())
    def law(data: st.DataObject) -> None:
        layout = data.draw(launches(resolver, 256))
        specs = [_resolve(resolver.emulate(layout.spec(rank))) for rank in range(layout.world_size)]
        assert [spec.rank for spec in specs] == list(range(layout.world_size))
        agreed = {(spec.world_size, spec.num_nodes, spec.job_id, spec.host, spec.port) for spec in specs}
        assert len({entry[:3] for entry in agreed}) == 1
        if layout.world_size == 1 or len(set(layout.nodes)) > 1 or resolver.host:
            assert len(agreed) == 1

    law()


@each_resolver
def test_a_damaged_variable_is_named_or_harmless(resolver: Resolver) -> None:
    @given(st.data())
    def law(data: st.DataObject) -> None:
        layout = data.draw(launches(resolver, 64))
        environ = resolver.emulate(layout.spec(data.draw(st.integers(0, layout.world_size - 1))))
        whole = _resolve(environ)
        names = [*environ.variables, *(argument.partition("=")[0] for argument in environ.argv)]
        name = data.draw(st.sampled_from(names))
        damage = data.draw(st.sampled_from([None, *(GARBLED_HOSTS if name in ("MASTER_ADDR", "--host") else GARBLED)]))
        answer = _answer(_damaged(environ, name, damage))
        if isinstance(answer, DistSpec):
            assert _says_no_other(answer, whole), f"{name}={damage!r} made {answer} of {whole}"
        else:
            assert name in str(answer)

    law()


def _answer(environ: Environ) -> DistSpec | ColossalaiEnvError:
    try:
        return _resolve(environ)
    except ColossalaiEnvError as error:
        return error


def _damaged(environ: Environ, name: str, damage: str | None) -> Environ:
    variables = {**environ.variables, **({} if name.startswith("-") else {name: damage or ""})}
    argv = [
        argument if argument.partition("=")[0] != name else f"{name}={damage}"
        for argument in environ.argv
        if damage is not None or argument.partition("=")[0] != name
    ]
    if damage is None:
        variables.pop(name, None)
    return Environ(variables, argv)


IDENTITY = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes", "host", "port")


def _says_no_other(spec: DistSpec, whole: DistSpec) -> bool:
    """Tell whether a spec says the same, or less, but nothing else: the command line may be too poor to claim."""
    if spec.resolver == "single-process" and whole.resolver == "cli-args":
        return True  # --rank and --port alone are other programs' options
    derived = spec.port is not None and spec.sources["port"].startswith("rule")
    fields = [name for name in IDENTITY if name != "port" or not derived]
    return all(getattr(spec, name) in {None, getattr(whole, name)} for name in fields)


@pytest.mark.parametrize("resolver", [CLI_ARGS, TORCH, HYDRA, OPENMPI], ids=lambda resolver: resolver.name)
def test_what_outer_launchers_leave_behind_changes_nothing(resolver: Resolver) -> None:
    @given(st.data())
    def law(data: st.DataObject) -> None:
        layout = data.draw(launches(resolver, 64))
        environ = resolver.emulate(layout.spec(data.draw(st.integers(0, layout.world_size - 1))))
        outer = data.draw(st.sampled_from([other for other in RESOLVERS if other.layer > resolver.layer]))
        around = data.draw(launches(outer, 64))
        left = outer.emulate(around.spec(data.draw(st.integers(0, around.world_size - 1))))
        both = Environ({**left.variables, **environ.variables}, environ.argv)
        assert _resolve(both) == _resolve(environ)

    law()


@each_resolver
def test_every_said_field_names_its_source(resolver: Resolver) -> None:
    @given(launches(resolver, 16))
    def law(layout: Layout) -> None:
        spec = _resolve(resolver.emulate(layout.spec(0)))
        for name in (*IDENTITY, "job_id"):
            assert (getattr(spec, name) is None) == (name not in spec.sources)
        named = {word.strip(",") for source in spec.sources.values() for word in source.split()}
        assert set(resolver.rank.inputs()[0].names) & named

    law()


def _resolve(environ: Environ) -> DistSpec:
    return resolve(env=environ.variables, argv=environ.argv)
