"""Whatever the disk does at a write: what counted stays, one line is said, the run goes on.

A library in C, put in front of the system's, makes one call of the run go wrong: of Python's and of
TensorFlow's alike. The points are those that an undisturbed run was seen to pass.
"""

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
]


def points_of(log):
    """(op, name) -> how often an undisturbed run passes it, names with N for numbers."""
    return Counter((op, plain) for op, path in log if (plain := name_of(path)) and op in KINDS)


def name_of(path):
    """The end of a path by which a fault is aimed; parts of a random name end the last one."""
    folder, name = path.rsplit("/", 2)[1:]
    return re.sub(r"\d+", "N", f"{folder}/{name}")


def read_log(file):
    lines = file.read_text().splitlines() if file.exists() else []
    return [tuple(line.split(" ", 1)) for line in lines]


class Case:
    """One fault, the run that meets it, and what is left.

    Args:
      runs: of `faulty_runs`.
      folder: of the case, new.
      fault: (kind, op, nth, the end of a path).
    """

    def __init__(self, runs, folder, fault, **job):
        self.kind, self.folder = fault[0], folder
        self.workdir, log = folder / "run", folder / "log"
        folder.mkdir(parents=True)
        disk = {"DISK_ROOT": str(self.workdir), "DISK_LOG": str(log)}
        disk["DISK_FAULT"] = " ".join(map(str, fault))
        self._job = {**job, "workdir": self.workdir}
        self._runs = runs
        self.code, self.said = self._run(disk)
        self.log = read_log(log)
        self.marked = [
            int(found[1])
            for op, path in self.log
            if op == "rename" and (found := re.search(r"/ckpt-(\d+)\.json$", path))
        ]
        for path in [path for op, path in self.log if op == "lied"]:
            if os.path.isfile(path):
                os.truncate(path, os.path.getsize(path) // 2)

    def _run(self, disk):
        errors = self.folder / "stderr"
        errors.unlink(missing_ok=True)
        run = self._runs.start(**self._job, disk=disk, stderr=errors)
        run.when("returned")
        if run.code is None:
            run.kill()
            return 0, errors.read_text()
        return run.code, errors.read_text()

    def check(self, left_by, expected):
        """The four things that are required of each fault; raises AssertionError."""
        assert "Traceback" not in self.said, self.said
        errors = re.findall("^error: .*", self.said, re.MULTILINE)
        assert (self.code == 2) == (len(errors) == 1), (self.code, self.said)
        if self.kind != "lie":
            self._check_marked()
        code, said = self._run({})
        assert "Traceback" not in said, said
        if self.kind == "lie" and code == 2:  # what is damaged is told, with what to do
            assert re.search("^error: .*(Bring|Restore|Delete|Move)", said, re.MULTILINE), said
            return
        assert code == 0, said
        found = left_by(self.workdir)
        parts = ("checkpoints",) if self.kind == "lie" else expected
        for part in parts:
            assert found[part] == expected[part], part

    def _check_marked(self):
        """What a marker said was whole is whole, with its rows, and the newest is there."""
        folder = self.workdir / "checkpoints"
        steps = manifest_steps(folder)
        assert not self.marked or max(steps, default=0) >= max(self.marked[:-1], default=0)
        for step in steps:
            manifest = read_manifest(folder / f"ckpt-{step}.json")
            check_files(manifest)
        if steps:
            newest = read_manifest(folder / f"ckpt-{steps[0]}.json")
            rows = self.workdir / "metrics.jsonl"
            assert find_damage(rows, newest.step, newest.rows_bytes) is None


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


@pytest.mark.parametrize("fault", SOME, ids=[fault[0] for fault in SOME])
@pytest.mark.parametrize("kind", ["writes", pytest.param("fit", marks=pytest.mark.very_slow)])
def test_a_fault_of_the_disk_costs_nothing_that_counted(
    kind, fault, faulty_runs, undisturbed, left_by, tmp_path
):
    case = Case(faulty_runs, tmp_path / "case", fault, **JOBS[kind])
    assert case.code in (2, -9)
    case.check(left_by, left_by(undisturbed(kind)[0]))


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


@pytest.mark.very_slow
def test_no_fault_at_any_write_costs_what_counted(faulty_runs, undisturbed, left_by, tmp_path):
    workdir, log = undisturbed("writes")
    expected, points, failures, codes = left_by(workdir), points_of(log), {}, Counter()
    cases = [
        (kind, op, (times + 1) // 2, name)
        for (op, name), times in sorted(points.items())
        for kind in KINDS[op]
    ]
    random.Random(0).shuffle(cases)  # so that a part of them says something of all
    for number, fault in enumerate(cases):
        case = Case(faulty_runs, tmp_path / str(number), fault, **JOBS["writes"])
        codes[case.kind, case.code] += 1
        try:
            case.check(left_by, expected)
        except Exception as error:
            failures[fault] = f"{type(error).__name__}: {error}"
            print(*fault, failures[fault], flush=True)
        shutil.rmtree(tmp_path / str(number))
        print(number + 1, "of", len(cases), "faults", codes, len(failures), "failed", flush=True)
    print(f"{len(points)} points, {len(cases)} faults, {len(failures)} failures; by end: {codes}")
    assert not failures, "\n".join(f"{fault}\n  {why}" for fault, why in failures.items())
