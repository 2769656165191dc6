"""The tab's server: routes, what is wrong in a query, runs that left only event files."""

import json
import types

import pytest
from werkzeug.test import Client

from tests.trainer.report.rows_by_hand import healthy, row, write_run
from trainer.ledger.tensorboard import EventFiles
from trainer.report import Runs
from trainer.report.plugin import TermwisePlugin


def clients(folder, **flags):
    context = types.SimpleNamespace(logdir=str(folder), flags=types.SimpleNamespace(**flags))
    plugin = TermwisePlugin(context)
    return plugin, {route: Client(app) for route, app in plugin.get_plugin_apps().items()}


@pytest.fixture
def routes(tmp_path):
    write_run(tmp_path / "q1", healthy(), config={"seed": 0})
    write_run(tmp_path / "q2", healthy(), config={"seed": 1})
    return clients(tmp_path)[1]


def test_the_page_is_served_with_a_type_and_nothing_else_is(routes):
    assert routes["/index.js"].get("/").headers["Content-Type"].startswith("application/javascript")
    assert routes["/style.css"].get("/").headers["X-Content-Type-Options"] == "nosniff"
    assert not [route for route in routes if ".." in route or route.endswith(".py")]


def test_rows_are_answered_as_json(routes):
    answer = routes["/rows"].get("/?run=q1&first=3&last=4&points=10").get_json()
    assert answer["splits"]["train"]["step"] == [3, 4]
    assert routes["/row"].get("/?run=q1&step=2").get_json()["raw/a"] == 0.7 / 2 + 0.1
    fields = routes["/compare"].get("/?run=q1&run=q2").get_json()["fields"]
    assert fields == [{"field": "seed", "values": {"q1": 0, "q2": 1}}]


@pytest.mark.parametrize(
    ("route", "query", "message"),
    [
        ("/rows", "", "run is missing"),
        ("/rows", "run=q11", "there is no run 'q11'. Did you mean 'q1'?"),
        ("/rows", "run=..%2Fq1", "there is no run '../q1'"),
        ("/rows", "run=%2Fetc", "there is no run '/etc'"),
        ("/rows", "run=q1&points=1e9", "points='1e9': give a whole number"),
        ("/rows", "run=q1&points=99999", "points=99999: give 2 to 5000"),
        ("/rows", "run=q1&first=-1", "first='-1'"),
        ("/rows", "run=q1&last=" + "9" * 30, "give a whole number"),
        ("/row", "run=q1", "step is missing"),
        ("/row", "run=q1&step=2&split=%00", "split='\\x00'"),
        ("/row", "run=q1&step=1000", "has no train row of step 1000"),
        ("/about", "run=", "run is missing"),
        ("/compare", "run=q1&run=no", "there is no run 'no'"),
    ],
)
def test_a_wrong_query_is_400_with_a_message(routes, route, query, message):
    answer = routes[route].get(f"/?{query}")
    assert answer.status_code == 400 and message in answer.get_json()["error"]


def test_nothing_is_changed_by_a_post(routes):
    assert routes["/rows"].post("/?run=q1").status_code == 405


def test_the_tab_is_active_once_there_is_a_run(tmp_path):
    assert not clients(tmp_path)[0].is_active()
    write_run(tmp_path / "a", healthy())
    assert clients(tmp_path)[0].is_active()


def test_several_logdirs_are_named_by_their_specification(tmp_path):
    first, second = tmp_path / "x", tmp_path / "y"
    write_run(first, healthy())
    write_run(second / "q", healthy())
    routes = clients("", logdir_spec=f"one:{first},two:{second}")[1]
    names = [run["name"] for run in routes["/runs"].get("/").get_json()["runs"]]
    assert names == ["one", "two/q"]


def test_of_event_files_alone_the_steps_that_all_tags_share_are_drawn(tmp_path):
    events = EventFiles(tmp_path / "old")
    for step in range(10, 101, 10):
        values = {"total": 1.5, "terms/a": 1.0, "terms/b": 0.5}
        if step == 30:
            values.pop("terms/b")
        events.scalars("train", step, values, wall_time=float(step))
    events.scalars("eval", 100, {"total": 2.0})
    events.scalars("eval/hard", 100, {"total": 3.0})
    events.close()
    runs = Runs(tmp_path)
    assert [(run["name"], run["events_only"]) for run in runs.overview()] == [("old", True)]
    splits = runs.rows("old")["splits"]
    assert splits["train"]["step"] == [10, 20, *range(40, 101, 10)]
    assert splits["train"]["tags"]["terms/b"] == [0.5] * 9
    assert splits["eval"]["tags"]["total"] == [2.0]
    assert splits["eval/hard"]["tags"]["total"] == [3.0]
    (note,) = runs.rows("old")["notes"]
    assert note.startswith("Not drawn: config.json, starts.jsonl and the rows themselves")
    assert note.endswith("; train: 1 steps that only some tags have.")


def test_events_that_a_restart_wrote_again_count_once(tmp_path):
    for restart in (None, 20):
        events = EventFiles(tmp_path / "old", restart_step=restart)
        for step in range((restart or 0) + 10, 41, 10):
            events.scalars("train", step, {"total": 2.0 if restart else 1.0})
        events.close()
    train = Runs(tmp_path).rows("old")["splits"]["train"]
    assert train["step"] == [10, 20, 30, 40] and train["tags"]["total"] == [1.0, 1.0, 2.0, 2.0]


def test_a_name_that_is_markup_stays_text_in_an_answer(tmp_path):
    name = "<script>alert(1)</script>"
    write_run(tmp_path / "a", [row(1, {name: 1.0})])
    answer = clients(tmp_path)[1]["/runs"].get("/")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert json.loads(answer.data)["runs"][0]["terms"] == [name]
