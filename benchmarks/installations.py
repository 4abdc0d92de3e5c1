"""A simulated installation: an interpreter whose site-packages hold this library, plugins, and many distributions."""

import io
import shutil
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import distribution
from pathlib import Path

from benchmarks.measure import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PEERS = ROOT / ".venv/peers"
"""Where `make bench` installs the other libraries."""

BEFORE = "ca776d8"
"""The revision before roll calls of three messages and markers in metadata, which is measured as well."""

EARLIER = f"colossalai-env of {BEFORE}"

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


def checkout(revision: str, folder: Path) -> Path | None:
    """Write this library as it was at a revision into a folder; None where git knows none, as in a shallow clone."""
    archive = ["git", "-C", str(ROOT), "archive", revision, "colossalai_env", "plugins", "pyproject.toml"]
    try:
        written = subprocess.run(archive, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError:
        return None
    with tarfile.open(fileobj=io.BytesIO(written)) as files:
        files.extractall(folder)
    return folder


def installation(
    folder: Path, distributions: int, others: int, *, source: Path = ROOT, marked: bool = False, peers: bool = False
) -> str:
    """Make an interpreter with so many distributions, of which some are plugins of others; return its path.

    It has the library of a checkout, or, in its place, the peers. The plugins may name their marker variables.
    """
    venv.create(folder, symlinks=True)
    site = packages(folder)
    if peers:
        (site / "peers.pth").write_text(f"{packages(PEERS)}\n")
    else:
        _install(site, source)
    for number in range(others):
        name = f"launcher_{number}"
        (site / f"{name}_resolver.py").write_text(PLUGIN.format(name=name, mark=name.upper()))
        marks = f"[colossalai_env.marks]\n{name.upper()}_JOB = {name}_resolver\n{name.upper()}_PART = {name}_resolver\n"
        entry_points = f"[colossalai_env]\n{name} = {name}_resolver\n{marks if marked else ''}"
        _information(site, f"{name}-resolver", entry_points)
    for number in range(distributions - len(list(site.glob("*.dist-info")))):
        name = f"filler-{number}"
        (site / name.replace("-", "_")).mkdir()
        scripts = f"[console_scripts]\n{name} = {name.replace('-', '_')}:main\n"
        _information(site, name, scripts if number % 4 == 0 else None)  # as many as in an environment with torch
    python = str(folder / "bin/python")
    subprocess.run([python, "-m", "compileall", "-q", site], check=True)
    return python


def packages(environment: Path) -> Path:
    """Return where an environment has its packages."""
    return environment / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def _install(site: Path, source: Path) -> None:
    """Copy attrs and pluggy from the environment that runs the benchmarks, and the library from a checkout."""
    for name in ("attrs", "pluggy"):
        for file in distribution(name).files or ():
            if ".." not in file.parts and file.suffix not in {".pth", ".pyc"}:
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    for package in (source / "colossalai_env", *source.glob("plugins/*")):
        shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__", "recorded"))
    groups = tomllib.loads((source / "pyproject.toml").read_text())["project"]["entry-points"]
    entry_points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in groups.items()
    ]
    _information(site, "colossalai-env", "\n".join(entry_points))


def _information(site: Path, name: str, entry_points: str | None) -> None:
    info = site / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "RECORD").write_text("")
    if entry_points is not None:
        (info / "entry_points.txt").write_text(entry_points)
