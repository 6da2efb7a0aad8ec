"""SLURM on this machine alone: a controller and two nodes, from Debian's packages unpacked beside.

Nothing is installed: `apt-get download`, `dpkg -x`. The daemons are started as root, listen on the
loopback interface and end with the context. Jobs are told apart from the machine's own by nothing
else: where a SLURM runs already, ports are others.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "libslurm38"),
    *("munge", "libmunge2", "libhwloc15", "libpmix2"),
)
LIMIT_S = 60
DOWNLOAD_S = 120
_CONFIG = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={controller}
PluginDir={plugins}
StateSaveLocation={work}/state
SlurmdSpoolDir={work}/spool/%n
SlurmctldPidFile={work}/run/slurmctld.pid
SlurmdPidFile={work}/run/slurmd-%n.pid
SlurmctldLogFile={work}/slurmctld.log
SlurmdLogFile={work}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
MinJobAge=3600
SlurmctldTimeout=60
SlurmdTimeout=60
KillWait=30
SchedulerParameters=defer_batch,bf_interval=1,sched_interval=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurmError(Exception):
    """What this machine lacks for it."""


@dataclass(frozen=True)
class Cluster:
    """A running one."""

    environment: Mapping[str, str]
    """For `sbatch`, `squeue` and what they start."""
    work: Path

    def ask(self, *command: str) -> str:
        """Return what one of its commands says."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True
        ).stdout

    def details(self, job: str) -> dict[str, str]:
        """Return what is known of a job."""
        words = self.ask("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, job: str, states: Sequence[str], *, limit_s: float) -> str:
        """Wait until a job is in one of these states, and return it."""
        end = time.monotonic() + limit_s
        while (state := self.details(job)["JobState"]) not in states:
            assert time.monotonic() < end, f"{state}: {self.logs()}"
            time.sleep(0.5)
        return state

    def logs(self) -> str:
        """Return the last lines of its daemons."""
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.work.glob("*.log")))


def unpacked(folder: Path) -> Path:
    """Return a folder with the programs, fetched where they are not there yet.

    Raises:
        NoSlurmError: apt has none, or this is no root's machine.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise NoSlurmError("SLURM's daemons need root, apt-get and dpkg")
    if not (folder / "usr/sbin/slurmctld-wlm").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                ["apt-get", "download", *PACKAGES],
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=DOWNLOAD_S,
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise NoSlurmError(f"apt has no SLURM here ({error})") from error
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    return folder


@contextmanager
def slurm(programs: Path, work: Path) -> Iterator[Cluster]:
    """Run a controller and two nodes until the block ends."""
    for name in ("state", "spool/n1", "spool/n2", "run"):
        (work / name).mkdir(parents=True)
    library = programs / "usr/lib/x86_64-linux-gnu"
    controller, first, second = (_free_port() for _ in range(3))
    config = work / "slurm.conf"
    config.write_text(
        _CONFIG.format(
            host=socket.gethostname(),
            controller=controller,
            plugins=library / "slurm-wlm",
            work=work,
            first=first,
            second=second,
        )
    )
    environment = os.environ | {
        "SLURM_CONF": str(config),
        "PATH": f"{programs}/usr/bin:{programs}/usr/sbin:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{library}:{library}/slurm-wlm",
    }
    step = ["-d", str(programs / "usr/sbin/slurmstepd-wlm")]
    commands = (
        ["slurmctld-wlm", "-D"],
        *(["slurmd-wlm", "-D", "-N", node, *step] for node in ("n1", "n2")),
    )
    daemons = [
        subprocess.Popen(
            [str(programs / "usr/sbin" / command[0]), *command[1:]],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    cluster = Cluster(environment, work)
    try:
        _wait_for_nodes(cluster)
        yield cluster
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait_for_nodes(cluster: Cluster) -> None:
    end = time.monotonic() + LIMIT_S
    while True:
        states = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%T"],
            env=cluster.environment,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        if states == ["idle", "idle"]:
            return
        assert time.monotonic() < end, f"{states}: {cluster.logs()}"
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
