"""Slurm's host file at the edges."""

from pathlib import Path

import pytest
from colossalai_env_slurm.asking import ask_layout

from colossalai_env import DistSpec
from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import Environ

STEP = DistSpec(rank=1, world_size=3, job_id="7.0")


def host_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Environ:
    """Return the environment of an arbitrary distribution where Slurm's commands are absent."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "hosts").write_text(text)
    return Environ({"SLURM_DISTRIBUTION": "arbitrary", "SLURM_HOSTFILE": str(tmp_path / "hosts")})


@pytest.mark.parametrize(
    "text", ["gpu-b07\ngpu-a01\n", "# hosts\n\n gpu-b07 # first\n", "gpu-b07*2\n", "gpu-b[07-08],a\n", "gpu-b07,a"]
)
def test_a_host_file_is_read_as_slurm_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    found = ask_layout(STEP, host_file(tmp_path, monkeypatch, text), 5)
    assert found is not None
    assert found.host == "gpu-b07"


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "gpu b07\n", "[1-\n"])
def test_a_host_file_without_a_host_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(CannotLocate, match="expected a host on its first line"):
        ask_layout(STEP, host_file(tmp_path, monkeypatch, text), 5)


def test_a_host_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = host_file(tmp_path, monkeypatch, "a\n")
    (tmp_path / "hosts").unlink()
    with pytest.raises(CannotLocate, match="No such file"):
        ask_layout(STEP, environ, 5)
