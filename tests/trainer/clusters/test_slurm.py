"""Two tasks of a real SLURM: they train, they are told to stop and go on, one of them dies."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.trainer.clusters import slurm_site
from tests.trainer.clusters.started import (
    LONGEST,
    ROOT,
    Started,
    check_close,
    command,
    environment,
    resumed_from,
    rows,
)

pytestmark = [
    pytest.mark.very_slow,
    pytest.mark.skipif(bool(slurm_site.missing()), reason=slurm_site.missing() or "there is one"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with slurm_site.SlurmSite(folder) as site:
        yield site


def batch_script(text, worker):
    """The script of docs/clusters.md with another command and no more than this machine has."""
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", text, re.DOTALL)
    head, begin, rest = script.partition("    python -m experiments.run")
    assert begin
    head = head.replace("--nodes=2 --ntasks-per-node=1 --gpus-per-task=4", "--ntasks=2")
    words = " ".join(f"'{word}'" for word in worker)
    return f"{head}    {words}\n{rest.partition(chr(10))[2]}"


class Job:
    """A job in the queue, and its output file."""

    def __init__(self, site, folder, worker):
        self.site, self.output = site, folder / "job.out"
        text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
        (folder / "job.sh").write_text(batch_script(text, worker))
        arguments = ["sbatch", "--parsable", f"--output={self.output}", str(folder / "job.sh")]
        with Started(arguments, environment(**site.variables)) as submitted:
            assert submitted.end() == 0, submitted.said
        self.number = int(submitted.said[-1])

    def said(self):
        return self.output.read_text() if self.output.exists() else ""

    def until(self, holds):
        end = time.monotonic() + LONGEST
        while not holds():
            assert time.monotonic() < end, (self.site.state(self.number), self.said()[-3000:])
            time.sleep(0.2)


def test_two_tasks_train_what_one_device_trains(site, undisturbed, tmp_path):
    start = ["srun", "--ntasks=2", "--distribution=block"]
    variables = environment(**site.variables)
    run = [sys.executable, "-m", "experiments.run", "--config=experiments/configs/digits.py"]
    run += [f"--workdir={tmp_path / 'digits'}", "--strategy=multi_worker", "--config.steps=20"]
    run += ["--config.log_every=10"]
    with Started([*start, *run], variables) as started:
        assert started.when("cpu, 2 replicas on 2 hosts (SLURM) | 20 steps")
        assert started.end() == 0, "".join(started.said[-40:])
    assert [row["step"] for row in rows(tmp_path / "digits") if "total" in row][:2] == [10, 20]
    with Started([*start, *command(tmp_path / "run")], variables) as started:
        assert started.end() == 0, "".join(started.said[-40:])
    check_close(tmp_path / "run", undisturbed)


def test_a_job_that_is_told_to_stop_saves_and_is_queued_again(site, undisturbed, tmp_path):
    go = tmp_path / "go"
    job = Job(site, tmp_path, command(tmp_path / "run", hold="step 30", go=go))
    job.until(lambda: job.said().count("step 30") == 2)
    site.ask("scancel", "--signal=TERM", str(job.number))  # what --signal=TERM@120 sends
    go.touch()
    job.until(lambda: not job.site.state(job.number) or "COMPLETED" in site.state(job.number))
    assert "stopped by SIGTERM at step" in job.said()
    assert job.said().count("returned") == 2, job.said()[-3000:]
    assert len(resumed_from(tmp_path / "run")) == 2
    check_close(tmp_path / "run", undisturbed)


def test_a_task_that_dies_ends_the_step_and_the_job_is_queued_again(site, undisturbed, tmp_path):
    go = tmp_path / "go"
    job = Job(site, tmp_path, command(tmp_path / "run", hold="step 30", go=go))
    job.until(lambda: job.said().count("step 30") == 2)
    os.kill(task(job.number, 1), signal.SIGKILL)
    go.touch()
    job.until(lambda: not job.site.state(job.number) or "COMPLETED" in site.state(job.number))
    assert "another host is gone" in job.said()
    assert job.said().count("returned") == 2, job.said()[-3000:]
    assert len(resumed_from(tmp_path / "run")) == 2
    check_close(tmp_path / "run", undisturbed)


def task(job, rank):
    """The process of a task."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = set((folder / "environ").read_bytes().split(b"\0"))
            words = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if wanted <= variables and b"kill_worker.py" in words and b"srun" not in words:
            return int(folder.name)
    raise AssertionError(f"no task {rank} of job {job}")
