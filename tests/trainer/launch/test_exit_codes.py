"""A run tells how it ended by its exit code: one table, which launcher and workers share."""

import subprocess
import sys
from pathlib import Path

from experiments import run
from trainer import PeerLost, Preempted
from trainer.launch import exit_codes

ROOT = Path(__file__).resolve().parents[3]


def test_the_codes_are_those_of_the_documents():
    codes = {name: code for name, code in vars(exit_codes).items() if name.isupper()}
    assert codes == {
        "DONE": 0,
        "MISSED": 1,
        "MISSED_APART": 43,
        "WRONG": 2,
        "PREEMPTED": 42,
        "PEER_LOST": 75,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


def test_the_command_line_knows_the_code_of_a_lost_host():
    assert run.PEER_LOST == exit_codes.PEER_LOST


def test_a_run_that_was_stopped_or_left_alone_ends_with_its_code(capsys):
    assert Preempted("stopped").code == 42
    assert PeerLost("the other host is gone").code == 75
    assert capsys.readouterr().err == "error: the other host is gone\n"


def test_the_launcher_and_the_codes_need_no_tensorflow():
    program = (
        "import sys, trainer.launch.exit_codes, trainer.launch.launcher; "
        "assert not {'tensorflow', 'keras', 'numpy', 'losses'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
