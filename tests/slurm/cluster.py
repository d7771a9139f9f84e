"""A real Slurm of several nodes on this machine, in a folder of its own, with ports of its own.

It leaves a Slurm that the machine may belong to alone: every command gets SLURM_CONF, no file
outside the folder is written.
"""

import contextlib
import datetime
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "setpriv")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
OVER = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
)
PATIENCE = 900  # seconds for anything that takes seconds on a quiet machine

CONFIGURATION = """
ClusterName=galen
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool_%n
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmdLogFile={folder}/slurmd_%n.log
ReturnToService=1
SlurmdTimeout=20
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
KillWait=60
MinJobAge=3600
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PropagateResourceLimits=NONE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=64 RealMemory=512000"
    " Gres=gpu:8\n"
)


def missing() -> list[str]:
    """Return the programs that this machine lacks.

    Where it is allowed, it first tries to install Debian's packages.
    """
    lacking = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if lacking and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        # its scripts would start a Slurm and a munge of the machine's own
        policy = Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
                subprocess.run(
                    ["apt-get", "-qq", *command], env=environment, capture_output=True, check=False
                )
        finally:
            if ours:
                policy.unlink()
    return [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]


def wait_for(
    what: str,
    ready: Callable[[], object],
    seconds: float = PATIENCE,
    describe: Callable[[], str] = str,
) -> Any:
    """Return the result of `ready` once it is true.

    Fails, with the result of `describe`, when it takes more than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (result := ready()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for: {what}\n{describe()}")
        time.sleep(0.2)
    return result


class Cluster:
    """Daemons, and the commands that speak to them. Use as a context manager."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder, self.nodes = folder, [f"n{number + 1}" for number in range(nodes)]
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        for name in [
            name
            for name in self.environment
            if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"
        ]:
            del self.environment[name]  # of a job of a real cluster, in which the tests may run

    def __enter__(self) -> "Cluster":
        self._configure()
        try:
            munge = (f"--{name}={self.folder}/munge.{ending}" for name, ending in MUNGE.items())
            self._daemon("munged", "munged", "--foreground", "--force", *munge)
            wait_for("munge's socket", (self.folder / "munge.socket").exists, describe=self.logs)
            self._daemon("slurmctld", "slurmctld", "-D", "-c")
            for node in self.nodes:
                self.start_node(node)
            wait_for(
                "all nodes idle",
                lambda: self.states() == dict.fromkeys(self.nodes, "idle"),
                describe=self.logs,
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.command("scancel", "--user", str(os.geteuid()), check=False)
        with contextlib.suppress(AssertionError):
            wait_for(
                "no job", lambda: not self.command("squeue", "--noheader", check=False).strip(), 30
            )
        for node in self.nodes:
            self.kill_node(node)
        for daemon in self.daemons.values():
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(30)

    def _configure(self) -> None:
        for name in ("state", *(f"spool_{node}" for node in self.nodes)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        ports = _free_ports(1 + len(self.nodes))
        host, user = socket.gethostname(), psutil.Process().username()
        text = CONFIGURATION.format(host=host, user=user, folder=self.folder, ports=ports)
        nodes = [
            NODE.format(name=node, host=host, port=port)
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        (self.folder / "slurm.conf").write_text(text + "".join(nodes))
        # a plugstack.conf, for a Slurm with Pyxis (docs/slurm.md)
        plugins = os.environ.get("GALEN_TEST_PLUGSTACK")
        if plugins:
            shutil.copy(plugins, self.folder / "plugstack.conf")
        for number in range(8):  # Slurm counts GPUs by their device files
            (self.folder / f"gpu{number}").touch()
        (self.folder / "gres.conf").write_text(
            f"NodeName={','.join(self.nodes)} Name=gpu File={self.folder}/gpu[0-7]\n"
        )

    def _daemon(self, name: str, *command: str) -> None:
        """Start a daemon that ends with this process, however that ends."""
        with (self.folder / f"{name}.out").open("ab") as file:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._daemon(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """End a node at once: its daemon and every process of its jobs, as when its power fails."""
        managers = [process for process in psutil.process_iter() if self._belongs(process, node)]
        for process in [*managers, *(child for one in managers for child in _descendants(one))]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if node in self.daemons:
            self.daemons[node].kill()
            self.daemons.pop(node).wait()

    def _belongs(self, process: psutil.Process, node: str) -> bool:
        """Return whether a process is this node's daemon or manages a step on it.

        Both write the node's log.
        """
        log = str(self.folder / f"slurmd_{node}.log")
        try:
            return process.name().startswith("slurm") and log in (
                file.path for file in process.open_files()
            )
        except psutil.Error:
            return False

    def command(self, *arguments: object, check: bool = True, **environment: str) -> str:
        """Run a Slurm command in the repository and return its output."""
        done = self._run(*arguments, **environment)
        assert not check or done.returncode == 0, (
            f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        )
        return done.stdout

    def refusal(self, *arguments: object, **environment: str) -> str:
        """Run a command that must end with exit code 2; return what it says."""
        done = self._run(*arguments, **environment)
        assert done.returncode == 2, done
        return done.stderr

    def _run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        return subprocess.run(
            words,
            env={**self.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def jobs(self) -> list[int]:
        """Return the numbers of all jobs, an array's once."""
        return [
            int(line)
            for line in self.command("squeue", "--noheader", "--states=all", "--format=%F").split()
        ]

    def sbatch(self, *arguments: object, **environment: str) -> int:
        """Submit a job and return its number."""
        return int(self.command("sbatch", "--parsable", *arguments, **environment).split(";")[0])

    def states(self) -> dict[str, str]:
        """Return the state of each node."""
        lines = self.command("sinfo", "--noheader", "--Node", "--format=%N %t", check=False).split(
            "\n"
        )
        return dict(line.split() for line in lines if line)

    def job(self, number: int | str) -> dict[str, str]:
        """Return what Slurm knows of a job, or of one task of an array, N_I."""
        return dict(
            re.findall(
                r"(\S+?)=(\S*)", self.command("scontrol", "--oneliner", "show", "job", number)
            )
        )

    def hasten(self, number: int | str) -> dict[str, str]:
        """Make a requeued job start soon (Slurm delays it by two minutes); return its Slurm state.

        Two seconds must pass, since a node refuses what was signed in the second in which it was
        told to end the job's last start.
        """
        job = self.job(number)
        if (
            job["JobState"] == "PENDING"
            and job["Reason"] == "BeginTime"
            and job["StartTime"].startswith("2")
        ):
            start = datetime.datetime.fromisoformat(job["StartTime"])
            if start - datetime.datetime.now() > datetime.timedelta(seconds=20):
                self.command(
                    "scontrol", "update", f"JobId={number}", "StartTime=now+2", check=False
                )
        return job

    def until(
        self,
        number: int | str,
        what: str,
        ready: Callable[[dict[str, str]], object],
        describe: Callable[[], str] = str,
    ) -> dict[str, str]:
        """Wait until `ready` is true for a job's Slurm state; return that state.

        Fails when the job ends before.
        """

        def look() -> dict[str, str] | None:
            job = self.hasten(number)
            if ready(job):
                return job
            assert job["JobState"] not in OVER, (
                f"job {number} ended ({job['JobState']}) before: {what}\n{describe()}\n"
                + self.logs()
            )
            return None

        return wait_for(what, look, describe=lambda: describe() + self.logs())

    def wait(self, number: int | str, describe: Callable[[], str] = str) -> dict[str, str]:
        """Wait until a job has ended and return what Slurm knows of it."""
        return self.until(number, "its end", lambda job: job["JobState"] in OVER, describe)

    def logs(self) -> str:
        """Return the last lines of the daemons' logs."""
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(
            f"--- {file.name}\n" + "\n".join(file.read_text().splitlines()[-12:]) for file in files
        )


MUNGE = {
    "key-file": "key",
    "socket": "socket",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}
ROOT = Path(__file__).parent.parent.parent


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []
