"""A run killed by SIGKILL at random moments, again and again, ends as if nothing had happened."""

import functools
import json
import random
import re
import time

import pytest

RUNS = {
    "arrays": {"data": "arrays"},
    "a pipeline": {"data": "pipeline"},
    "sources": {"data": "sources", "steps": 150},
    "arrays on two devices": {"data": "arrays", "devices": 2, "strategy": "mirrored"},
    "a pipeline on two devices": {"data": "pipeline", "devices": 2, "strategy": "mirrored"},
}


LONGEST = 300  # seconds until a test gives up
# phase: the line at which a run can be told to hold, to be surely met there
HOLDS = {
    "start": "starting",
    "steps": "step",
    "evaluation": "evaluating",
    "save": "saving",
    "kept": "evaluating",  # a checkpoint was begun before
}


def kill(run, phase, rng, checkpoints, haste):
    """Kills a run in a phase, at a random moment; gives whether the phase was met.

    Args:
      haste: 1, or less where the moment is to be earlier.
    """
    if phase == "start":  # TensorFlow starts, the checkpoint is restored, the step is traced
        run.when("starting")
        time.sleep(haste * rng.uniform(0, 0.7))
        run.kill()
        return run.said[-2] == "starting"
    if phase == "steps":
        run.when("step", rng.randint(1, 6) if haste else 1)
        time.sleep(haste * rng.uniform(0, 0.02))
        run.kill()
        return run.said[-2].startswith(("step", "call"))
    if phase == "evaluation":
        times = rng.choice([1, 1, 2]) if haste else 1
        run.when("evaluating", times)
        # the first one is traced
        time.sleep(haste * rng.uniform(0, 0.2 if times == 1 else 0.005))
        run.kill()
        return run.said[-2] == "evaluating"
    run.when("step", rng.randint(1, 6) if haste else 1)
    reached = unfinished if phase == "save" else finished
    end = time.monotonic() + LONGEST
    while not reached(checkpoints):
        assert time.monotonic() < end, "no checkpoint was begun"
        time.sleep(0.0005)
    time.sleep(haste * rng.choice([0, 0, rng.uniform(0, 0.01)]))
    run.kill()
    return reached(checkpoints)


def kill_in(phase, start, rng, checkpoints):
    """Starts runs until one is killed in the phase; the last one holds there, and is met surely."""
    for haste in (1, 0.1, 0):
        run = start(hold=None if haste else HOLDS[phase])
        met = kill(run, phase, rng, checkpoints, haste)
        assert run.code == -9, run.said[-5:]
        if met:
            return
    raise AssertionError(f"the {phase} was not met: {run.said[-5:]}")


def unfinished(checkpoints):
    """Whether a checkpoint is begun that does not count yet."""
    names = {path.name for path in checkpoints.iterdir()} if checkpoints.exists() else set()
    begun = {found[1] for name in names if (found := re.match(r"(ckpt-\d+)[._]", name))}
    return any(f"{name}.json" not in names for name in begun)


def finished(checkpoints):
    """Whether a checkpoint counts."""
    return any(checkpoints.glob("ckpt-*.json"))


def check_kills(forked_runs, left_by, tmp_path, job, kills, seed):
    """Kills a run so often, and compares what it leaves with what an undisturbed one does."""
    forked_runs.finish(**job, workdir=tmp_path / "whole" / "run")
    rng, workdir = random.Random(seed), tmp_path / "killed" / "run"
    phases = ["start", *(["save", "evaluation", "steps"] * kills)[: kills - 2]]
    rng.shuffle(phases)
    start = functools.partial(forked_runs.start, **job, workdir=workdir)
    for phase in [*phases, "kept"]:  # so that one resume at least is from a checkpoint
        kill_in(phase, start, rng, workdir / "checkpoints")
    forked_runs.finish(**job, workdir=workdir)
    starts = (workdir / "starts.jsonl").read_text().splitlines()
    assert any(json.loads(line)["resumed_from"] for line in starts)

    expected, found = left_by(tmp_path / "whole" / "run"), left_by(workdir)
    for part in expected:
        assert found[part] == expected[part], part


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("arrays", marks=pytest.mark.slow),
        pytest.param("a pipeline", marks=pytest.mark.very_slow),
    ],
)
def test_a_run_killed_six_times_ends_as_the_undisturbed_one(kind, forked_runs, left_by, tmp_path):
    check_kills(forked_runs, left_by, tmp_path, RUNS[kind], 6, seed=1)


@pytest.mark.slow
def test_a_run_of_three_sources_killed_three_times_ends_as_the_undisturbed_one(
    forked_runs, left_by, tmp_path
):
    check_kills(forked_runs, left_by, tmp_path, RUNS["sources"], 3, seed=4)


@pytest.mark.very_slow
@pytest.mark.slow
def test_a_run_on_two_devices_killed_four_times_ends_as_the_undisturbed_one(
    forked_runs, left_by, tmp_path
):
    check_kills(forked_runs, left_by, tmp_path, RUNS["arrays on two devices"], 4, seed=2)


@pytest.mark.very_slow
@pytest.mark.parametrize("kind", ["arrays on two devices", "a pipeline on two devices"])
def test_a_run_on_two_devices_killed_ten_times_ends_as_the_undisturbed_one(
    kind, forked_runs, left_by, tmp_path
):
    check_kills(forked_runs, left_by, tmp_path, RUNS[kind], 10, seed=3)


def test_a_run_killed_after_its_last_checkpoint_is_done_when_started_again(forked_runs, tmp_path):
    job = {"workdir": tmp_path / "run", "steps": 7, "validation_data": None}
    run = forked_runs.start(**job, hold="finishing")
    assert run.when("finishing")
    run.kill()
    assert (tmp_path / "run" / "checkpoints" / "ckpt-7.json").exists()
    assert not (tmp_path / "run" / "DONE.json").exists()
    forked_runs.finish(**job)
    assert (tmp_path / "run" / "DONE.json").exists()
