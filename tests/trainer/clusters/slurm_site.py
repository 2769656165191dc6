"""A SLURM of one node, this machine, with all that it writes in a folder: `SlurmSite`."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "squeue")
# cred_expire: a job that was queued again starts when its credentials have expired, else 120 s
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=60
JobRequeue=1
NodeName={host} CPUs=4 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why there can be no site here; empty where there can."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)} (Debian: slurm-wlm, munge)"
    return ""


class SlurmSite:
    """Daemons that run while it is open.

    Args:
      folder: an empty folder.
    Attributes:
      variables: what SLURM's commands need in their environment.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self):
        folder, host = self.folder, socket.gethostname()
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o600)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
            ports = [one.getsockname()[1], other.getsockname()[1]]
        text = CONFIGURATION.format(host=host, ports=ports, folder=folder)
        (folder / "slurm.conf").write_text(text)
        names = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid"}
        names |= {"log-file": "munged.log", "seed-file": "seed"}
        flags = [f"--{flag}={folder / name}" for flag, name in names.items()]
        try:
            self._start("munged", "--foreground", "--force", *flags)
            self._wait(lambda: (folder / "munge.socket").exists())
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D")
            self._wait(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.SubprocessError):
            self.ask("scancel", "--quiet", "--user=root")
            self._wait(lambda: not self.ask("squeue", "--noheader"))
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *arguments):
        """What a command of SLURM prints."""
        done = subprocess.run(
            arguments,
            env={**os.environ, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.stdout.strip()

    def state(self, job):
        """The state of a job, such as RUNNING; empty when it has gone from the queue."""
        return self.ask("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")

    def _start(self, *arguments):
        log = open(self.folder / f"{arguments[0]}.out", "w")  # noqa: SIM115
        with log:
            self._daemons.append(
                subprocess.Popen(
                    arguments,
                    env={**os.environ, **self.variables},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _wait(self, holds, seconds=120):
        end = time.monotonic() + seconds
        while not holds():
            said = [path.read_text()[-1500:] for path in self.folder.glob("*.out")]
            ended = [daemon.args[0] for daemon in self._daemons if daemon.poll() is not None]
            assert time.monotonic() < end and not ended, (ended, said)
            time.sleep(0.2)
