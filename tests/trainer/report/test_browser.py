"""The page in a browser: TensorBoard's tab on real runs, and the report without a server.

TERMWISE_PICTURES=docs/see makes the pictures of docs/see.md anew.
"""

import ast
import itertools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from tests.trainer.report.rows_by_hand import row, write_run
from trainer import Trainer
from trainer.report.__main__ import main

ROOT = Path(__file__).resolve().parents[3]
MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no {' and no '.join(MISSING)} on this machine"),
]
LONGEST = 120  # seconds that anything may take on a busy machine
RIGHT, DOWN, ENTER = "\ue014", "\ue015", "\ue007"
EVIL = "<img src=x onerror=document.title='evil'>"


def rows_of(run, split="train"):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def train(workdir, steps, **arguments):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(128, 4)).astype("float32")
    net = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(2, kernel_regularizer="l2", name="out")], name="net"
    )
    optimizer = keras.optimizers.Adam(0.05)
    trainer = Trainer(net, optimizer=optimizer, loss="mse", workdir=workdir, **arguments)
    data = (x, x[:, :2] * 2)
    options = {"batch_size": 32, "log_every": 4, "validate_every": 20, "verbose": False}
    trainer.fit(data, steps=steps, validation_data=data, **options)
    assert len(rows_of(workdir)) == steps // 4


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """Three real runs; by hand one with 64 terms and a name that is markup, one with 12 terms whose
    gradients were measured, and one with validation sets, phases and a restore."""
    folder = tmp_path_factory.mktemp("logs")
    gain = losses.term(lambda step: -tf.reduce_mean(tf.abs(step.y_pred), -1), name="gain")
    train(folder / "negative", 80, terms=[gain], loss_weights={"gain": 0.5})
    train(folder / "resumed", 40)
    train(folder / "resumed", 80)
    spread = losses.term(lambda step: tf.reduce_mean(step.y_pred**2, -1), name="spread")
    train(
        folder / "balanced",
        *(80,),
        terms=[spread],
        balancer=losses.balancing.PCGrad(),
        gradient_diagnostics_every=4,
    )
    names = [
        EVIL,
        *(f"regularization/block_{i}" for i in range(43)),
        *(f"aux_{i}" for i in range(20)),
    ]
    rows = [row(s, {name: 3 ** -(i % 4) / s for i, name in enumerate(names)}) for s in range(1, 60)]
    write_run(folder / "by_hand" / "64 terms", rows, DONE={"seconds": 1.0})
    tasks = [f"task_{letter}" for letter in "abcdefghijkl"]
    measured = {f"grad_norm/{name}": 1.0 for name in tasks}
    for a, b in itertools.combinations(range(12), 2):
        measured[f"grad_cosine/{tasks[a]}:{tasks[b]}"] = math.cos(a * b)
    rows = [row(s, {name: 1.0 / s for name in tasks}, **measured) for s in range(1, 20)]
    write_run(folder / "by_hand" / "twelve tasks", rows, DONE={"seconds": 1.0})
    write_run(folder / "by_hand" / "validated", validated(), starts=STARTS, DONE={"seconds": 1.0})
    return folder


STARTS = [{"resumed_from": None}, {"resumed_from": 60, "not_finite": 67, "time": "12:00"}]


def validated():
    """Rows of two phases and of two validation sets with names."""
    for step in range(2, 101, 2):
        phase = "warm" if step <= 30 else "joint"
        terms = {"data": 2 / step**0.5, "consistency": min(step / 60, 1) * 0.6}
        yield row(step, terms, phase=phase, skipped_steps=3 if step == 80 else 0)
        if not step % 20:
            yield row(step, {"data": 2.4 / step**0.5, "consistency": 0.6}, split="eval/easy")
            yield row(step, {"data": 3.2 / step**0.5, "consistency": 0.7}, split="eval/hard")


@pytest.fixture(scope="module")
def address(logdir, tmp_path_factory):
    """A TensorBoard that finds the tab by the entry point of setup.py."""
    site = tmp_path_factory.mktemp("site")
    call = ast.parse((ROOT / "setup.py").read_text()).body[-1].value
    points = {word.arg: word.value for word in call.keywords}["entry_points"]
    name, lines = next(iter(ast.literal_eval(points).items()))
    folder = site / "termwise-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: termwise\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text("\n".join([f"[{name}]", *lines]) + "\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), f"--port={port}"]
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    with (site / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host=127.0.0.1"], stdout=log, stderr=log, env=environment
        )
    try:
        wait(lambda: ask(f"http://127.0.0.1:{port}/data/plugins_listing"))
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(timeout=LONGEST)


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read())
    except OSError:
        return None


def wait(until):
    """What `until` returns once it is true."""
    end = time.monotonic() + LONGEST
    while not (answer := until()):
        assert time.monotonic() < end, "nothing in time"
        time.sleep(0.1)
    return answer


class Page:
    """The page in the browser.

    Args:
      driver: selenium's.
      pictures: the folder of its pictures.
    """

    def __init__(self, driver, pictures):
        self.driver, self.pictures = driver, pictures

    def open(self, address, hash=""):
        self.driver.get("about:blank")
        self.driver.get(f"{address}#{hash}")
        if address.startswith("http"):
            frame = "iframe[src*='name=termwise']"
            self.driver.switch_to.frame(wait(lambda: self.all(frame))[0])
        wait(lambda: self.all(".ledger"))

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def ledger(self, step):
        """term -> numbers of its line in the ledger, at a step that is typed."""
        self.script(
            "const box = document.querySelector('input[aria-label=step]');"
            "box.value = arguments[0]; box.dispatchEvent(new Event('change'))",
            step,
        )
        return self.script(
            "const lines = [...document.querySelectorAll('.ledger tbody tr')];"
            "return Object.fromEntries(lines.map(line => "
            "[line.dataset.term, [...line.querySelectorAll('td.n')].map(c => c.dataset.value)]))"
        )

    def press(self, text):
        self.script(
            "[...document.querySelectorAll('button')]"
            ".find(button => button.textContent === arguments[0]).click()",
            text,
        )

    def stacks(self):
        """Of each stack the values of its areas, and the totals."""
        return self.script(
            "return [...document.querySelectorAll('.figures figure')].flatMap(f => f.plot.layers)"
            ".filter(l => l.bands).map(l => [l.bands.map(b => b.values), l.total,"
            " l.bands.map(b => [...b.to].map((v, i) => v - b.from[i]))])"
        )

    def picture(self, name, keep=False):
        folder = os.environ.get("TERMWISE_PICTURES") if keep else None
        path = (ROOT / folder if folder else self.pictures) / f"{name}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        time.sleep(0.3 if folder else 0.0)
        assert self.driver.save_screenshot(str(path))

    def complaints(self):
        log = self.driver.get_log("browser")
        return [
            e["message"] for e in log if e["level"] == "SEVERE" and "favicon" not in e["message"]
        ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{word}")
    options.add_argument("--window-size=1280,1000")
    options.add_argument("--hide-scrollbars")
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(shutil.which("chromedriver"))
    driver = selenium.Chrome(options=options, service=service)
    yield Page(driver, tmp_path_factory.mktemp("pictures"))
    driver.quit()


def assert_ledger(page, rows, steps):
    """The ledger shows at each step the numbers of that row."""
    by_step = {row["step"]: row for row in rows}
    for step in steps:
        lines, row = page.ledger(step), by_step[step]
        names = [tag.removeprefix("terms/") for tag in row if tag.startswith("terms/")]
        assert sorted(lines) == sorted([*names, "total"])
        for name in names:
            expected = [row[f"{head}/{name}"] for head in ("raw", "weight", "terms")]
            assert [float(value) for value in lines[name][:3]] == expected
        assert float(lines["total"][0]) == row["total"]


def assert_stacks_add_up(page, count=1):
    stacks = page.stacks()
    assert len(stacks) == count
    for bands, totals, heights in stacks:
        assert len(totals) > 10
        for index, total in enumerate(totals):
            assert math.fsum(band[index] for band in bands) == pytest.approx(total, rel=1e-6)
            assert sum(height[index] for height in heights) == pytest.approx(total, rel=1e-6)


def test_the_tab_shows_what_the_rows_hold(page, address, logdir):
    page.open(address, "termwise&termwise.runs=negative")
    listed = [label.text for label in page.all(".runs label span")]
    by_hand = [f"by_hand/{name}" for name in ("64 terms", "twelve tasks", "validated")]
    assert listed == ["balanced", *by_hand, "negative", "resumed"]
    assert_ledger(page, rows_of(logdir / "negative"), [4, 40, 80])
    assert_stacks_add_up(page)
    page.picture("stack", keep=True)
    page.press("share")
    page.press("log x")
    hash = page.script("return window.parent.location.hash")
    assert "termwise.view=share" in hash and "termwise.logx=1" in hash and "step=80" in hash
    theme = "return document.querySelector('.termwise').dataset.theme"
    assert page.script(theme) == "light"
    page.script("window.parent.document.body.classList.add('dark-mode')")  # TensorBoard's button
    wait(lambda: page.script(theme) == "dark")
    page.script("window.parent.document.body.classList.remove('dark-mode')")
    page.press("lines")
    page.press("raw")
    page.press("log x")
    page.press("stack")
    page.press("eval")
    assert_ledger(page, rows_of(logdir / "negative", "eval"), [20, 60])
    assert page.complaints() == []


def test_two_runs_stand_side_by_side_with_what_differs(page, address, logdir):
    page.open(address, "termwise&termwise.runs=negative&termwise.runs=resumed")
    assert_stacks_add_up(page, count=2)
    wait(lambda: page.all(".differences, .panels .wide p"))
    ends = page.script(
        "return [...document.querySelectorAll('.ends tr.total td.n')]"
        ".map(cell => Number(cell.dataset.value))"
    )
    first, second = (rows_of(logdir / run)[-1]["total"] for run in ("negative", "resumed"))
    assert ends == [first, second, pytest.approx(second - first)]
    marks = page.script("return document.querySelectorAll('.figures figure')[1].plot.spec.marks")
    assert [mark["x"] for mark in marks] == [40] and "resumed from step 40" in marks[0]["label"]
    page.picture("runs", keep=True)
    page.press("overlaid")
    assert_stacks_add_up(page)


def test_gradients_are_a_map_that_opens_over_time(page, address, logdir):
    page.open(address, "termwise&termwise.runs=balanced&termwise.theme=dark")
    row = rows_of(logdir / "balanced")[-1]
    pair = next(tag for tag in row if tag.startswith("grad_cosine/"))
    cells = wait(lambda: page.all("td.heat:not(.same)[data-value]"))
    assert float(cells[0].get_attribute("data-value")) == row[pair]
    page.script("arguments[0].click()", cells[0])
    wait(lambda: page.all("td.heat.chosen"))
    page.script("document.querySelector('.heatmap').scrollIntoView({block: 'center'})")
    page.picture("gradients", keep=True)
    assert page.complaints() == []


def test_a_map_of_many_terms_is_walked_by_the_arrow_keys(page, address):
    page.open(address, "termwise&termwise.runs=by_hand%2Ftwelve+tasks")
    wait(lambda: page.all("td.heat[data-value]"))
    assert len(page.all("td.heat")) == 144 and len(page.all("td.heat[tabindex='0']")) == 1
    cell = page.all("td.heat[tabindex='0']")[0]
    cell.send_keys(RIGHT + RIGHT + DOWN)  # from a:b
    focused = "return document.activeElement.dataset.key"
    assert page.script(focused) == "cosine task_b:task_d"
    assert "task_b : task_d" in page.all(".heatmap p")[0].text
    page.driver.switch_to.active_element.send_keys(ENTER)
    assert len(page.all("td.heat.chosen")) == 2  # the pair stands on both sides of the diagonal
    assert page.script(focused) == "cosine task_b:task_d"
    captions = [caption.text for caption in page.all(".charts figcaption")]
    assert any(caption.startswith("cosine of task_b : task_d") for caption in captions)


def test_validation_sets_phases_and_restores_are_drawn(page, address, logdir):
    run = logdir / "by_hand" / "validated"
    page.open(address, "termwise&termwise.runs=by_hand%2Fvalidated")
    layers = page.script(
        "return document.querySelector('.figures figure').plot.layers.filter(l => l.values)"
        ".map(l => [l.name, l.values, l.dash.join()])"
    )
    assert [name for name, *_ in layers] == ["total", "eval/easy total", "eval/hard total"]
    assert len({dash for *_, dash in layers}) == 3
    for name, values, _ in layers[1:]:
        assert values == [row["total"] for row in rows_of(run, name.removesuffix(" total"))]
    captions = page.all(".figures figcaption")[0].text
    assert "eval/easy" in captions and "eval/hard" in captions
    marks = page.script("return document.querySelector('.figures figure').plot.spec.marks")
    assert [(mark["x"], mark.get("short")) for mark in marks] == [
        *[(32, "joint"), (60, "restored"), (80, None)],
    ]
    assert marks[1]["label"] == "step 67 not finite: restored to step 60, 12:00"
    page.picture("sets", keep=True)
    page.press("eval/hard")
    assert_ledger(page, rows_of(run, "eval/hard"), [20, 100])
    assert page.complaints() == []


def test_a_double_click_shows_the_whole_run_and_chooses_no_step(page, address):
    page.open(address, "termwise&termwise.runs=by_hand%2Fvalidated&termwise.step=20")
    hash = "return window.parent.location.hash"
    actions = pytest.importorskip("selenium.webdriver").ActionChains
    canvas = page.all(".figures canvas")[0]
    actions(page.driver).move_to_element(canvas).click_and_hold().move_by_offset(150, 0).perform()
    actions(page.driver).release().perform()
    wait(lambda: "termwise.from=" in page.script(hash))
    assert "termwise.step=20" in page.script(hash)  # nor does a drag
    actions(page.driver).double_click(page.all(".figures canvas")[0]).perform()
    wait(lambda: "termwise.from=" not in page.script(hash))
    assert "termwise.step=20" in page.script(hash)
    actions(page.driver).click(page.all(".figures canvas")[0]).perform()
    wait(lambda: "termwise.step=20" not in page.script(hash) and "step=" in page.script(hash))


def test_sixty_four_terms_fold_and_names_are_text(page, address, logdir):
    page.open(address, "termwise&termwise.runs=by_hand%2F64+terms&termwise.theme=dark")
    drawn = [term.text for term in page.all(".terms button.term span")]
    assert drawn == [EVIL, "regularization/*", "aux_*"]
    assert_stacks_add_up(page)
    page.picture("many", keep=True)
    page.script("document.querySelector('[data-key=\"fold regularization/*\"]').click()")
    assert len(page.all(".terms button.term")) == 14
    assert_stacks_add_up(page)
    find = page.all("input[aria-label='search terms']")[0]
    find.send_keys("aux_1")  # letter by letter: the box stays what is typed in
    assert find.get_attribute("value") == "aux_1"
    assert [term.text for term in page.all(".terms button.term span")] == ["aux_*"]
    assert not page.all("img") and page.script("return document.title") == "Termwise"


def test_a_run_that_is_being_written_is_followed(page, address, logdir):
    run = write_run(logdir / "live", [row(s, {"a": 1.0 / s}) for s in range(1, 20)])
    page.open(address, "termwise&termwise.runs=live")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(20, {"a": 0.125})) + "\n")
    last = "return document.querySelector('input[aria-label=step]').value"
    wait(lambda: page.script(last) == "20")
    assert float(page.ledger(20)["a"][0]) == 0.125
    # the arrow keys go from row to row
    canvas = page.all(".figures canvas")[0]
    canvas.send_keys("\ue012")
    wait(lambda: page.script(last) == "19")
    page.picture("one")
    shutil.rmtree(run)


def test_the_report_gives_the_same_numbers_without_a_server(page, logdir, tmp_path):
    file = tmp_path / "report.html"
    assert main([str(logdir / "negative"), str(logdir / "resumed"), f"--output={file}"]) == 0
    page.open(file.as_uri(), "termwise.runs=negative")
    assert_ledger(page, rows_of(logdir / "negative"), [4, 44, 80])
    assert_stacks_add_up(page)
    page.picture("report")
    assert page.complaints() == []
