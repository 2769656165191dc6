"""The driver on Ray: flags, lives, nodes that go and come. Ray is played by threads here.

tests/trainer/clusters/test_ray.py does it with the real one.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import threading
import types

import pytest

from trainer.launch.on_ray import driver, main
from trainer.launch.on_ray.flags import Flags, parse

SAYS = "echo $TF_CONFIG $TERMWISE_ENGINE; "


class FakeRay(types.SimpleNamespace):
    """Actors in threads of this process; as many have a place as there are nodes.

    Args:
      nodes: int; `grow` adds one, `lose` takes the newest away.
    """

    def __init__(self, nodes):
        self._pool = concurrent.futures.ThreadPoolExecutor(40)
        self._places = threading.Semaphore(nodes)
        self.actors = []
        self.exceptions = types.SimpleNamespace(RayError=RuntimeError)
        self.util = types.SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")

    def init(self, **_):
        self.open = True

    def shutdown(self):
        self.open = False
        for actor in self.actors:
            if "object" in vars(actor):
                actor.object.kill()
                actor.object._guard.__exit__()
        for _ in self.actors:  # nothing waits for a place when the test is over
            self._places.release()

    def remote(self, kind):
        fake = self

        class Actor:
            def __init__(self, *arguments):
                self.made, self.gone = threading.Event(), False
                fake.actors.append(self)
                fake._pool.submit(self._place, arguments)

            def _place(self, arguments):
                fake._places.acquire()
                if not fake.open:
                    return
                self.object = kind(*arguments)
                self.made.set()

            def __getattr__(self, name):
                def call(*arguments):
                    self.made.wait(60)
                    if self.gone:
                        raise RuntimeError("the actor died")
                    result = getattr(self.object, name)(*arguments)
                    if self.gone:
                        raise RuntimeError("the actor died")
                    return result

                submit = lambda *arguments: fake._pool.submit(call, *arguments)  # noqa: E731
                return types.SimpleNamespace(remote=submit)

        made = types.SimpleNamespace(remote=Actor)
        return types.SimpleNamespace(options=lambda **_: made)

    def get(self, reference, timeout=None):
        return reference.result(timeout)

    def wait(self, references, num_returns, timeout):
        assert num_returns == 1
        done, rest = concurrent.futures.wait(references, timeout, "FIRST_COMPLETED")
        return list(done)[:1], list(rest)

    def grow(self):
        self._places.release()

    def lose(self):
        actor = [actor for actor in self.actors if actor.made.is_set()][-1]
        actor.gone = True
        actor.object.kill()


@pytest.fixture
def drive(monkeypatch, capfd):
    """Runs a shell command on the workers; gives the exit code and the lines."""

    def drive(fake, script, *flags):
        monkeypatch.setitem(sys.modules, "ray", fake)
        flags = ["--workers=2", "--patience_s=20", "--startup_s=20", "--grace_s=20", *flags]
        code = main([*flags, "--", "sh", "-c", script])
        assert not fake.open
        printed = capfd.readouterr()
        return code, (printed.out + printed.err).splitlines()

    return drive


def configurations(lines):
    """(worker, how many there are) of each start."""
    for line in lines:
        if line.endswith("Ray"):
            config = json.loads(line.partition("] ")[2].removesuffix(" Ray"))
            yield config["task"]["index"], len(config["cluster"]["worker"])


def test_each_worker_is_told_its_place(drive):
    code, lines = drive(FakeRay(2), SAYS)
    assert code == 0
    assert sorted(configurations(lines)) == [(0, 2), (1, 2)]


@pytest.mark.parametrize(("code", "ended"), [(2, 2), (43, 1), (7, 7)])
def test_the_exit_code_is_that_of_the_launcher(drive, code, ended):
    found, lines = drive(FakeRay(2), f"exit {code}", "--max_restarts=0")
    assert found == ended
    assert any(f"exited with {code}" in line for line in lines if "[launch]" in line)


def test_a_failed_worker_starts_all_again(drive, tmp_path):
    came = tmp_path / "came"
    code, lines = drive(FakeRay(2), f"{SAYS} [ -e {came} ] || {{ touch {came}; exit 7; }}")
    assert code == 0
    assert len(list(configurations(lines))) == 4


def test_those_that_are_left_go_on_without_a_node_that_is_lost(drive, tmp_path):
    fake, came = FakeRay(2), tmp_path / "came"
    # worker 1 says that it is there and waits; worker 0 waits too, in the first life
    script = f"{SAYS} [ -e {came} ] && exit 0; echo x >> {tmp_path}/n; exec sleep 60"
    tearing = threading.Thread(target=lose_when_both, args=(fake, tmp_path / "n", came))
    tearing.start()
    code, lines = drive(fake, script, "--patience_s=1", "--grace_s=1")
    tearing.join()
    assert code == 0
    assert any("is lost: Ray's process for it" in line for line in lines)
    assert any("[launch] 1 of 2 workers" in line for line in lines)
    assert list(configurations(lines))[-1] == (0, 1)


def lose_when_both(fake, file, came):
    wait_until(lambda: file.exists() and len(file.read_text()) == 4)
    came.touch()
    fake.lose()


def test_a_node_that_comes_is_taken_in(drive, tmp_path):
    fake, came = FakeRay(1), tmp_path / "came"
    script = f"{SAYS} [ -e {came} ] && exit 0; trap 'touch {came}; exit 42' TERM; "
    script += f"echo x > {tmp_path}/n; while :; do sleep 0.1; done"
    growing = threading.Thread(target=lambda: (wait_until((tmp_path / "n").exists), fake.grow()))
    growing.start()
    code, lines = drive(fake, script, "--patience_s=0", "--max_restarts=0")
    growing.join()
    assert code == 0
    assert any("a further worker has come" in line for line in lines)
    assert next(configurations(lines)) == (0, 1)
    assert sorted(configurations(lines))[-2:] == [(0, 2), (1, 2)]


def test_a_worker_that_is_lost_before_it_came_is_asked_for_anew_and_ends_nothing(drive, tmp_path):
    fake, came = FakeRay(1), tmp_path / "came"
    script = f"{SAYS} [ -e {came} ] && exit 0; trap 'touch {came}; exit 42' TERM; "
    script += f"echo x >> {tmp_path}/n; while :; do sleep 0.1; done"

    def lose_the_awaited():
        wait_until((tmp_path / "n").exists)
        fake.actors[1].gone = True
        fake.actors[1].made.set()  # its questions are answered now: it died
        wait_until(lambda: len(fake.actors) == 3)
        assert (tmp_path / "n").read_text() == "x\n" and not came.exists()
        fake.grow()  # the first of the waiting places is the lost one's
        fake.grow()

    losing = threading.Thread(target=lose_the_awaited)
    losing.start()
    code, lines = drive(fake, script, "--patience_s=0", "--max_restarts=0")
    losing.join()
    assert code == 0
    assert sum("a further worker has come" in line for line in lines) == 1
    assert sorted(configurations(lines)) == [(0, 1), (0, 2), (1, 2)]


def wait_until(holds):
    ready = threading.Event()
    for _ in range(600):
        if holds() or ready.wait(0.1):
            return
    raise AssertionError("it did not come to it")


def test_too_few_nodes_end_the_run(drive):
    code, lines = drive(FakeRay(1), SAYS, "--least=2", "--startup_s=0.2", "--patience_s=0")
    assert code == 75
    assert "1 of 2 workers have a place" in lines[-1] and "ray status" in lines[-1]


def test_a_program_that_no_node_has_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", FakeRay(1))
    assert main(["--workers=1", "--startup_s=20", "--", "no-such-program"]) == 2
    assert "'no-such-program' cannot be started on a node" in capsys.readouterr().err


def test_a_missing_package_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["--workers=1", "--", "true"]) == 2
    assert "pip install 'termwise[ray]'" in capsys.readouterr().err


def test_flags_are_read():
    flags = parse(["--workers=4", "--least=2", "--gpus_per_worker=0.5", "--", "python", "-m", "x"])
    expected = {"workers": 4, "least": 2, "gpus_per_worker": 0.5, "command": ("python", "-m", "x")}
    assert flags == Flags(**expected)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--worker=2", "--", "x"], r"--worker=2: no such flag\. Did you mean --workers=\.\.\.\?"),
        (["--workers", "2", "--", "x"], "--workers: no such flag"),
        (["2", "--", "x"], "2: no such flag"),
        (["--workers=0", "--", "x"], "--workers=0: accepted is a whole number of at least 1"),
        (["--workers=1.5", "--", "x"], r"--workers=1\.5: accepted is a whole number"),
        (["--grace_s=-1", "--", "x"], "--grace_s=-1: accepted is a number of at least 0"),
        (["--grace_s=inf", "--", "x"], "--grace_s=inf: accepted is a number"),
        (["--workers=2"], "no command is given"),
        (["--", "x"], "--workers=N is not given"),
        (["--workers=2", "--least=3", "--", "x"], "--least=3: is more than --workers=2"),
    ],
)
def test_wrong_flags_are_said(argv, said):
    with pytest.raises(ValueError, match=said):
        parse(argv)


def test_help_needs_no_ray_and_no_tensorflow():
    program = "import sys; from trainer.launch.on_ray import main; main(['--help'])"
    program += "; assert not {'ray', 'tensorflow', 'keras'} & set(sys.modules)"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert all(
        f"--{field}=" in done.stdout for field in Flags.__dataclass_fields__ if field != "command"
    )


def test_only_what_is_ours_goes_to_the_workers(drive, monkeypatch):
    assert driver.PASSED == ("TERMWISE_", "TF_", "KERAS_", "XLA_")
    monkeypatch.setenv("TERMWISE_PORT", "7")
    _, lines = drive(FakeRay(1), "echo port $TERMWISE_PORT", "--workers=1")
    assert any(line.endswith("port 7") for line in lines)
    assert os.environ.get("TERMWISE_ENGINE") is None
