"""Workers on a real Ray: they train, one node goes and the others go on, a further one comes."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.clusters.started import (
    LONGEST,
    Started,
    check_close,
    command,
    environment,
    resumed_from,
)

pytestmark = [
    pytest.mark.very_slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="the package `ray` is not installed"
    ),
]
SITE = Path(__file__).with_name("ray_site.py")
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
# a node may take long to start where the machine is busy
RAY |= {"RAY_raylet_start_wait_time_s": "600", "RAY_agent_register_timeout_ms": "600000"}


class Site:
    """The nodes of `ray_site.py`."""

    def __init__(self, nodes):
        self.process = subprocess.Popen(
            [sys.executable, str(SITE), str(nodes)],
            env=environment(**RAY),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self.address = self._read("address").split()[1]

    def tell(self, word):
        self.process.stdin.write(f"{word}\n")
        self._read(f"done {word}")

    def close(self):
        try:
            self.process.communicate(timeout=LONGEST)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _read(self, word):
        said = []
        for line in self.process.stdout:
            if line.startswith(word):
                return line
            said.append(line)
        raise AssertionError(f"no {word!r} in: {''.join(said[-30:])}")


@pytest.fixture
def site():
    """A function that starts nodes, which end with the test."""
    started = []

    def start(nodes):
        started.append(Site(nodes))
        return started[-1]

    yield start
    for one in started:
        one.close()


def driver(site, workdir, *flags, **job):
    flags = ["--workers=2", f"--address={site.address}", "--startup_s=300", *flags]
    words = [sys.executable, "-m", "trainer.launch.on_ray", *flags, "--", *command(workdir, **job)]
    return Started(words, environment(**RAY))


def test_when_a_node_goes_the_run_goes_on_with_those_left(site, undisturbed, tmp_path):
    nodes, go = site(2), tmp_path / "go"
    flags = ["--patience_s=5", "--grace_s=2"]
    with driver(nodes, tmp_path / "run", *flags, hold="step 30", go=go) as run:
        # a start waits for all a while; here both have a place at once, or a moment later
        assert run.when("[launch]", "2 of 2 workers"), "".join(run.said[-40:])
        assert run.when("step 30") and run.when("step 30")
        nodes.tell("remove")
        assert run.when("[launch]", "is lost: Ray's process for it, or its node, is gone")
        go.touch()
        assert run.when("[launch]", "1 of 2 workers"), "".join(run.said[-40:])
        assert run.end() == 0, "".join(run.said[-40:])
    assert len(resumed_from(tmp_path / "run")) == 2
    check_close(tmp_path / "run", undisturbed)


def test_when_a_node_comes_the_run_saves_and_goes_on_with_it(site, undisturbed, tmp_path):
    nodes, go = site(1), tmp_path / "go"
    flags = ["--patience_s=1", "--grace_s=120", "--max_restarts=0"]
    with driver(nodes, tmp_path / "run", *flags, hold="step 30", go=go) as run:
        assert run.when("[launch]", "1 of 2 workers"), "".join(run.said[-40:])
        assert run.when("step 30")
        nodes.tell("add")
        go.touch()
        assert run.when("[launch] a further worker has come"), "".join(run.said[-40:])
        assert run.when("[launch]", "2 of 2 workers")
        assert run.end() == 0, "".join(run.said[-40:])
    assert len(resumed_from(tmp_path / "run")) == 2
    check_close(tmp_path / "run", undisturbed)


def test_a_driver_that_is_told_to_stop_saves_and_goes_on_later(site, undisturbed, tmp_path):
    nodes, go = site(2), tmp_path / "go"
    with driver(nodes, tmp_path / "run", "--grace_s=120", hold="step 30", go=go) as run:
        assert run.when("step 30") and run.when("step 30")
        run.send(signal.SIGTERM)
        go.touch()
        assert run.end() == 42, "".join(run.said[-40:])
        assert "stopped; the same command continues" in "".join(run.said)
    with driver(nodes, tmp_path / "run") as run:
        assert run.end() == 0, "".join(run.said[-40:])
    check_close(tmp_path / "run", undisturbed)
