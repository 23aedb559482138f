"""A Slurm of one node on this machine, from Debian's slurm-wlm and munge: two GPUs that are files,
no accounting. For tests, as a context; and by hand:

    python tests/slurm/cluster.py          until Ctrl-C; says which SLURM_CONF to set
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
# Debian keeps daemons where a user's PATH may not look.
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PARTITION, GPUS, CPUS = "main", 2, 4
STARTS_WITHIN_S = 60.0

CONF = """\
ClusterName=saemake
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# The same as most clusters have.
KillWait=30
MinJobAge=300
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:{gpus} State=UNKNOWN
PartitionName={partition} Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""


@dataclass(frozen=True)
class Cluster:
    """A running one. `environment` is what its commands need."""

    folder: Path
    host: str
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints. Raises CalledProcessError."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def jobs(self, *states: str) -> list[str]:
        """The ids of the jobs in these states, such as RUNNING."""
        listed = self.ask("squeue", "--noheader", "--format=%i", f"--states={','.join(states)}")
        return listed.split()

    def about(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of a job."""
        words = self.ask("scontrol", "--details", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in words if "=" in word)


def why_not() -> str | None:
    """Why there can be no cluster here; None if there can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]
    if missing:
        return f"no {', '.join(missing)} (apt-get install slurm-wlm munge)"
    return None


@contextlib.contextmanager
def started() -> Iterator[Cluster]:
    """A cluster inside the block; its jobs and daemons end with it."""
    # A short path: a socket's name may have about 100 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder, host = Path(name), socket.gethostname().partition(".")[0]
        folder.chmod(0o755)  # munged refuses a socket that others could not reach
        _write(folder, host)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}/bin{os.pathsep}{PLACES}",
        }
        cluster = Cluster(folder, host, environment)
        with contextlib.ExitStack() as daemons:
            for command in _daemons(folder):
                daemons.enter_context(_running(command, environment, folder))
            _wait_for(cluster)
            try:
                yield cluster
            finally:
                _cancel_all(cluster)


def _write(folder: Path, host: str) -> None:
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    # Snakemake takes SLURM_CONF away from the srun that it calls in a job: elsewhere it is not set,
    # since slurm.conf is where Slurm looks.
    srun = folder / "bin" / "srun"
    program = shutil.which("srun", path=PLACES)
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {program} "$@"\n')
    srun.chmod(0o755)
    for number in range(GPUS):
        (folder / f"nvidia{number}").symlink_to("/dev/null")  # Slurm wants a device
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller_port, node_port = _free_ports(2)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    conf = CONF.format(
        host=host,
        controller_port=controller_port,
        node_port=node_port,
        user=getpass.getuser(),
        folder=folder,
        cpus=CPUS,
        memory_mb=memory,
        gpus=GPUS,
        partition=PARTITION,
    )
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/nvidia[0-{GPUS - 1}]\n")


def _daemons(folder: Path) -> list[list[str]]:
    """Their commands, in the foreground, in the order of their starts."""
    munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
    munged += [f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"]
    munged += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    return [munged, ["slurmctld", "-D"], ["slurmd", "-D"]]


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    program = shutil.which(command[0], path=PLACES)
    assert program is not None
    with (folder / f"{command[0]}.out").open("w") as said:
        process = subprocess.Popen(
            [program, *command[1:]],
            env=environment,
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(cluster: Cluster) -> None:
    """Until its node takes jobs. Raises RuntimeError, with what its daemons say."""
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until:
        with contextlib.suppress(subprocess.SubprocessError):
            if "idle" in cluster.ask("sinfo", "--noheader", f"--partition={PARTITION}"):
                return
        time.sleep(0.2)
    said = [path.read_text()[-1000:] for path in sorted(cluster.folder.glob("*.out"))]
    said += [path.read_text()[-1000:] for path in sorted(cluster.folder.glob("slurm*.log"))]
    raise RuntimeError("the node takes no jobs:\n" + "\n".join(said))


def _cancel_all(cluster: Cluster) -> None:
    with contextlib.suppress(subprocess.SubprocessError):
        cluster.ask("scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}")
        cluster.ask("scancel", f"--user={getpass.getuser()}")
        until = time.monotonic() + 40
        while cluster.jobs("RUNNING", "COMPLETING", "PENDING") and time.monotonic() < until:
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    if said := why_not():
        raise SystemExit(said)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), started() as made:
        print(f"export SLURM_CONF={made.folder}/slurm.conf", flush=True)
        signal.pause()
