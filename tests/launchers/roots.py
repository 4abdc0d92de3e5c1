"""Unpacks Slurm of another Debian suite, and all that it needs, into a folder: no maintainer's script runs."""

import shutil
import subprocess
import sys
from pathlib import Path

from .clusters import Release

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge")
KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{kind}") for kind in ("gpg", "pgp"))
"""The archive's keys, of which a release's own trusted ones may be too old for a newer suite."""


def unpack(release: Release) -> int:
    """Make the release's root anew; return 1, and say why, where its suite has another one."""
    root, state = release.root, Path(f"{release.root}.apt")
    if root is None:
        raise ValueError("the installed Slurm needs no root")
    for path in (root, state):
        shutil.rmtree(path, ignore_errors=True)
    try:
        apt = _apt(release.suite, state)
        subprocess.run([*apt, "update"], check=True, timeout=300)
        download = [*apt, "install", "--yes", "--download-only", *PACKAGES]
        subprocess.run(download, check=True, timeout=600, stdout=subprocess.DEVNULL)
        (found,) = state.glob("cache/archives/slurmctld_*.deb")
        if not found.name.startswith(f"slurmctld_{release.number}."):
            release.gone.write_text(f"Debian {release.suite} has {found.name}\n")
            sys.stderr.write(f"Slurm {release.number}: {release.gone.read_text()}")
            return 1
        for package in state.glob("cache/archives/*.deb"):
            subprocess.run(["dpkg", "--extract", package, root], check=True)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    for program in root.glob("usr/sbin/slurm*-wlm"):  # as update-alternatives would name them
        program.with_name(program.name.removesuffix("-wlm")).symlink_to(program.name)
    (root / "ready").touch()
    return 0


def _apt(suite: str, state: Path) -> list[str]:
    """Return apt-get with a state of its own, for one suite of the archive that this machine's apt is set up for.

    Its signatures are checked as always.
    """
    targets = ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    told = subprocess.run(targets, check=True, capture_output=True, text=True).stdout
    known = [line.removeprefix("Debian|") for line in told.splitlines() if line.startswith("Debian|")]
    if not known:
        raise RuntimeError(
            "this machine's apt is set up for no archive of Debian: expected a line of its sources with one"
        )
    keys = next((path for path in KEYRINGS if path.exists()), None)
    for folder in ("lists/partial", "cache/archives/partial", "none"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    signed = f" [signed-by={keys}]" if keys else ""
    (state / "sources.list").write_text(f"deb{signed} {known[0]} {suite} main\n")
    options = {
        "Dir::State": state, "Dir::State::status": state / "status", "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache", "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": state / "none", "Dir::Etc::preferencesparts": state / "none",
        "APT::Sandbox::User": "root", "Acquire::Languages": "none", "APT::Install-Recommends": "false",
    }  # fmt: skip
    return ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
