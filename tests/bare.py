"""An environment without torch, as a login node or a plugin's author has it: this checkout and what it needs."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.pace import pace

ROOT = Path(__file__).parents[1]
FOLDER = Path(sys.prefix) / "bare"
"""It stays there, and is made anew when pyproject.toml is newer."""


@attrs.frozen
class Bare:
    """The environment, in which this checkout is installed."""

    folder: Path = FOLDER

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin/python"

    def run(self, script: str, cwd: Path) -> str:
        """Run a script as a person would in a shell, with this environment's programs first; it must succeed."""
        env = {
            **os.environ,
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_BUILD_ISOLATION": "false",  # which means: do without it, since hatchling is here
            "MYPY_CACHE_DIR": f"{self.folder}/mypy",
        }
        ran = subprocess.run(
            ["bash", "-ec", script],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=300 * pace(),
            check=False,
        )
        assert ran.returncode == 0, f"{script}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout


@contextmanager
def bare_environment() -> Generator[Bare]:
    """Install this checkout as it is now, and keep others out of the environment meanwhile."""
    made = Bare()
    with open(f"{FOLDER}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = FOLDER / "ready"
        if not ready.exists() or ready.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
            subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
            made.run("pip install --quiet editables hatchling && pip install --quiet '.[testing]'", ROOT)
            ready.touch()
        made.run("pip install --quiet --no-deps --force-reinstall .", ROOT)
        left = [path.name.partition("-")[0] for path in FOLDER.glob("lib/*/site-packages/colossalai_env_*-*.dist-info")]
        made.run(f"pip uninstall --quiet --yes {' '.join(left)}" if left else "true", ROOT)
        yield made
