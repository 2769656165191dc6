"""The launcher: workers are told their place, watched, restarted together, and never left behind.

The workers are small Python programs that know nothing of TensorFlow.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.launch import guard, local_cluster
from trainer.launch.launcher import main

ROOT = Path(__file__).resolve().parents[3]
# The launcher, without the package's own import of TensorFlow, which takes seconds. Signals are
# handled as at a terminal, however the tests were started: under nohup, in the background.
BARE = f"""
import signal, sys, types
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
package = types.ModuleType("trainer")
package.__path__ = [{str(ROOT / "trainer")!r}]
sys.modules["trainer"] = package
from trainer.launch import launcher
"""
LAUNCH = BARE + "sys.exit(launcher.main())"


def changed(line):
    """The launcher with something in it changed."""
    return f"{BARE}from trainer.launch import local_cluster\n{line}\nsys.exit(launcher.main())"


# What every worker starts with: its index, how often it was started, a log that all tests read.
WORKER = """
import json, os, signal, subprocess, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
def log(word):
    with open(f"log{index}", "a") as file:
        file.write(word + "\\n")
log("start")
life = open(f"log{index}").read().split().count("start")
def save(number, frame):
    log("SIGTERM")
    time.sleep(0.1)
    sys.exit(42)
def wait():
    log("waiting")
    time.sleep(3600)
def when(other, word):
    while not os.path.exists(f"log{other}") or word not in open(f"log{other}").read():
        time.sleep(0.02)
def gone(other):
    (process,) = [int(w) for w in open(f"log{other}").read().split() if w.isdigit()]
    while os.path.exists(f"/proc/{process}"):
        time.sleep(0.02)
"""
LONGEST = 300  # seconds until a test gives up


def words(folder, index):
    path = folder / f"log{index}"
    return path.read_text().split() if path.exists() else []


def is_running(process):
    """Whether a process has not ended; nobody may wait for an orphan in a container."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(condition, what, seconds=LONGEST):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


class Started:
    """A running launcher in a folder of its own."""

    def __init__(self, folder, script, flags, environment, program):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *flags, "--", sys.executable, "-c", WORKER + script],
            cwd=folder,
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def when_all(self, word, workers=2):
        """Waits until each worker has logged `word`; gives itself."""
        for index in range(workers):
            wait_until(lambda index=index: word in words(self.folder, index), word)
        return self

    def send(self, number):
        self.process.send_signal(number)
        return self

    def end(self):
        """The exit code; what was written is in `out` and `error`."""
        self.out, self.error = self.process.communicate(timeout=LONGEST)
        return self.process.returncode

    @property
    def workers(self):
        """The processes of all workers that were started, as the launcher told them."""
        words = self.error.split()
        return [int(words[i + 1]) for i, word in enumerate(words) if word == "process"]


@pytest.fixture
def launch(tmp_path):
    """A function that starts a launcher; no worker of it may be alive at the end of the test."""
    started = []

    def start(script, *flags, environment=None, program=LAUNCH):
        flags = ["--workers=2", *flags]
        started.append(Started(tmp_path, script, flags, environment or {}, program))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()
    left = [p for one in started if hasattr(one, "error") for p in one.workers if is_running(p)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left


# What the workers are told, and what they say.


def test_every_line_of_a_worker_bears_its_name(launch):
    run = launch("print('a\\nb'); print('wrong', file=sys.stderr); print('end', end='')")
    assert run.end() == 0
    assert sorted(run.out.splitlines()) == [
        f"[worker {index}] {line}" for index in (0, 1) for line in ("a", "b", "end")
    ]
    assert "[worker 0] wrong\n" in run.error and "[worker 1] wrong\n" in run.error


def test_a_line_is_shown_when_it_is_written(launch):
    run = launch("print('hello'); signal.signal(15, save); wait()").when_all("waiting")
    assert run.process.stdout.readline().endswith("hello\n")
    assert run.send(signal.SIGTERM).end() == 42


def test_a_line_without_end_is_cut_and_not_kept(launch):
    run = launch("print('x' * 200_000)", "--workers=1")
    assert run.end() == 0
    assert [len(line) for line in run.out.splitlines()] == [11 + 65536] * 3 + [11 + 3392]


def test_workers_share_the_cluster_and_each_start_has_new_ports(launch):
    run = launch(
        """
print(os.environ["TF_CONFIG"])
log("printed")
when(1 - index, "printed")
sys.exit(5 if life == 1 else 0)
"""
    )
    assert run.end() == 0
    configs = [json.loads(line.partition("] ")[2]) for line in run.out.splitlines()]
    assert sorted(config["task"]["index"] for config in configs) == [0, 0, 1, 1]
    assert {config["task"]["type"] for config in configs} == {"worker"}
    clusters = {tuple(config["cluster"]["worker"]) for config in configs}
    assert len(clusters) == 2
    addresses = [address for cluster in clusters for address in cluster]
    assert len(set(addresses)) == 4
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_a_port_that_was_used_is_not_used_again(monkeypatch):
    offered = iter([5, 6, 6, 7, 8])

    class Socket(contextlib.nullcontext):
        def __enter__(self):
            return self

        def bind(self, address):
            assert address == ("127.0.0.1", 0)

        def getsockname(self):
            return ("127.0.0.1", next(offered))

    monkeypatch.setattr(local_cluster.socket, "socket", Socket)
    used = {5}
    assert local_cluster.free_addresses(1, used) == ["127.0.0.1:6"]
    assert local_cluster.free_addresses(2, used) == ["127.0.0.1:7", "127.0.0.1:8"]
    assert used == {5, 6, 7, 8}


def test_the_start_up_limit_and_the_gpus_are_passed_on(launch):
    names = "('TERMWISE_STARTUP_S', 'CUDA_VISIBLE_DEVICES', 'no_proxy')"
    run = launch(
        f"print([os.environ.get(name) for name in {names}])",
        "--startup_s=90",
        "--gpus_per_worker=2",
        environment={"CUDA_VISIBLE_DEVICES": "7,5,3,1", "no_proxy": "example.org"},
    )
    assert run.end() == 0
    assert sorted(run.out.splitlines()) == [
        "[worker 0] ['90', '7,5', 'example.org,127.0.0.1']",
        "[worker 1] ['90', '3,1', 'example.org,127.0.0.1']",
    ]


def test_workers_go_on_when_nobody_reads_them(launch):
    run = launch(
        """
while not os.path.exists("closed"):
    time.sleep(0.02)
print("late", flush=True)
log("end")
"""
    )
    run.process.stdout.close()
    run.process.stderr.close()
    (run.folder / "closed").touch()
    assert run.process.wait(timeout=LONGEST) == 0
    assert words(run.folder, 0)[-1] == "end"


# Failures.


def test_all_start_again_when_one_is_killed(launch):
    run = launch(
        """
if life == 1 and index == 1:
    when(0, "waiting")
    os.kill(os.getpid(), signal.SIGKILL)
if life == 1:
    wait()
"""
    )
    assert run.end() == 0
    assert "worker 1 was killed by SIGKILL; all start again: restart 1 of 3\n" in run.error
    assert [words(run.folder, index).count("start") for index in (0, 1)] == [2, 2]
    assert len(set(run.workers)) == 4


@pytest.mark.parametrize(
    ("failure", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("1 / 0", 1)]
)
def test_restarts_are_limited_and_the_code_is_the_failing_workers(launch, failure, code):
    run = launch(f"if index == 1: {failure}\nwait()", "--max_restarts=2")
    assert run.end() == code
    assert run.error.endswith("--max_restarts=2 is used up\n")
    assert words(run.folder, 1).count("start") == 3


def test_an_error_of_the_user_is_not_tried_again(launch):
    run = launch("if index == 1: sys.exit(2)\nwait()")
    assert run.end() == 2
    assert "worker 1 exited with 2: something given was wrong" in run.error
    assert words(run.folder, 1) == ["start"]


def test_a_run_whose_check_is_missed_is_not_tried_again_and_all_may_note_it(launch):
    run = launch(
        """
if index == 0:
    time.sleep(1)
    log("noted")
sys.exit(int(os.environ["TERMWISE_MISSED"]))
"""
    )
    assert run.end() == 1
    assert "exited with 43: the run is done, and a check of it is missed" in run.error
    assert [words(run.folder, index) for index in (0, 1)] == [["start", "noted"], ["start"]]


@pytest.mark.parametrize("first", [0, 1])
def test_the_worker_that_died_is_blamed_not_the_one_that_lost_it(launch, first):
    run = launch(
        f"""
log(f"{{os.getpid()}} here")
when(1 - index, "here")
if index != {first}:
    gone({first})
sys.exit(75 if index == 0 else 7)
""",
        "--max_restarts=0",
        program=changed("local_cluster.PEER_SETTLE_S = 3600"),
    )
    assert run.end() == 7
    assert "worker 1 exited with 7; --max_restarts=0 is used up" in run.error


def test_a_lost_peer_that_never_came_is_a_failure_too(launch):
    run = launch("if index == 0: sys.exit(75)\nwait()", "--max_restarts=0", "--grace_s=0.3")
    assert run.end() == 75
    assert "worker 0 exited with 75" in run.error


def test_a_worker_deaf_to_sigterm_is_killed_after_the_grace(launch):
    start = time.monotonic()
    run = launch(
        """
if index == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait()
when(0, "waiting")
sys.exit(9)
""",
        "--max_restarts=0",
        "--grace_s=0.5",
    )
    assert run.end() == 9
    assert time.monotonic() - start > 0.5
    assert "worker 0: killed, 0.5 s after it was told to stop\n" in run.error


@pytest.mark.parametrize("end", ["sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_child_of_a_worker_ends_with_it(launch, end):
    child = "subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=-3)"
    run = launch(f"print({child}.pid, flush=True)\n{end}", "--max_restarts=0")
    run.end()
    children = [int(line.split()[-1]) for line in run.out.splitlines()]
    assert children
    for process in children:
        wait_until(lambda process=process: not is_running(process), f"the end of {process}")


# Preemption and signals.


def test_a_preemption_is_no_failure(launch):
    run = launch("sys.exit(42 if life < 3 else 0)", "--max_restarts=0")
    assert run.end() == 0
    assert words(run.folder, 0).count("start") == 3


def test_preemptions_end_too(launch):
    run = launch("sys.exit(42)", program=changed("launcher.MOST_PREEMPTIONS = 2"))
    assert run.end() == 42
    assert words(run.folder, 0).count("start") == 3


def test_a_worker_that_does_not_leave_with_the_others_is_told_to(launch):
    run = launch(
        """
signal.signal(signal.SIGTERM, save)
if index == 0 and life == 1:
    when(1, "waiting")
    sys.exit(42)
if life == 1:
    wait()
""",
        program=changed("""
waits, after = iter([0.1]), local_cluster.after  # the first wait is that for the others
local_cluster.after = lambda seconds: after(next(waits, seconds))
"""),
    )
    assert run.end() == 0
    assert words(run.folder, 1) == ["start", "waiting", "SIGTERM", "start"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_launcher_lets_all_save_once_and_ends_with_42(launch, number):
    run = launch("signal.signal(signal.SIGTERM, save); wait()").when_all("waiting")
    run.send(number).when_all("SIGTERM").send(number)
    assert run.end() == 42
    assert run.error.endswith("[launch] stopped; the same command continues the run\n")
    for index in (0, 1):
        assert words(run.folder, index) == ["start", "waiting", "SIGTERM"]


def test_workers_that_could_not_save_are_told(launch):
    run = launch("if index == 0: signal.signal(signal.SIGTERM, save)\nwait()")
    assert run.when_all("waiting").send(signal.SIGTERM).end() == 143
    assert run.error.endswith("stopped, not all saved: worker 1 was killed by SIGTERM\n")


def test_a_signal_that_comes_when_all_is_done_changes_nothing(launch):
    run = launch("signal.signal(15, lambda *_: (log('done'), sys.exit(0))); wait()")
    assert run.when_all("waiting").send(signal.SIGTERM).end() == 0


def test_a_signal_between_two_lives_ends_the_launcher(launch):
    run = launch("sys.exit(7)", program=changed("launcher.after = lambda s: s + 1e9"))
    for line in run.process.stderr:
        if "all start again" in line:
            break
    assert run.send(signal.SIGTERM).end() == 42
    assert words(run.folder, 0).count("start") == 1


def test_an_interrupt_is_passed_on(launch):
    run = launch(
        """
try:
    wait()
except KeyboardInterrupt:
    log("interrupted")
    sys.exit(130)
"""
    )
    assert run.when_all("waiting").send(signal.SIGINT).end() == 130
    assert words(run.folder, 0)[-1] == words(run.folder, 1)[-1] == "interrupted"


def test_a_second_interrupt_kills_at_once(launch):
    run = launch("signal.signal(2, lambda *_: log('deaf'))\nwait()\nwait()").when_all("waiting")
    run.send(signal.SIGINT).when_all("deaf").send(signal.SIGINT)
    assert run.end() == 130
    assert "worker 0: killed at once\n" in run.error


@pytest.mark.parametrize("end", ["sys.exit(130)", "raise KeyboardInterrupt"])
def test_a_worker_interrupted_from_elsewhere_ends_all(launch, end):
    run = launch(f"if index == 1: {end}\nwait()")
    assert run.end() == 130
    assert words(run.folder, 1).count("start") == 1


# A launcher that is killed.


def killed(run):
    """The workers of a launcher, and their children, by their logs; the launcher was killed."""
    run.send(signal.SIGKILL).end()
    return [int(word) for index in (0, 1) for word in words(run.folder, index) if word.isdigit()]


def assert_ended(processes):
    assert processes
    for process in processes:
        wait_until(lambda process=process: not is_running(process), f"the end of {process}")


def test_no_worker_outlives_a_launcher_that_is_killed(launch):
    run = launch("log(str(os.getpid())); wait()").when_all("waiting")
    assert_ended(killed(run))


def test_the_workers_of_a_killed_launcher_save(launch):
    run = launch("signal.signal(signal.SIGTERM, save); log(str(os.getpid())); wait()")
    assert_ended(killed(run.when_all("waiting")))
    assert [words(run.folder, index)[-1] for index in (0, 1)] == ["SIGTERM", "SIGTERM"]


def test_workers_deaf_to_sigterm_and_their_children_end_after_the_grace(launch):
    run = launch(
        """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
log(f"{os.getpid()} {child.pid}")
wait()
""",
        "--grace_s=0.3",
    )
    processes = killed(run.when_all("waiting"))
    assert len(processes) == 4
    assert_ended(processes)


def test_a_child_of_a_worker_ends_with_a_killed_launcher(launch):
    run = launch(
        """
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
log(f"{os.getpid()} {child.pid}")
wait()
"""
    )
    assert_ended(killed(run.when_all("waiting")))


def test_the_guard_knows_who_runs():
    assert guard.read_workers(["+5\n", "+6\n", "-5\n", "+7\n", "-9\n"]) == {6, 7}
    assert guard.read_workers([]) == set()


# What is typed.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--worker=2", "--", "true"], "--worker=2: no such flag. Did you mean --workers?"),
        (["--fast", "--", "true"], "--fast: no such flag. --help lists them."),
        (["--workers=0", "--", "true"], "--workers: received '0', accepted is a whole number"),
        (["--workers=two", "--", "true"], "--workers: received 'two', accepted is a whole number"),
        (["--workers=2", "--max_restarts=-1", "--", "true"], "--max_restarts: received '-1'"),
        (["--workers=2", "--grace_s=nan", "--", "true"], "--grace_s: received 'nan', accepted are"),
        (["--workers=2", "--startup_s=-1", "--", "true"], "--startup_s: received '-1'"),
        (["--", "true"], "--workers"),
        (["--workers=2", "true"], "true: stray argument. The workers' command follows after --."),
        (["--workers=2"], "no command is given. Write it after --"),
        (["--workers=2", "--"], "no command is given. Write it after --"),
        (["--workers=2", "--", "no-such-program"], "'no-such-program': no such program."),
    ],
)
def test_what_is_typed_wrong_is_said_in_one_line(capsys, arguments, said):
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ") and error.count("\n") == 1
    assert said in error


def test_too_few_gpus_are_said(capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert main(["--workers=2", "--gpus_per_worker=2", "--", "true"]) == 2
    assert "2 workers need 4 GPUs, and CUDA_VISIBLE_DEVICES='0,1,2'" in capsys.readouterr().err


def test_a_program_that_cannot_be_run_is_said(tmp_path, capsys):
    program = tmp_path / "not-a-program"
    program.write_bytes(b"\x00")
    program.chmod(0o755)
    assert main(["--workers=2", "--", str(program)]) == 2
    assert "cannot be started: Exec format error." in capsys.readouterr().err


def test_help_names_every_flag_and_exit_code(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("--workers", "--max_restarts", "--grace_s", "--startup_s", "--gpus_per_worker"):
        assert f"{word}=" in shown
    for code in (0, 2, 42, 143, 130):
        assert f"\n{code:5}  " in shown


def test_the_launcher_needs_no_tensorflow():
    program = BARE + "assert 'tensorflow' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
