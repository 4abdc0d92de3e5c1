"""A bed of pretend hosts: network, UTS and mount namespaces on a bridge, all in one PID namespace that ends with us."""

import fcntl
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from tests.devices import HIDDEN
from tests.pace import pace

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).parents[2]

HEAD = "login0"
NODES = ("gpu-a01", "gpu-a02", "gpu-b07", "rack1-n9", "rack1-n10", "rack2-n010", "odd-host")
"""Names that exercise host lists; Slurm knows the last one as cn001, which resolves nowhere."""

LOCK = "locked"

PAUSE = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print('up', flush=True); signal.pause()"
"""The program of a host: it reaps whatever is orphaned and waits for its end."""

ENTER = """
set -e
{overlay}
mount -t proc proc /proc
hostname {name}
for file in hosts.{name} hostname.{name} resolv.conf; do mount --bind {etc}/$file /etc/${{file%.{name}}}; done
mount --bind {etc}/slurm /etc/slurm
mkdir -p {stage}
for path in {shared}; do mkdir -p {stage}$path; mount --bind $path {stage}$path; done
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
for path in {shared}; do mkdir -p $path; mount --bind {stage}$path $path; done
ip link set lo up
exec {python} -S -c {pause}
"""


def missing_tools(names: Sequence[str]) -> list[str]:
    """Return those of the programs that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in names if shutil.which(name, path=path) is None]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait for a condition, or fail with what did not come true; the seconds are longer on a slow machine."""
    seconds *= pace()
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)


def sweep() -> None:
    """Remove the folders of beds whose owners were killed; their processes have ended with them."""
    for path in Path("/var/tmp").glob(f"bed-*/{LOCK}"):
        with suppress(OSError):  # it is held, or another one sweeps
            lock = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
            finally:
                os.close(lock)


@attrs.frozen
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


@attrs.define
class Host:
    """A pretend host: a name, an address, and the process that holds its namespaces."""

    name: str
    address: str
    holder: int = 0


@attrs.define
class Bed:
    """Brings the hosts up when entered, and takes everything down when left, also after a failure."""

    root: Path | None = None
    """Another suite's files, which lie over this machine's own in /usr on every host."""
    domain: str = ""
    """Where set, the other hosts know a host by its full name alone, as those of Kubernetes do."""
    folder: Path = attrs.field(init=False)
    """Shared by all hosts; scripts, spool directories and results live here."""
    hosts: dict[str, Host] = attrs.field(init=False, factory=dict[str, Host])
    _switch: int = attrs.field(init=False, default=0)
    """The process that holds the bridge, and is the init of the bed's PID namespace."""
    _lock: int = attrs.field(init=False, default=-1)
    """Held as long as we live: a folder whose lock is free has lost its owner."""
    _started: "list[subprocess.Popen[str]]" = attrs.field(init=False, factory=list["subprocess.Popen[str]"])

    def __enter__(self) -> "Self":
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix="bed-", dir="/var/tmp"))
        try:
            self._lock = os.open(self.folder / "locking", os.O_RDWR | os.O_CREAT)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            (self.folder / "locking").rename(self.folder / LOCK)
            self._write_etc()
            command = shlex.split("setpriv --pdeathsig KILL unshare --pid --net --mount --fork --kill-child")
            self._switch = self._hold([*command, sys.executable, "-S", "-c", PAUSE])
            self._in(self._switch, "ip link add br0 type bridge && ip link set br0 up")
            for host in self.hosts.values():
                self._raise(host)
        except BaseException:
            self._take_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_down()

    def _take_down(self) -> None:
        """Kill the PID namespace's init: the kernel ends all else in it, and namespaces, mounts and links go too."""
        try:
            if self._started:
                self._started[0].kill()
            for process in self._started:
                process.wait(20)
                for stream in (process.stdout, process.stderr):
                    if stream is not None:
                        stream.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _write_etc(self) -> None:
        etc = self.folder / "etc"
        (etc / "slurm").mkdir(parents=True)
        for number, name in enumerate((HEAD, *NODES), 11):
            self.hosts[name] = Host(name, f"10.77.0.{number}")
            (etc / f"hostname.{name}").write_text(f"{name}\n")
        for own in self.hosts.values():
            names = [[self.full(host.name), *([host.name] if host is own else [])] for host in self.hosts.values()]
            lines = [" ".join([host.address, *known]) for host, known in zip(self.hosts.values(), names, strict=True)]
            (etc / f"hosts.{own.name}").write_text("\n".join(["127.0.0.1 localhost", "::1 localhost", *lines, ""]))
        (etc / "resolv.conf").write_text("")

    def full(self, name: str) -> str:
        """Return the name by which the other hosts know a host."""
        return f"{name}.{self.domain}" if self.domain else name

    def _hold(self, command: Sequence[str]) -> int:
        """Start a program that forks once into its namespaces, and return the child's pid."""
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self._started.append(parent)
        if (
            parent.stdout is None
            or not select.select([parent.stdout], [], [], 20)[0]
            or parent.stdout.readline() != "up\n"
        ):
            raise RuntimeError(f"could not enter its namespaces: {shlex.join(command)}")
        parent.stdout.close()
        child = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0]
        return int(child)

    def _in(self, holder: int, script: str) -> None:
        subprocess.run(["nsenter", "-t", str(holder), "-n", "sh", "-ec", script], check=True)

    def _raise(self, host: Host) -> None:
        hidden = [path for path in (ROOT, Path(sys.prefix)) if path.is_relative_to("/tmp")]
        script = ENTER.format(
            name=host.name,
            overlay=f"mount -t overlay usr -o lowerdir={self.root}/usr:/usr /usr" if self.root else "",
            etc=self.folder / "etc",
            stage=self.folder / "stage",
            shared=" ".join(map(str, hidden)),
            python=sys.executable,
            pause=shlex.quote(PAUSE),
        )
        enter = ["nsenter", "-t", str(self._switch), "-p", "unshare", "-n", "-u", "-m", "sh", "-c", script]
        host.holder = self._hold(enter)
        link = f"veth{host.address.rpartition('.')[2]}"
        add = ["ip", "link", "add", "eth0", "netns", str(host.holder), "type", "veth", "peer", "name", link]
        subprocess.run([*add, "netns", str(self._switch)], check=True)
        self._in(self._switch, f"ip link set {link} master br0 up")
        self._in(host.holder, f"ip addr add {host.address}/24 dev eth0; ip link set eth0 up")

    def command(self, host: str, argv: Sequence[str | Path], seconds: float = 60) -> list[str]:
        """Return the command that runs `argv` on a host, bounded in time."""
        enter = ["nsenter", "-t", str(self.hosts[host].holder), "-n", "-u", "-m", "-p", f"--wd={self.folder}"]
        return [*enter, "timeout", "-k", "2", f"{seconds * pace():.0f}", *map(str, argv)]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return a login's variables: what ssh would give, and nothing of ours."""
        paths = f"{Path(sys.prefix) / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        base = {"PATH": paths, "HOME": str(self.folder), "LANG": "C.UTF-8", "SHELL": "/bin/sh", "OMP_NUM_THREADS": "1"}
        return {**base, **HIDDEN, **(extra or {})}

    def start(
        self, host: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None, seconds: float = 60
    ) -> "subprocess.Popen[str]":
        """Start a command on a host."""
        process = subprocess.Popen(
            self.command(host, argv, seconds),
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(
        self, host: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None, seconds: float = 60
    ) -> Ran:
        """Run a command on a host to its end."""
        process = self.start(host, argv, env, seconds)
        out, err = process.communicate()
        return Ran(process.returncode, out, err)

    def ssh(self) -> Path:
        """Return a stand-in for ssh: SCRIPT HOST COMMAND... runs it there with a fresh environment."""
        script = self.folder / "ssh"
        if not script.exists():
            cases = "".join(
                f"{'|'.join({host.name, self.full(host.name)})}) pid={host.holder};;\n" for host in self._inner()
            )
            variables = shlex.join(f"{name}={value}" for name, value in self.environment().items())
            script.write_text(
                f'#!/bin/sh\nwhile [ "${{1#-}}" != "$1" ]; do shift; done\nhost=$1; shift\ncase $host in\n{cases}'
                f'*) echo "no host $host" >&2; exit 255;; esac\n'
                f'exec env -i {variables} nsenter -t $pid -n -u -m --wd={self.folder} sh -c "$*"\n'
            )
            script.chmod(0o755)
        return script

    def _inner(self) -> list[Host]:
        """Return the hosts with their holders' pids as the bed's own PID namespace counts them."""
        return [attrs.evolve(host, holder=_inner_pid(host.holder)) for host in self.hosts.values()]


def _inner_pid(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise RuntimeError(f"process {pid} has no pid of its own")
