"""Whatever the disk does at a write: what counted stays, one line is said, the run goes on.

A library in C, put in front of the system's, makes one call of the run go wrong: of Python's and of
TensorFlow's alike. The points are those that an undisturbed run was seen to pass.
"""

import json
import os
import random
import re
import shutil
from collections import Counter

import pytest

from trainer.persistence.checkpoint_files import manifest_steps
from trainer.persistence.manifest import check_files, read_manifest
from trainer.persistence.metrics_file import find_damage

KEEP = {"steps": 45, "keep_last": 2, "keep_best": 1}
JOBS = {
    "writes": {**KEEP, "only_writes": True},
    "fit": {**KEEP, "log_every": 7, "checkpoint_every": 10, "validate_every": 15},
}
KINDS = {
    "create": ("nospace", "io", "kill", "after"),
    "write": ("nospace", "io", "torn", "kill", "after"),
    "fwrite": ("nospace", "io", "torn", "kill", "after"),
    "fflush": ("nospace", "io", "kill"),
    "fclose": ("nospace", "io", "kill"),
    "fsync": ("nospace", "io", "kill", "lie"),
    "rename": ("nospace", "io", "kill", "after"),
    "unlink": ("io", "kill", "after"),
    "mkdir": ("nospace", "io", "kill", "after"),
}
# cheap ones, one of each kind; where they strike
SOME = [
    ("nospace", "write", 2, "metrics.jsonl"),
    ("io", "fsync", 3, "ckpt-N.data-N-of-N"),
    ("torn", "fwrite", 9, "ckpt-N.index"),
    ("kill", "rename", 2, "ckpt-N.json"),
    ("lie", "fsync", 3, "ckpt-N.data-N-of-N"),
    ("io", "mkdir", 1, "tb/train"),
]


def points_of(log):
    """(op, name) -> how often an undisturbed run passes it, names with N for numbers."""
    return Counter((op, plain) for op, path in log if (plain := name_of(path)) and op in KINDS)


def name_of(path):
    """The end of a path by which a fault is aimed, without numbers and random ends of a name."""
    folder, name = path.rsplit("/", 2)[1:]
    name = re.sub(r"(\.tmp|\.unfinished-).*", r"\1", name)
    return re.sub(r"\d+", "N", f"{folder}/{name}")


def read_log(file):
    lines = file.read_text().splitlines() if file.exists() else []
    return [tuple(line.split(" ", 1)) for line in lines]


class Case:
    """One fault, the run that meets it, and what is left.

    Args:
      folder: of the case, new.
      fault: (kind, op, nth, the end of a path).
    """

    def __init__(self, folder, fault):
        self.kind, self.folder, self.workdir = fault[0], folder, folder / "run"
        folder.mkdir(parents=True)
        self.disk = {"DISK_ROOT": str(self.workdir), "DISK_LOG": str(folder / "log")}
        self.disk["DISK_FAULT"] = " ".join(map(str, fault))

    def run(self, runs, job):
        """Runs the job in a process of its own; its exit code, and what it wrote to stderr."""
        errors = self.folder / "stderr"
        errors.unlink(missing_ok=True)
        run = runs.start(**job, workdir=self.workdir, disk=self.disk, stderr=errors)
        run.when("returned")
        if run.code is None:
            run.kill()
            return 0, errors.read_text()
        return run.code, errors.read_text()

    def check_fault(self, code, said, workdir):
        """What is required of the run that met the fault.

        Args:
          code, said: of `run`.
          workdir: what it left.
        """
        assert "Traceback" not in said, said
        errors = re.findall("^error: .*", said, re.MULTILINE)
        assert (code == 2) == (len(errors) == 1), (code, said)
        log = read_log(self.folder / "log")
        if self.kind != "lie":
            self._check_marked(log, workdir / "checkpoints")
        for path in [path for op, path in log if op == "lied"]:
            if os.path.isfile(path):
                os.truncate(path, os.path.getsize(path) // 2)
        self.disk["DISK_FAULT"] = ""

    def _check_marked(self, log, folder):
        """What a marker said was whole is whole, with its rows, and the newest is there."""
        found = [re.search(r"/ckpt-(\d+)\.json$", path) for op, path in log if op == "rename"]
        marked = [int(step[1]) for step in found if step]
        steps = manifest_steps(folder)
        assert max(steps, default=0) >= max(marked[:-1], default=0)
        for step in steps:
            check_files(read_manifest(folder / f"ckpt-{step}.json"))
        if steps:
            newest = read_manifest(folder / f"ckpt-{steps[0]}.json")
            rows = folder.parent / "metrics.jsonl"
            assert find_damage(rows, newest.step, newest.rows_bytes) is None

    def check_going_on(self, code, said, found, expected):
        """What is required of the same command afterwards.

        Args:
          code, said: of `run`.
          found: () -> what `left_by` gives; expected: that of an undisturbed run.
        """
        assert "Traceback" not in said, said
        if self.kind == "lie" and code == 2:  # what is damaged is told, with what to do
            assert re.search("^error: .*(Bring|Restore|Delete|Move)", said, re.MULTILINE), said
            return
        assert code == 0, said
        left = found()
        for part in ("checkpoints",) if self.kind == "lie" else expected:
            assert left[part] == expected[part], part


@pytest.fixture(scope="module")
def undisturbed(_faulty_runs, tmp_path_factory):
    """A function of a job: the workdir of a run that nothing happened to, and what it wrote."""
    done = {}

    def undisturbed(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            disk = {"DISK_ROOT": str(folder / "run"), "DISK_LOG": str(folder / "log")}
            _faulty_runs.finish(**JOBS[kind], workdir=folder / "run", disk=disk)
            done[kind] = folder / "run", read_log(folder / "log")
        return done[kind]

    return undisturbed


@pytest.mark.parametrize("fault", SOME, ids=["-".join(fault[:2]) for fault in SOME])
@pytest.mark.parametrize("kind", ["writes", pytest.param("fit", marks=pytest.mark.very_slow)])
def test_a_fault_of_the_disk_costs_nothing_that_counted(
    kind, fault, faulty_runs, undisturbed, left_by, tmp_path
):
    case = Case(tmp_path / "case", fault)
    code, said = case.run(faulty_runs, JOBS[kind])
    assert code in (2, -9)
    case.check_fault(code, said, case.workdir)
    code, said = case.run(faulty_runs, JOBS[kind])
    expected = left_by(undisturbed(kind)[0])
    case.check_going_on(code, said, lambda: left_by(case.workdir), expected)


def test_what_a_checkpoint_counts_on_is_on_the_disk_before_it_counts(undisturbed):
    workdir, log = undisturbed("writes")
    folder, counted = f"{workdir}/checkpoints", 0
    # what a power cut would leave nothing of: the bytes of files, names in folders
    bytes_of, names_in, seen, marked = set(), set(), set(), []
    flushes = 0  # of the rows, each before the checkpoint that counts on them
    for op, path in log:
        if op in ("create", "write", "fwrite"):
            bytes_of.add(path)
        if op in ("create", "rename") or (op == "mkdir" and path not in seen):
            names_in.add(path)
        seen.add(path)
        if op == "rename":  # of a temporary one, which was synced if it is one of ours
            bytes_of.discard(path) if path.endswith(".json") else bytes_of.add(path)
            marked += [path.removesuffix(".json")] if "/ckpt-" in path and path[-1] == "n" else []
        if op == "fsync":
            flushes += path == f"{workdir}/metrics.jsonl"
            bytes_of.discard(path)
            names_in = {name for name in names_in if os.path.dirname(name) != path}
        if (op, path) == ("fsync", folder) and marked:
            ckpt = marked.pop()
            needed = {f"{ckpt}.index", f"{ckpt}.data-00000-of-00001", f"{ckpt}.json"}
            names = {folder, f"{workdir}/metrics.jsonl", f"{workdir}/starts.jsonl"}
            assert not bytes_of & needed and not names_in & (needed | names)
            counted += 1
            assert flushes >= counted
    assert counted == 5


def faults_at(points, kinds):
    """A fault of each of the kinds at each point, in the middle of the run; in a mixed order."""
    faults = [
        (kind, op, (times + 1) // 2, name)
        for (op, name), times in sorted(points.items())
        for kind in KINDS[op]
        if kind in kinds
    ]
    random.Random(0).shuffle(faults)  # so that a part of them says something of all
    return faults


class Tally:
    """Counts the faults and how they ended, and prints it as they come."""

    def __init__(self, number):
        self.number, self.ends, self.failures = number, Counter(), {}

    def check(self, fault, code, check):
        self.ends[fault[0], code] += 1
        try:
            check()
        except Exception as error:
            self.failures[fault] = f"{type(error).__name__}: {error}"
            print("failed:", *fault, self.failures[fault], flush=True)
        done = sum(self.ends.values())
        if done % 10 == 0 or done == self.number:
            print(f"{done} of {self.number} faults, {len(self.failures)} failed", flush=True)


@pytest.mark.very_slow
def test_no_error_at_any_write_costs_what_counted(faulty_runs, undisturbed, left_by, tmp_path):
    workdir, log = undisturbed("writes")
    expected, faults = left_by(workdir), faults_at(points_of(log), ("nospace", "io", "torn"))
    tally, job = Tally(len(faults)), {**JOBS["writes"]}
    del job["only_writes"]
    cases = [Case(tmp_path / str(number), fault) for number, fault in enumerate(faults)]
    told = [(case.folder, case.disk) for case in cases]
    faulty_runs.finish(cases=told, **job)
    for fault, case in zip(faults, cases, strict=True):
        (code, said), after = json.loads((case.folder / "result.json").read_text())

        def check(case=case, code=code, said=said, after=after):
            case.check_fault(code, said, case.folder / "left")
            case.check_going_on(*after, lambda: left_by(case.workdir), expected)

        tally.check(fault, code, check)
    print(f"{len(points_of(log))} points; by kind and exit code: {dict(tally.ends)}")
    assert not tally.failures


@pytest.mark.very_slow
def test_no_kill_and_no_lie_at_any_write_costs_what_counted(
    faulty_runs, undisturbed, left_by, tmp_path
):
    workdir, log = undisturbed("writes")
    expected, faults = left_by(workdir), faults_at(points_of(log), ("kill", "after", "lie"))
    tally = Tally(len(faults))
    for number, fault in enumerate(faults):
        case = Case(tmp_path / str(number), fault)
        code, said = case.run(faulty_runs, JOBS["writes"])

        def check(case=case, code=code, said=said):
            case.check_fault(code, said, case.workdir)
            after = case.run(faulty_runs, JOBS["writes"])
            case.check_going_on(*after, lambda: left_by(case.workdir), expected)

        tally.check(fault, code, check)
        shutil.rmtree(case.folder)
    print(f"{len(points_of(log))} points; by kind and exit code: {dict(tally.ends)}")
    assert not tally.failures
