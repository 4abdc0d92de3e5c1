"""Discovery: what importlib.metadata finds, without importing it."""

import sys
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.metadata import Distribution, DistributionFinder, PathDistribution, entry_points
from pathlib import Path

import attr
import attrs
import pluggy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import colossalai_env
from colossalai_env import _hookspecs as hookspecs
from colossalai_env import _registry as registry
from colossalai_env._entry_points import Elsewhere, entries
from colossalai_env.testing.captures import captures
from tests.processes import run

GROUP, OTHER = hookspecs.PROJECT, registry.MARKS
ENTRIES = (
    f"[console_scripts]\ntool = a:main\n\n[{GROUP}]\n# ours\nhouse = house_{{number}}\n spaced=x.y \n[other]\nz = z\n"
    f"[{OTHER}]\nHOUSE_RANK = house_{{number}}\n"
)

STEP = dict(next(one for one in captures() if one.scenario == "slurm_two_per_node").tasks[0].variables)

TEXTS = st.sampled_from(
    [ENTRIES, ENTRIES, None, f"[{GROUP}]\r\nhouse = house_{{number}}\r\n", f"[{GROUP}_more]\nno = no\n", ""]
)
NAMES = st.sampled_from(["house-1.5", "House-1.6", "ho.use-1", "ho_use-2", "other-2.0-py3.11", "house"])
KINDS = st.sampled_from([".dist-info", ".dist-info", ".egg-info", ".EGG-INFO", ".dist-info.d", ""])
PLACES = st.lists(st.lists(st.tuples(NAMES, KINDS, TEXTS), max_size=6), min_size=1, max_size=3)


@contextmanager
def path(*places: Path | str) -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(place) for place in places])
        yield


def install(info: Path, text: str | None) -> None:
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info.stem.partition('-')[0]}\nVersion: 1.5\n")
    if text is not None:
        (info / "entry_points.txt").write_text(text, newline="")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 takes ho.use and ho_use for two distributions")
@settings(max_examples=300)
@given(PLACES)
def test_it_finds_what_importlib_metadata_finds(places: list[list[tuple[str, str, str | None]]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(number) for number in range(len(places))]
        for folder, infos in zip(folders, places, strict=True):
            folder.mkdir()
            for number, (stem, kind, text) in enumerate(infos):
                install(folder / f"{stem}{kind}", text and text.format(number=number))
        (folders[0] / "egg.egg-info").write_text("Metadata-Version: 2.1\nName: egg\nVersion: 1.5\n")
        with path(*folders, Path(name) / "absent", folders[0]):
            asked = [
                (group, entry.name, entry.value, owner(entry.dist))
                for group in (GROUP, OTHER)
                for entry in entry_points(group=group)
            ]
            assert sorted(entries(GROUP, OTHER)) == sorted(asked)


def owner(found: Distribution | None) -> str:
    assert isinstance(found, PathDistribution)
    return str(found._path)  # pyright: ignore[reportPrivateUsage]


def test_this_environments_plugins_are_found_as_importlib_metadata_finds_them() -> None:
    found = [(plugin.name, plugin.module, plugin.distribution) for plugin in registry.installed()]
    asked = [(entry.name, entry.value, entry.dist) for entry in entry_points(group=GROUP)]
    assert found == sorted((name, value, f"{dist.name} {dist.version}") for name, value, dist in asked if dist)
    assert len(found) >= 5


def test_a_zip_on_the_path_is_asked_by_importlib_metadata(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as bundle:
        bundle.writestr("house-1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: house\nVersion: 1.5\n")
        bundle.writestr("house-1.5.dist-info/entry_points.txt", f"[{GROUP}]\nhouse = house_resolver\n")
    with path(tmp_path / "bundle.zip"):
        with pytest.raises(Elsewhere):
            list(entries(GROUP))
        assert [(plugin.name, plugin.distribution) for plugin in registry.installed()] == [("house", "house 1.5")]


def test_eggs_are_asked_by_importlib_metadata(tmp_path: Path) -> None:
    eggs = [tmp_path / f"{name}-1.5.egg" for name in ("house", "other")]
    for egg in eggs:
        name = egg.name.partition("-")[0]
        install(egg / "EGG-INFO", f"[{GROUP}]\n{name} = {name}_resolver\n")
        (egg / "EGG-INFO/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    with path(*eggs):
        assert [plugin.distribution for plugin in registry.installed()] == ["house 1.5", "other 1.5"]


def test_a_finder_of_its_own_is_asked_by_importlib_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "house-1.5.dist-info", f"[{GROUP}]\nhouse = house_resolver\n")

    class Finder(MetaPathFinder):
        def find_distributions(self, context: DistributionFinder.Context) -> list[Distribution]:
            del context
            return [Distribution.at(tmp_path / "house-1.5.dist-info")]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert "house" in {plugin.name for plugin in registry.installed()}


def test_who_i_am_is_known_without_what_is_not_needed() -> None:
    never = {"torch", "numpy", "asyncio", "subprocess", "socket", "importlib.metadata", "zlib"}
    never |= {"attrs"}  # the newer name of attr, which is six modules more
    program = f"import sys, colossalai_env; colossalai_env.resolve(env={STEP}); print({never} & sys.modules.keys())"
    ran = run([sys.executable, "-c", program])
    assert (ran.out.strip(), ran.err) == ("set()", "")


def test_a_copied_folder_without_metadata_is_refused_instead_of_a_process_alone(tmp_path: Path) -> None:
    """As in a frozen program, or with a checkout on PYTHONPATH: no launcher would be recognised."""
    for module in (colossalai_env, attr, attrs, pluggy):
        folder = Path(str(module.__file__)).parent
        (tmp_path / folder.name).symlink_to(folder)
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import colossalai_env
print(colossalai_env.resolve())
"""
    worker = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
    ended = run([sys.executable, "-I", "-S", "-c", program], worker)
    assert ended.code == 1
    assert "NoPlugins: no plugin is found, not even those of colossalai-env: " in ended.err
