"""Whatever the disk does in an export: the earlier export stands whole, or the new one does."""

import json
import os
import re
import shutil
from collections import Counter

import pytest

from tests.trainer.persistence.exporting import version_of
from tests.trainer.persistence.test_disk_faults import KINDS, faults_at, name_of, read_log
from trainer.persistence.files import UNFINISHED

SOME = [
    ("nospace", "fwrite", 1, "variables/variables.index"),
    ("io", "fsync", 1, "saved_model.pb"),
    ("torn", "write", 1, "model.keras"),
    ("kill", "write", 1, "model.keras"),
]


def point_of(path):
    """The end of a path by which a fault is aimed: folders may have random names."""
    folder, name = name_of(path).split("/")
    return name if folder.startswith(UNFINISHED) or name == "run" else f"{folder}/{name}"


@pytest.fixture(scope="module")
def exported(_faulty_runs, tmp_path_factory):
    """A folder with an earlier export, and what an undisturbed one over it did with the disk."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "run").mkdir()
    _faulty_runs.finish(exports=[(folder, {})], value=1.0)
    assert version_of(folder / "run" / "model") == 1.0
    shutil.copytree(folder, folder.with_name("again"))
    again, log = folder.with_name("again"), folder / "log"
    disk = {"DISK_ROOT": str(again / "run"), "DISK_LOG": str(log)}
    _faulty_runs.finish(exports=[(again, disk)])
    assert version_of(again / "run" / "model") == 2.0
    return folder, Counter((op, point_of(path)) for op, path in read_log(log) if op in KINDS)


def case_of(folder, exported, fault):
    """The folder and the environment of an export over a copy of the earlier one."""
    shutil.copytree(exported, folder)
    (folder / "result.json").unlink()
    told = " ".join(map(str, fault))
    return folder, {"DISK_ROOT": str(folder / "run"), "DISK_LOG": "", "DISK_FAULT": told}


def check(folder, killed):
    """What is required of what an export has left; its exit code."""
    found = version_of(folder / "run" / "model")
    if killed:
        assert found in (1.0, 2.0)
        return -9
    code, said = json.loads((folder / "result.json").read_text())
    assert code in (0, 2), said
    assert found == (2.0 if code == 0 else 1.0)
    if code == 2:
        assert re.match(r"\S+ cannot be written: .*\. \w.*\.$", said), said
    assert os.listdir(folder / "run") == ["model"]
    return code


@pytest.mark.parametrize("fault", SOME, ids=["-".join(fault[:2]) for fault in SOME])
def test_a_fault_in_an_export_leaves_one_that_is_whole(fault, faulty_runs, exported, tmp_path):
    case = case_of(tmp_path / "case", exported[0], fault)
    run = faulty_runs.start(exports=[case])
    run.when("returned")
    code = run.code
    if code is None:
        run.kill()
    assert check(tmp_path / "case", code is not None) == (-9 if fault[0] == "kill" else 2)


@pytest.mark.very_slow
def test_no_fault_at_any_write_of_an_export_costs_the_earlier_one(faulty_runs, exported, tmp_path):
    earlier, points = exported
    ends, failures = Counter(), {}

    def checked(fault, folder, killed):
        try:
            ends[fault[0], check(folder, killed)] += 1
        except Exception as error:
            failures[fault] = f"{type(error).__name__}: {error}"
            print("failed:", *fault, failures[fault], flush=True)

    faults = faults_at(points, ("nospace", "io", "torn"))
    cases = [case_of(tmp_path / str(n), earlier, fault) for n, fault in enumerate(faults)]
    faulty_runs.finish(exports=cases)
    for fault, (folder, _) in zip(faults, cases, strict=True):
        checked(fault, folder, False)
    kills = faults_at(points, ("kill", "after"))
    for number, fault in enumerate(kills):
        case = case_of(tmp_path / f"kill{number}", earlier, fault)
        run = faulty_runs.start(exports=[case])
        run.when("returned")
        killed = run.code is not None
        if not killed:
            run.kill()
        checked(fault, case[0], killed)
    print(
        f"{len(points)} points; {len(faults) + len(kills)} faults; by kind and code: {dict(ends)}"
    )
    assert not failures
