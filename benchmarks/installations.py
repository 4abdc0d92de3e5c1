"""A simulated installation: an interpreter whose site-packages hold this library, plugins, and many distributions."""

import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

from benchmarks.measure import ROOT

PEERS = ROOT / ".venv/peers"
"""Where `make bench` installs the other libraries."""

OWN = 5
"""Plugins that come with this library."""

PLUGIN = """
from colossalai_env import DistSpec
from colossalai_env.resolver import Layer, Resolver, any_of, derive, hookimpl, var


def launch_token(job, part):
    return f"{{job}}.{{part}}"


RESOLVER = Resolver(
    name="{name}",
    layer=Layer.MPI,
    detect=any_of("{mark}_JOB", "{mark}_PART"),
    rank=var("{mark}_RANK"),
    world_size=var("{mark}_SIZE"),
    local_rank=var("{mark}_LOCAL_RANK"),
    local_world_size=var("{mark}_LOCAL_SIZE"),
    host=var("{mark}_HEAD"),
    job_id=derive(launch_token, "{mark}_JOB", "{mark}_PART"),
)


@hookimpl
def colossalai_env_resolvers():
    return [RESOLVER]
"""


def installation(folder: Path, distributions: int, plugins: int, *, peers: bool = False) -> str:
    """Make an interpreter with so many distributions and plugins in all; return its path.

    It has this library, or, in its place, the peers.
    """
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    if peers:
        (site / "peers.pth").write_text(f"{PEERS / 'lib' / version / 'site-packages'}\n")
    else:
        _install(site)
    for number in range(plugins - OWN):
        name = f"launcher_{number}"
        (site / f"{name}_resolver.py").write_text(PLUGIN.format(name=name, mark=name.upper()))
        _information(site, f"{name}-resolver", f"[colossalai_env]\n{name} = {name}_resolver\n")
    for number in range(distributions - len(list(site.glob("*.dist-info")))):
        name = f"filler-{number}"
        (site / name.replace("-", "_")).mkdir()
        scripts = f"[console_scripts]\n{name} = {name.replace('-', '_')}:main\n"
        _information(site, name, scripts if number % 4 == 0 else None)  # as many as in an environment with torch
    python = str(folder / "bin/python")
    subprocess.run([python, "-m", "compileall", "-q", site], check=True)
    return python


def _install(site: Path) -> None:
    """Copy this library, attrs and pluggy from the environment that runs the benchmarks."""
    for name in ("attrs", "pluggy", "colossalai-env"):
        for file in distribution(name).files or ():
            if ".." not in file.parts and file.suffix not in {".pth", ".pyc"}:
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    for package in (ROOT / "colossalai_env", *ROOT.glob("plugins/*")):
        shutil.copytree(
            package, site / package.name, ignore=shutil.ignore_patterns("__pycache__", "recorded"), dirs_exist_ok=True
        )


def _information(site: Path, name: str, entry_points: str | None) -> None:
    info = site / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "RECORD").write_text("")
    if entry_points is not None:
        (info / "entry_points.txt").write_text(entry_points)
