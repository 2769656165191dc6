"""The report in its formats: the same numbers in each, and names that cannot break out."""

import csv
import gzip
import io
import json
import re

import pytest

from tests.trainer.report.rows_by_hand import healthy, row, write_run
from trainer.report.__main__ import main
from trainer.report.files import MODULES, PAGE, bundle

EVIL = "</script><img src=x onerror=alert(1)>|*b*"


@pytest.fixture
def runs(tmp_path):
    """Two runs, one of which names a term by markup."""
    first = [row(s, {"a": 1.0 / s, EVIL: -0.1 * s}) for s in range(1, 11)]
    evals = [row(10, {"a": 0.3, EVIL: 0.2}, split="eval"), row(10, {"a": 0.5}, split="eval/hard")]
    write_run(tmp_path / "q1", first + evals, config={"seed": 0}, DONE={"seconds": 4.0})
    return [
        write_run(tmp_path / "q2", healthy(10), config={"seed": 1}).with_name("q1"),
        tmp_path / "q2",
    ]


def report(runs, capsys, *options):
    assert main([*map(str, runs), *options]) == 0
    return capsys.readouterr().out


def test_json_and_csv_hold_the_rows_as_they_are(runs, capsys):
    answer = json.loads(report(runs, capsys, "--format=json"))
    lines = (runs[0] / "metrics.jsonl").read_text().splitlines()
    assert answer["runs"]["q1"]["rows"] == list(map(json.loads, lines))
    assert answer["differences"] == [{"field": "seed", "values": {"q1": 0, "q2": 1}}]
    table = list(csv.DictReader(io.StringIO(report(runs, capsys, "--format=csv"))))
    assert len(table) == 22
    row = json.loads(lines[2])
    assert float(table[2][f"terms/{EVIL}"]) == row[f"terms/{EVIL}"]
    assert (table[2]["run"], table[10]["split"], table[12]["run"]) == ("q1", "eval", "q2")
    assert (table[11]["split"], float(table[11]["total"])) == ("eval/hard", 0.5)


def test_markdown_has_the_ledger_of_the_terminal(runs, capsys):
    text = report(runs, capsys, "--format=md")
    assert "Step 10, done in 4 s. Total -0.9 (0.9 at step 1)." in text
    assert "| a | 0.1 | 1 | 0.1 | -11.1% | 1 |" in text
    assert r"| \</script\>\<img src=x onerror=alert(1)\>\|\*b\* | -1 |" in text
    assert "| seed | 0 | 1 |" in text


def test_html_is_one_file_whose_data_no_name_can_end(runs, tmp_path, capsys):
    output = tmp_path / "out.html"
    assert report(runs, capsys, f"--output={output}") == f"{output}: 2 runs\n"
    text = output.read_text()
    assert text.count("</script>") == 2 and "<img" not in text
    assert not re.search(r"""(src|href)=["']|https?://""", text)
    data = re.search(r'id="termwise-data">(.*?)</script>', text, re.S)[1]
    assert json.loads(data)["rows"]["q1"]["splits"]["train"]["tags"]["total"][0] == 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: there is no such folder."),
        (["."], "no runs at or below .: a run has metrics.jsonl."),
        (["q1", "--output=report.pdf"], "--output=report.pdf: give --format=html|md|json|csv."),
        (["q1", "--output=no/such/r.html"], "No such file or directory"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    arguments, message, runs, tmp_path, monkeypatch, capsys
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if arguments == ["."] else tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_page_is_code_without_markup_of_names_or_other_hosts():
    for path in PAGE.iterdir():
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
        assert "http://" not in text and "https://" not in text


def test_the_modules_fit_into_one_script():
    text = bundle()
    assert not re.search(r"^(import|export) ", text, re.M)
    assert {path.stem for path in PAGE.glob("*.js")} == set(MODULES)
    names = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", text, re.M)
    assert len(names) == len(set(names))


def test_the_page_is_small():
    code = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir())}
    assert sum(map(len, code.values())) <= 60_000  # as it stands, with nothing vendored
    assert len(gzip.compress(b"".join(code.values()), 9)) < 22_000  # what TensorBoard sends
    lines = [line for path in PAGE.glob("*.js") for line in path.read_text().splitlines()]
    assert max(map(len, lines)) <= 175 and len(lines) > 600  # it is written to be read
