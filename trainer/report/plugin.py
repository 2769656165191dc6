"""The tab "Termwise" of TensorBoard: serves the page, and the rows that it asks for.

Found by the entry point `tensorboard_plugins`; no other module here imports tensorboard.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.backend import http_util
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins import base_plugin
from tensorboard.util import tensor_util
from werkzeug import wrappers

from trainer.report.errors import ReportError
from trainer.report.folders import find_runs
from trainer.report.runs import Runs

PAGE = Path(__file__).resolve().parent / "page"
TYPES = {".js": "application/javascript", ".css": "text/css"}
LOOKED_FOR = 10.0  # seconds between two looks whether there are runs


class TermwisePlugin(base_plugin.TBPlugin):
    """The plugin, made by TensorBoard.

    Args:
      context: TensorBoard's; its logdir, or `--logdir_spec`, says where runs are.
    """

    plugin_name = "termwise"

    def __init__(self, context):
        self._runs = Runs(_logdirs(context))
        self._active: tuple[float, bool] = (-LOOKED_FOR, False)

    def get_plugin_apps(self) -> dict[str, Callable]:
        """Route -> application."""
        files = {f"/{path.name}": _file(path) for path in PAGE.iterdir() if path.suffix in TYPES}
        return {
            **files,
            "/runs": _answer(lambda query: self._runs.listed()),
            "/rows": _answer(self._rows),
            "/row": _answer(self._row),
            "/about": _answer(lambda query: self._runs.about(_one(query, "run"))),
            "/compare": _answer(lambda query: {"fields": self._runs.compare(query.getlist("run"))}),
        }

    def is_active(self) -> bool:
        """Whether there is a run below the logdir."""
        looked_at, active = self._active
        if not active and time.monotonic() - looked_at > LOOKED_FOR:
            active = any(find_runs(path) for path in self._runs.logdirs.values())
            self._active = (time.monotonic(), active)
        return active

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The page follows its runs by itself: TensorBoard need not reload it."""
        return base_plugin.FrontendMetadata(
            es_module_path="/index.js", tab_name="Termwise", disable_reload=True
        )

    def _rows(self, query) -> dict[str, Any]:
        return self._runs.rows(
            _one(query, "run"),
            first=_whole(query, "first", 0),
            last=_whole(query, "last", float("inf")),
            points=_whole(query, "points", None),
            wide=bool(_whole(query, "wide", 0)),
        )

    def _row(self, query) -> dict[str, Any]:
        step = _whole(query, "step", None)
        if step is None:
            raise ReportError("step is missing: give a whole number.")
        return self._runs.row(_one(query, "run"), query.get("split", "train"), step)


def read_event(record: bytes) -> tuple[int | None, int, float, dict[str, float]]:
    """An event of an event file: step restarted from or None, step, time, tag -> value."""
    event = event_pb2.Event.FromString(record)
    started = event.session_log.status == event.session_log.START
    values = {}
    for value in event.summary.value:
        if value.HasField("simple_value"):
            values[value.tag] = value.simple_value
        elif value.metadata.plugin_data.plugin_name == "scalars" and value.HasField("tensor"):
            values[value.tag] = float(tensor_util.make_ndarray(value.tensor).item())
    return event.step if started else None, event.step, event.wall_time, values


def _logdirs(context) -> str | dict[str, str]:
    """The logdir, or name -> folder of `--logdir_spec=name:folder,folder`."""
    spec = getattr(getattr(context, "flags", None), "logdir_spec", "")
    if not spec:
        return context.logdir or "."
    folders = {}
    for part in spec.split(","):
        name, colon, folder = part.partition(":")
        path = folder if colon and name else part
        folders[name if colon and name else part] = str(Path(path).expanduser())
    return folders


def _file(path: Path) -> Callable:
    @wrappers.Request.application
    def serve(request):
        return http_util.Respond(request, path.read_bytes(), TYPES[path.suffix])

    return serve


def _answer(of: Callable[[Any], Any]) -> Callable:
    """An application that answers a query with JSON; 400 and a message where it is wrong."""

    @wrappers.Request.application
    def serve(request):
        code, body = 200, None
        if request.method not in ("GET", "HEAD"):
            code, body = 405, {"error": f"{request.method}: ask with GET."}
        else:
            try:
                body = of(request.args)
            except ReportError as error:
                code, body = 400, {"error": str(error)}
        text = json.dumps(body, allow_nan=False, separators=(",", ":"))
        return http_util.Respond(request, text, "application/json", code=code)

    return serve


def _one(query, name: str) -> str:
    value = query.get(name)
    if not value:
        raise ReportError(f"{name} is missing.")
    return value


def _whole(query, name: str, default):
    """A whole number from 0 on, or the default where there is none."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ReportError(f"{name}={text!r}: give a whole number from 0 on.")
    return int(text)
