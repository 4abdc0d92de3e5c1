"""Plugins: found through entry points of real distributions, and loud when something is wrong with one."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env import _registry as registry
from colossalai_env import explain, resolve
from colossalai_env._registry import Plugin
from colossalai_env._resolution import examine
from colossalai_env.environ import Environ
from colossalai_env.errors import BrokenPlugin, ResolverDoesNotMatch, RivalPlugins, UnknownResolver
from colossalai_env.resolver import NoMatch
from colossalai_env.testing.captures import Task, captures
from tests.processes import run

TASKS = st.sampled_from([task for capture in captures() for task in capture.tasks])

GOOD = """
from colossalai_env.resolver import Layer, Resolver, hookimpl, var

@hookimpl
def colossalai_env_resolvers():
    rows = {"rank": var("HOUSE_RANK"), "world_size": var("HOUSE_SIZE")}
    return [Resolver(name="house", layer=Layer.MPI, detect="HOUSE_RANK", **rows)]
"""

BARE = """
from colossalai_env.resolver import Layer, hookimpl

class House:
    name = "house"
    layer = Layer.MPI

    def resolve(self, environ): return None
    def emulate(self, spec): return None

@hookimpl
def colossalai_env_resolvers():
    return [House()]
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, plugin: str, source: str, module: str = "", marks: Sequence[str] = ()) -> None:
        module = module or f"plugin_{distribution.replace('-', '_')}"
        (self.folder / f"{module}.py").write_text(source)
        info = self.folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        named = "".join(f"{mark} = {module}\n" for mark in marks)
        (info / "entry_points.txt").write_text(
            f"[colossalai_env]\n{plugin} = {module}\n[colossalai_env.marks]\n{named}"
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(registry, "_registries", {})
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def test_a_third_partys_plugin_is_found_like_ours(site: Site) -> None:
    site.install("house-launcher", "house", GOOD)
    spec = resolve(env={"HOUSE_RANK": "1", "HOUSE_SIZE": "2"})
    assert (spec.rank, spec.world_size, spec.resolver) == (1, 2, "house")


def test_a_plugin_that_raises_on_import_is_named_with_its_distribution_and_the_way_on(site: Site) -> None:
    site.install("house-launcher", "house", "import no_such_module")
    with pytest.raises(
        BrokenPlugin, match=r"'house' of house-launcher 1.5.*no_such_module.*COLOSSALAI_ENV_DISABLE=house"
    ):
        resolve(env={})
    assert resolve(env={"COLOSSALAI_ENV_DISABLE": "house"}).world_size == 1


def test_a_disabled_plugin_is_not_imported(site: Site) -> None:
    site.install("house-launcher", "house", "raise SystemExit('imported')")
    assert resolve(env={"COLOSSALAI_ENV_DISABLE": "house,slurm"}).world_size == 1
    assert "plugin_house_launcher" not in sys.modules


def test_two_plugins_of_one_name_are_an_error_that_names_both_distributions(site: Site) -> None:
    site.install("house-launcher", "house", GOOD)
    site.install("other-launcher", "house", GOOD)
    with pytest.raises(RivalPlugins, match=r"house-launcher 1.5 and from other-launcher 1.5"):
        resolve(env={})
    assert resolve(env={"COLOSSALAI_ENV_DISABLE": "house"}).world_size == 1


def test_two_resolvers_of_one_name_are_an_error_that_names_both_plugins(site: Site) -> None:
    site.install("house-launcher", "house", GOOD)
    site.install("other-launcher", "other", GOOD)
    with pytest.raises(
        RivalPlugins, match=r"resolver 'house'.*plugin 'house' of house-launcher.*plugin 'other' of other"
    ):
        resolve(env={})


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "from colossalai_env.resolver import hookimpl\n@hookimpl\ndef colossalai_env_resolver(): return []",
            "unknown hook",
        ),
        ("", "implements no hook"),
        (GOOD.replace("return [", "raise RuntimeError('boom'); return ["), "RuntimeError: boom"),
        (
            "from colossalai_env.resolver import hookimpl\n@hookimpl\ndef colossalai_env_resolvers(): return [1]",
            "returned 1",
        ),
        (
            "from colossalai_env.resolver import hookimpl\n@hookimpl\ndef colossalai_env_resolvers(x): return []",
            "Argument",
        ),
        ("raise SystemExit('no licence')", "failed: SystemExit: no licence"),
        (BARE.replace("Layer.MPI", "3"), "layer of its .* is 3, expected a Layer"),
        (BARE.replace('"house"', "7"), "name of its .* is 7, expected a str"),
        (BARE, "its resolver 'house' answered None, expected a Claim"),
    ],
    ids=[
        "misspelt hook",
        "no hook",
        "raising hook",
        "no resolver",
        "wrong signature",
        "leaving",
        "no layer",
        "no name",
        "no answer",
    ],
)
def test_a_plugin_that_cannot_work_is_named(site: Site, source: str, told: str) -> None:
    site.install("house-launcher", "house", source)
    with pytest.raises(BrokenPlugin, match=f"(?s)'house' of house-launcher 1.5.*{told}"):
        resolve(env={})


def test_an_unknown_name_in_disable_lists_the_known_ones(site: Site) -> None:
    site.install("house-launcher", "house", GOOD)
    with pytest.raises(UnknownResolver, match=r"COLOSSALAI_ENV_DISABLE is 'hose'.*house.*slurm"):
        resolve(env={"COLOSSALAI_ENV_DISABLE": "hose"})


def test_a_plugin_that_names_its_marks_is_imported_where_one_of_them_is_set(site: Site) -> None:
    site.install("house-launcher", "house", GOOD, marks=["HOUSE_RANK", "HOUSE_SIZE"])
    assert resolve(env={"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}).resolver == "torch"
    assert "plugin_house_launcher" not in sys.modules
    assert resolve(env={"HOUSE_RANK": "1", "HOUSE_SIZE": "2"}).resolver == "house"


def test_a_mark_may_be_an_option(site: Site) -> None:
    source = GOOD.replace("HOUSE_RANK", "--house-rank").replace("HOUSE_SIZE", "--house-size")
    site.install("house-launcher", "house", source, marks=["--house-rank"])
    resolve(env={}, argv=["--house-size=2"])
    assert "plugin_house_launcher" not in sys.modules
    assert resolve(env={}, argv=["--house_rank=1", "--house_size=2"]).resolver == "house"


def test_who_asks_for_a_plugin_by_name_or_for_an_explanation_gets_it_without_its_marks(site: Site) -> None:
    site.install("house-launcher", "house", GOOD, marks=["HOUSE_RANK"])
    with pytest.raises(ResolverDoesNotMatch, match=r"house was asked for alone and does not match: no HOUSE_RANK"):
        resolve(env={}, resolver="house")
    with pytest.raises(UnknownResolver, match=r"use one of .*house.*slurm.*single-process"):
        resolve(env={}, resolver="hose")
    assert "no: no HOUSE_RANK" in str(explain(env={}))


def test_a_plugin_that_names_some_of_its_marks_is_told_the_others(site: Site) -> None:
    source = GOOD.replace('detect="HOUSE_RANK"', 'detect=any_of("HOUSE_RANK", "HOUSE_SIZE")').replace(
        ", var", ", any_of, var"
    )
    site.install("house-launcher", "house", source, marks=["HOUSE_RANK"])
    assert resolve(env={}).world_size == 1
    with pytest.raises(BrokenPlugin, match=r"under colossalai_env.marks, and not HOUSE_SIZE"):
        resolve(env={"HOUSE_RANK": "1", "HOUSE_SIZE": "2"})


def test_two_plugins_of_one_mark_are_both_asked(site: Site) -> None:
    site.install("house-launcher", "house", GOOD, marks=["HOUSE_RANK"])
    site.install("other-launcher", "other", GOOD.replace('"house"', '"other"'), marks=["HOUSE_RANK"])
    found = examine(Environ({"HOUSE_RANK": "1", "HOUSE_SIZE": "2"}), {})
    assert [candidate.name for candidate in found.candidates] == ["house", "other", "single-process"]


def test_a_process_that_no_launcher_started_imports_none_of_our_plugins() -> None:
    told = "print([name for name in sys.modules if name.startswith('colossalai_env_')])"
    program = f"import sys, colossalai_env; colossalai_env.resolve(env={{}}); {told}"
    assert run([sys.executable, "-c", program]).out == "[]\n"


@given(st.lists(st.tuples(TASKS, st.sets(st.integers(0, 200), max_size=8)), min_size=1, max_size=2))
def test_asking_those_that_may_match_answers_as_asking_all(mixed: list[tuple[Task, set[int]]]) -> None:
    variables: dict[str, str] = {}
    for task, without in mixed:
        variables |= {name: text for number, (name, text) in enumerate(task.variables.items()) if number not in without}
    environ = Environ(variables, mixed[0][0].argv)
    found, explained = (examine(environ, {}, explained=every) for every in (False, True))
    assert (str(found.outcome), found.warnings) == (str(explained.outcome), explained.warnings)


@pytest.mark.parametrize(
    "plugin",
    [one for one in registry.installed() if one.module.startswith("colossalai_env_")],
    ids=lambda one: one.name,
)
def test_our_plugins_answer_nothing_where_none_of_the_marks_is_set_that_their_metadata_names(plugin: Plugin) -> None:
    assert plugin.marks
    ((resolver, _),) = registry.load([plugin])[plugin.name]
    tasks = [task for capture in captures() for task in capture.tasks]
    alone = [
        {name: text} for name, text in {name: text for task in tasks for name, text in task.variables.items()}.items()
    ]
    for variables in (*(task.variables for task in tasks), *alone):
        unmarked = {name: text for name, text in variables.items() if name not in plugin.marks}
        answer = resolver.resolve(Environ(unmarked))
        assert isinstance(answer, NoMatch)
        assert answer.found == ()
