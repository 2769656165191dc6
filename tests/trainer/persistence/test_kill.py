"""A run killed by SIGKILL at random moments, again and again, ends as if nothing had happened."""

import json
import random
import re
import time

import pytest

RUNS = {
    "arrays": {"data": "arrays"},
    "a pipeline": {"data": "pipeline"},
    "arrays on two devices": {"data": "arrays", "devices": 2, "strategy": "mirrored"},
    "a pipeline on two devices": {"data": "pipeline", "devices": 2, "strategy": "mirrored"},
}


def kill(run, phase, rng, checkpoints):
    """Kills a run in a phase, at a random moment; gives whether the phase was met."""
    if phase == "start":  # TensorFlow starts, the checkpoint is restored, the step is traced
        time.sleep(rng.uniform(0, 0.7))
        run.kill()
        return "returned" not in run.said
    if phase == "steps":
        run.when("step", rng.randint(1, 6))
        time.sleep(rng.uniform(0, 0.02))
        run.kill()
        return run.said[-2].startswith(("step", "call"))
    if phase == "evaluation":
        times = rng.choice([1, 1, 2])
        run.when("evaluating", times)
        time.sleep(rng.uniform(0, 0.2 if times == 1 else 0.005))  # the first one is traced
        run.kill()
        return run.said[-2] == "evaluating"
    run.when("step", rng.randint(1, 6))
    end = time.monotonic() + 10
    while not unfinished(checkpoints) and time.monotonic() < end:
        time.sleep(0.0005)
    time.sleep(rng.choice([0, 0, rng.uniform(0, 0.01)]))
    run.kill()
    return unfinished(checkpoints)


def unfinished(checkpoints):
    """Whether a checkpoint is begun that does not count yet."""
    names = {path.name for path in checkpoints.iterdir()} if checkpoints.exists() else set()
    begun = {found[1] for name in names if (found := re.match(r"(ckpt-\d+)[._]", name))}
    return any(f"{name}.json" not in names for name in begun)


def check_kills(forked_runs, left_by, tmp_path, job, kills, seed):
    """Kills a run so often, and compares what it leaves with what an undisturbed one does."""
    forked_runs.finish(**job, workdir=tmp_path / "whole" / "run")
    rng, workdir = random.Random(seed), tmp_path / "killed" / "run"
    phases = ["start", *(["save", "evaluation", "steps"] * kills)[: kills - 1]]
    rng.shuffle(phases)
    met = {}
    for phase in phases:
        run = forked_runs.start(**job, workdir=workdir)
        hit = kill(run, phase, rng, workdir / "checkpoints")
        assert run.code == -9, (run.code, forked_runs.errors.read_text()[-4000:])
        met[phase] = met.get(phase, 0) + hit
    assert all(met.values()), f"killed in each phase, which was met so often: {met}"
    forked_runs.finish(**job, workdir=workdir)
    starts = (workdir / "starts.jsonl").read_text().splitlines()
    assert any(json.loads(line)["resumed_from"] for line in starts)

    expected, found = left_by(tmp_path / "whole" / "run"), left_by(workdir)
    for part in expected:
        assert found[part] == expected[part], part


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "a pipeline"])
def test_a_run_killed_ten_times_ends_as_the_undisturbed_one(kind, forked_runs, left_by, tmp_path):
    check_kills(forked_runs, left_by, tmp_path, RUNS[kind], 10, seed=1)


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
    run = forked_runs.start(**job)
    run.when("step 7")
    marker = tmp_path / "run" / "checkpoints" / "ckpt-7.json"
    while not marker.exists():
        time.sleep(0.0005)
    run.kill()
    assert run.code == -9
    forked_runs.finish(**job)
    assert (tmp_path / "run" / "DONE.json").exists()
