"""A run goes from two hosts to one, and to three, by SIGKILL, and no number changes."""

import os
import signal
import sys

import pytest

from tests.trainer.clusters.started import (
    Started,
    check_close,
    command,
    resumed_from,
    wait_for,
)

pytestmark = pytest.mark.very_slow


def launched(workers, workdir, **job):
    """Hosts of one run under the launcher, which does not start them again."""
    flags = [f"--workers={workers}", "--max_restarts=0", "--grace_s=60"]
    worker = command(workdir, **job)
    return Started([sys.executable, "-m", "trainer.launch", *flags, "--", *worker])


def killed(workers, workdir, at, go):
    """Starts hosts, and kills the launcher and all of them when they have come to a step."""
    go.unlink(missing_ok=True)
    with launched(workers, workdir, hold=f"step {at}", go=go) as run:
        words = run.when("[launch]", "worker 0 is process").split()
        processes = [int(words[i + 1]) for i, word in enumerate(words) if word == "process"]
        assert len(processes) == workers
        assert run.when("[worker 0]", f"step {at}"), "".join(run.said[-40:])
        # they hold there; the checkpoint that was due last is written behind them
        newest = workdir / "checkpoints" / f"ckpt-{at // 20 * 20}.json"
        wait_for(newest.exists)
        for process in processes:
            os.kill(process, signal.SIGKILL)
        assert run.end() == 128 + signal.SIGKILL, "".join(run.said[-40:])


@pytest.mark.parametrize(
    "hosts", [(2, 1, 3), (1, 3, 2)], ids=lambda hosts: "-".join(map(str, hosts))
)
def test_a_run_goes_on_with_any_number_of_hosts(hosts, undisturbed, tmp_path):
    workdir, go = tmp_path / "run", tmp_path / "go"
    killed(hosts[0], workdir, 30, go)
    killed(hosts[1], workdir, 75, go)
    with launched(hosts[2], workdir) as run:
        assert run.end() == 0, "".join(run.said[-40:])
    assert resumed_from(workdir) == [None, 20, 60]
    check_close(workdir, undisturbed)


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_train_what_one_device_trains(hosts, undisturbed, tmp_path):
    with launched(hosts, tmp_path / "run") as run:
        assert run.end() == 0, "".join(run.said[-40:])
    check_close(tmp_path / "run", undisturbed)
