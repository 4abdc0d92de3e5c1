"""Config: read from files and dicts, read-only, and precise about what is wrong."""

import copy
import json
import pickle
from collections import UserList
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env import Config, load_config
from colossalai_env.errors import InvalidConfig, ReadOnlyConfig, UnknownConfigEntry


class Point(NamedTuple):
    x: int
    y: int


ENTRIES = {"epochs": 5, "optimizer": {"lr": 1e-4, "betas": [0.9, 0.99]}, "stages": [{"name": "warm up"}]}

FILES = {
    "config.py": "epochs = 5\noptimizer = dict(lr=1e-4, betas=(0.9, 0.99))\nstages = [{'name': 'warm up'}]\n",
    "config.json": json.dumps(ENTRIES),
    "config.toml": "epochs = 5\n[optimizer]\nlr = 1e-4\nbetas = [0.9, 0.99]\n[[stages]]\nname = 'warm up'\n",
    "config.yaml": "epochs: 5\noptimizer:\n  lr: 1e-4\n  betas: [0.9, 0.99]\nstages:\n  - name: warm up\n",
    "config.yml": "{epochs: 5, optimizer: {lr: 1e-4, betas: [0.9, 0.99]}, stages: [{name: warm up}]}",
}


def written(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def refused(config: Any) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as caught:
        load_config(config)
    return caught.value


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_says_the_same(tmp_path: Path, name: str) -> None:
    config = load_config(written(tmp_path, name, FILES[name]))
    assert config == load_config(ENTRIES)
    assert config == ENTRIES
    assert (config.optimizer.lr, config["optimizer"]["betas"], config.stages[0].name) == (1e-4, (0.9, 0.99), "warm up")


def test_a_path_object_and_a_config_are_taken_too(tmp_path: Path) -> None:
    config = load_config(Path(written(tmp_path, "config.py", "lr = 1")))
    assert load_config(config) is config


def test_lists_and_sets_of_other_libraries_cannot_be_changed_either() -> None:
    """OmegaConf's ListConfig is such a list: it is no child of list."""
    config = load_config({"betas": UserList([0.9, UserList([0.99])]), "tags": {"a"}, "shape": Point(1, 2)})
    assert config.betas == (0.9, (0.99,))
    assert type(config.tags) is frozenset
    assert type(config.shape) is Point
    assert config.to_dict() == {"betas": [0.9, [0.99]], "tags": {"a"}, "shape": (1, 2)}
    assert config == {"betas": UserList([0.9, [0.99]]), "tags": {"a"}, "shape": Point(1, 2)}


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not hasattr(Config, name))
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(names, values, max_size=4))
def test_a_config_is_its_entries_whatever_is_done_with_it(entries: dict[str, Any]) -> None:
    config = load_config(entries)
    assert config.to_dict() == entries
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    assert eval(repr(config), {"Config": Config, "inf": float("inf")}) == config
    assert all(getattr(config, name) == config[name] for name in entries)
    assert list(config) == list(entries)


def test_a_config_is_not_changed_by_what_it_was_made_of_nor_by_what_it_gave() -> None:
    entries: dict[str, Any] = {"optimizer": {"betas": [1]}}
    config = load_config(entries)
    entries["optimizer"]["betas"].append(2)
    config.to_dict()["optimizer"]["betas"].append(3)
    assert config.optimizer.betas == (1,)


def test_an_entry_is_not_changed() -> None:
    config: Any = load_config(ENTRIES)
    for change in (
        lambda: setattr(config, "epochs", 6),
        lambda: delattr(config, "epochs"),
        lambda: config.__setitem__("epochs", 6),
        lambda: config.__delitem__("epochs"),
        lambda: setattr(config.optimizer, "epochs", 6),
    ):
        with pytest.raises(ReadOnlyConfig, match=r"'epochs' cannot be changed: .* config.to_dict\(\)"):
            change()
    with pytest.raises(TypeError):
        config.optimizer.betas[0] = 1


def test_an_unknown_entry_is_told_with_the_nearest() -> None:
    config = load_config(ENTRIES)
    with pytest.raises(
        UnknownConfigEntry, match=r"no entry 'epoch', did you mean 'epochs'\? its entries are epochs, op"
    ):
        config["epoch"]
    with pytest.raises(AttributeError, match="did you mean 'epochs'"):
        _ = config.epoch
    with pytest.raises(UnknownConfigEntry, match="no entry 'lr': it is empty"):
        Config()["lr"]
    assert not hasattr(config, "epoch")
    assert config.get("epoch", 3) == 3


def test_a_python_config_keeps_values_and_leaves_code_out(tmp_path: Path) -> None:
    text = """
from __future__ import annotations
import os
from dataclasses import dataclass
from math import pi, sqrt

@dataclass
class Model:
    width: int = 4

def helper() -> int:
    return 3

_private = 1
width = helper()
model = Model(width)
"""
    config = load_config(written(tmp_path, "config.py", text))
    assert set(config) == {"pi", "width", "model"}
    assert config.model.width == 3


def test_a_python_config_imports_its_neighbours_and_not_those_of_the_last_config(tmp_path: Path) -> None:
    for number, folder in enumerate([tmp_path / "one", tmp_path / "two"]):
        written(folder, "base.py", f"lr = {number}")
        written(folder, "more/__init__.py", "")
        written(folder, "more/deep.py", f"depth = {number}")
        path = written(
            folder,
            "config.py",
            "from .base import *\nimport base\nsame = base.lr == lr\nfrom .more.deep import depth\n",
        )
        assert load_config(path).to_dict() == {"lr": number, "same": True, "depth": number}


def test_a_python_config_leaves_the_import_path_as_it_was(tmp_path: Path) -> None:
    import sys

    before = list(sys.path)
    load_config(written(tmp_path, "config.py", "import sys\nhere = sys.path[0]\n"))
    refused(written(tmp_path, "broken.py", "1 / 0"))
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "text", "line", "problem"),
    [
        ("config.py", "a = 1\nb = = 2\n", 2, "invalid syntax"),
        ("config.py", "a = 1\n\nb = missing\n", 3, "NameError: name 'missing' is not defined"),
        ("config.py", "from nowhere import a\n", 1, "No module named 'nowhere'"),
        ("config.py", b"a = 1\0", None, "null bytes"),
        ("config.json", '{"a": 1,\n "b": }', 2, "Expecting value"),
        ("config.json", '{"a": 1, "a": 2}', None, "key 'a' is there twice"),
        ("config.json", "[1, 2]", None, "holds a list, expected names with values"),
        ("config.json", b'{"a": "\xff"}', None, "UTF-8"),
        ("config.toml", "a = 1\nb =\n", None, "line 2"),
        ("config.yaml", "a: 1\nb: [2\n", 3, "expected ',' or ']'"),
        ("config.yaml", "a: 1\nb: 2\na: 3\n", 3, "key 'a' is there twice"),
        ("config.yaml", "just a text", None, "holds a str"),
        ("config.yaml", "a: 1\nlearning-rate: 2\n", 2, "key 'learning-rate' is no identifier"),
        ("config.yaml", "a:\n  1: 2\n", 2, "key 1 is no identifier"),
        ("config.toml", "a = 1\n[deep]\nitems = 3\n", 3, "key 'deep.items' is the name of a method"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(
    tmp_path: Path, name: str, text: str | bytes, line: int | None, problem: str
) -> None:
    error = refused(written(tmp_path, name, text))
    assert problem in str(error)
    assert error.line == line
    assert str(tmp_path / name) in str(error)


def test_what_is_no_config_is_refused(tmp_path: Path) -> None:
    assert "a config is required, a path or a dict, not NoneType" in str(refused(None))
    assert "not int" in str(refused(3))
    assert "No such file" in str(refused(tmp_path / "absent.py"))
    assert "looked for in" in str(refused("absent.py"))
    assert "its suffix is '.ini', expected one of .py, .toml" in str(refused(written(tmp_path, "config.ini", "")))
    (tmp_path / "folder.py").mkdir()
    assert "Is a directory" in str(refused(tmp_path / "folder.py"))
    assert "key 'learning rate' is no identifier" in str(refused({"learning rate": 1}))
    assert "key 'a.b-c' is no identifier" in str(refused({"a": {"b-c": 1}}))


def test_yaml_merges_are_no_repetition(tmp_path: Path) -> None:
    text = "base: &base {lr: 1, decay: 2}\nfine:\n  <<: *base\n  lr: 3\n"
    assert load_config(written(tmp_path, "config.yaml", text)).fine == {"lr": 3, "decay": 2}


def test_omegaconfs_mappings_and_lists_are_taken_as_they_resolve() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    given = omegaconf.OmegaConf.create({"lr": 0.1, "optimizer": {"lr": "${lr}", "betas": [0.9, 0.99]}})
    config = load_config(given)
    assert config.to_dict() == {"lr": 0.1, "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}}
    assert config.optimizer.betas == (0.9, 0.99)
    given.lr = 0.2
    assert config.lr == 0.1


def test_an_entry_that_omegaconf_still_misses_is_named() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    with pytest.raises(omegaconf.MissingMandatoryValue, match=r"optimizer\.lr"):
        load_config(omegaconf.OmegaConf.create({"optimizer": {"lr": "???"}}))
