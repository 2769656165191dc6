"""What EventFiles writes, read back with TensorBoard's own readers."""

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as ServerAccumulator,
)
from tensorboard.compat.proto import event_pb2
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import (
    api_pb2,
    backend_context,
    list_session_groups,
    metadata,
)
from tensorboard.util import tensor_util

from trainer.ledger.tensorboard import EventFiles


def read(directory):
    """Every value under `directory`, not a sample of them."""
    everything = dict.fromkeys(("scalars", "tensors", "images"), 0)
    return EventAccumulator(str(directory), size_guidance=everything).Reload()


def scalars(directory, tag):
    return {event.step: event.value for event in read(directory).Scalars(tag)}


def records(directory):
    paths = sorted(str(path) for path in Path(directory).glob("events.out.tfevents.*"))
    return [
        event_pb2.Event.FromString(record.numpy())
        for path in paths
        for record in tf.data.TFRecordDataset(path)
    ]


def tensor(accumulator, tag):
    (event,) = accumulator.Tensors(tag)
    return tensor_util.make_ndarray(event.tensor_proto).item()


def server_scalars(directory, tag):
    """As `tensorboard --load_fast=false` reads them."""
    accumulator = ServerAccumulator(str(directory)).Reload()
    return {
        event.step: tensor_util.make_ndarray(event.tensor_proto).item()
        for event in accumulator.Tensors(tag)
    }


# Values


def test_values_read_back_are_the_values_written_in_float32(tmp_path):
    values = {"total": 1.1, "terms/regularization/dense/kernel": 1e-12, "raw/a": -3.25e7}
    events = EventFiles(tmp_path)
    events.scalars("train", 7, values)
    events.scalars("eval", 7, {"total": 2.2})
    events.close()

    train = read(tmp_path / "train")
    assert sorted(train.Tags()["scalars"]) == sorted(values)
    for tag, value in values.items():
        assert [(e.step, e.value) for e in train.Scalars(tag)] == [(7, float(np.float32(value)))]
    assert scalars(tmp_path / "eval", "total") == {7: float(np.float32(2.2))}


def test_one_call_is_one_event_with_the_time_it_was_given(tmp_path):
    events = EventFiles(tmp_path)
    for step in (1, 2, 3):
        events.scalars("train", step, {"a": 1.0, "b": 2.0, "c": 3.0}, wall_time=1e9 + step)
    events.close()
    written = [event for event in records(tmp_path / "train") if event.HasField("summary")]
    assert [(event.step, event.wall_time) for event in written] == [
        (1, 1e9 + 1),
        (2, 1e9 + 2),
        (3, 1e9 + 3),
    ]
    assert [[value.tag for value in event.summary.value] for event in written] == [
        ["a", "b", "c"]
    ] * 3


def test_nan_is_kept_and_none_is_left_out(tmp_path):
    events = EventFiles(tmp_path)
    events.scalars("train", 1, {"nan": math.nan, "inf": math.inf, "none": None})
    events.scalars("train", 2, {"none": None})
    events.close()
    train = read(tmp_path / "train")
    assert sorted(train.Tags()["scalars"]) == ["inf", "nan"]
    assert math.isnan(train.Scalars("nan")[0].value)
    assert train.Scalars("inf")[0].value == math.inf
    assert not [event for event in records(tmp_path / "train") if event.step == 2]


def test_a_flushed_value_is_on_disk_before_the_file_is_closed(tmp_path):
    events = EventFiles(tmp_path)
    events.scalars("train", 1, {"total": 1.0})
    events.flush()
    assert scalars(tmp_path / "train", "total") == {1: 1.0}
    events.close()


def test_no_file_is_made_for_a_split_without_values(tmp_path):
    events = EventFiles(tmp_path / "tb")
    events.scalars("train", 1, {"total": 1.0})
    events.close()
    assert os.listdir(tmp_path / "tb") == ["train"]


def test_an_unknown_split_is_an_error_that_names_the_two_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"'test'.*'train', 'eval'"):
        EventFiles(tmp_path).scalars("test", 1, {"total": 1.0})


def test_a_description_comes_with_the_first_value_of_a_tag(tmp_path):
    events = EventFiles(tmp_path)
    events.describe({"raw/a": "    y - x"})
    for step in (1, 2):
        events.scalars("train", step, {"raw/a": 1.0, "raw/b": 2.0})
    events.close()
    texts = [
        (event.step, value.tag, value.metadata.summary_description)
        for event in records(tmp_path / "train")
        for value in event.summary.value
        if value.HasField("metadata")
    ]
    assert texts == [(1, "raw/a", "    y - x")]
    metadata = ServerAccumulator(str(tmp_path / "train")).Reload().SummaryMetadata("raw/a")
    assert metadata.summary_description == "    y - x"
    assert server_scalars(tmp_path / "train", "raw/a") == {1: 1.0, 2: 1.0}


# Restarts


@pytest.mark.parametrize("steps_of", [scalars, server_scalars])
def test_a_restart_keeps_its_step_and_drops_the_later_ones(tmp_path, steps_of):
    first = EventFiles(tmp_path)
    first.text("configuration", "kept")
    for step in (10, 20, 21, 30, 40):
        first.scalars("train", step, {"total": 1.0, "gone": 1.0})
        first.scalars("eval", step, {"total": 1.0})
    first.close()

    second = EventFiles(tmp_path, restart_step=20)
    # The steps of eval are dropped although the resumed run has not evaluated yet.
    assert steps_of(tmp_path / "eval", "total") == {10: 1.0, 20: 1.0}
    second.scalars("train", 30, {"total": 2.0})
    second.close()
    assert steps_of(tmp_path / "train", "total") == {10: 1.0, 20: 1.0, 30: 2.0}
    assert steps_of(tmp_path / "train", "gone") == {10: 1.0, 20: 1.0}
    assert tensor(read(tmp_path), "configuration") == b"kept"


@pytest.mark.parametrize("steps_of", [scalars, server_scalars])
def test_a_run_that_begins_anew_drops_all_that_an_earlier_one_left(tmp_path, steps_of):
    first = EventFiles(tmp_path)
    first.scalars("train", 5, {"total": 1.0})
    first.close()
    second = EventFiles(tmp_path)
    second.scalars("train", 10, {"total": 2.0})
    second.close()
    assert steps_of(tmp_path / "train", "total") == {10: 2.0}


@pytest.mark.parametrize("steps_of", [scalars, server_scalars])
def test_restarts_within_a_second_are_read_in_their_order(tmp_path, steps_of):
    for restart in range(12):
        events = EventFiles(tmp_path, restart_step=restart if restart else None)
        events.scalars("train", restart + 1, {"total": float(restart)})
        events.scalars("train", 100, {"total": -1.0})
        events.close()
    expected = {restart + 1: float(restart) for restart in range(12)} | {100: -1.0}
    assert steps_of(tmp_path / "train", "total") == expected


@pytest.mark.parametrize("steps_of", [scalars, server_scalars])
def test_a_record_cut_short_by_a_kill_does_not_hide_the_resumed_run(tmp_path, steps_of):
    first = EventFiles(tmp_path)
    for step in (1, 2, 3):
        first.scalars("train", step, {"total": 1.0})
    first.close()
    (path,) = (tmp_path / "train").iterdir()
    os.truncate(path, path.stat().st_size - 5)

    second = EventFiles(tmp_path, restart_step=1)
    second.scalars("train", 2, {"total": 2.0})
    second.close()
    assert steps_of(tmp_path / "train", "total") == {1: 1.0, 2: 2.0}


# What belongs to the whole run


def written_layout(directory):
    events = EventFiles(directory)
    events.layout()
    events.close()
    accumulator = read(directory)
    assert "custom_scalars__config__" in accumulator.PluginTagToContent("custom_scalars")
    return layout_pb2.Layout.FromString(tensor(accumulator, "custom_scalars__config__"))


def test_every_tag_of_the_ledger_is_on_its_chart_and_on_no_other(tmp_path):
    chart_of = {
        "terms/sparse_focal": "terms (weighted)",
        "terms/regularization/dense/kernel": "terms (weighted)",
        "terms/raw/odd": "terms (weighted)",
        "raw/sparse_focal": "raw",
        "raw/terms/odd": "raw",
        "weight/sparse_focal": "weights",
        "loss_parameters/center/radius": "loss parameters",
        "multiplier/recall": "multipliers",
        "violation/recall": "violations",
        "grad_norm/total": "gradient norms",
        "grad_norm/regularization/dense/kernel": "gradient norms",
        "grad_cosine/a:b": "gradient cosines",
        "metrics/accuracy": "metrics",
        "metrics/total": "metrics",
        "total": "total",
    }
    charts = [chart for part in written_layout(tmp_path).category for chart in part.chart]
    assert {chart.title for chart in charts} == set(chart_of.values())
    nowhere = ["learning_rate", "steps_per_second", "examples_per_second", "total_of_another"]
    for tag in [*chart_of, *nowhere]:
        # `re.match` is how TensorBoard's plugin compares.
        titles = [c.title for c in charts if any(re.match(r, tag) for r in c.multiline.tag)]
        assert titles == ([chart_of[tag]] if tag in chart_of else []), tag


def test_the_layout_opens_on_the_equation_with_the_gradients_folded(tmp_path):
    layout = written_layout(tmp_path)
    assert [(part.title, part.closed) for part in layout.category] == [
        ("objective", False),
        ("constraints", True),
        ("gradients", True),
    ]
    first_row = [chart.title for chart in layout.category[0].chart[:3]]
    assert first_row == ["terms (weighted)", "raw", "weights"]


CONFIG = {
    "optimizer": {"name": "adam", "learning_rate": 1e-3},
    "steps": 100,
    "jit_compile": True,
    "balancer": None,
    "groups": {},
    "layers": [64, 32],
    "limit": math.nan,
    "pattern": "a|b",
}


def test_the_configuration_is_a_table_of_dotted_names(tmp_path):
    events = EventFiles(tmp_path)
    events.configuration(CONFIG)
    events.close()
    run = read(tmp_path)
    assert "configuration" in run.PluginTagToContent("text")
    assert tensor(run, "configuration").decode().splitlines() == [
        "|field|value|",
        "|---|---|",
        "|`optimizer.name`|`'adam'`|",
        "|`optimizer.learning_rate`|`0.001`|",
        "|`steps`|`100`|",
        "|`jit_compile`|`True`|",
        "|`balancer`|`None`|",
        "|`groups`|`{}`|",
        "|`layers`|`[64, 32]`|",
        "|`limit`|`nan`|",
        "|`pattern`|`'a|b'`|",
    ]


def test_the_configuration_is_a_session_of_the_hparams_plugin(tmp_path):
    events = EventFiles(tmp_path)
    events.configuration(CONFIG)
    events.finish()
    events.close()
    contents = read(tmp_path).PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    values = {name: getattr(v, v.WhichOneof("kind")) for name, v in start.hparams.items()}
    assert values == {
        "optimizer.name": "adam",
        "optimizer.learning_rate": 1e-3,
        "steps": 100.0,
        "jit_compile": True,
        "balancer": "None",
        "groups": "{}",
        "layers": "[64, 32]",
        "limit": "nan",
        "pattern": "a|b",
    }
    end = metadata.parse_session_end_info_plugin_data(contents[metadata.SESSION_END_INFO_TAG])
    assert end.status == api_pb2.STATUS_SUCCESS


def test_the_total_and_metrics_are_the_first_columns_of_the_hparams_tab_and_speed_the_last(
    tmp_path,
):
    events = EventFiles(tmp_path)
    events.configuration({"seed": 0, "name": "adam", "jit": True})
    events.columns(
        ["examples_per_second", "terms/a", "metrics/x", "learning_rate", "total"], {"seed"}
    )
    events.close()
    contents = read(tmp_path).PluginTagToContent("hparams")
    experiment = metadata.parse_experiment_plugin_data(contents[metadata.EXPERIMENT_TAG])
    assert [f"{info.name.group} {info.name.tag}" for info in experiment.metric_infos] == [
        *("eval total", "train total", "eval metrics/x", "train metrics/x"),
        *("eval terms/a", "train terms/a", "train learning_rate", "train examples_per_second"),
    ]
    assert {info.name: info.type for info in experiment.hparam_infos} == {
        "seed": api_pb2.DATA_TYPE_FLOAT64,
        "name": api_pb2.DATA_TYPE_STRING,
        "jit": api_pb2.DATA_TYPE_BOOL,
    }
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["seed"]


def test_runs_of_equal_configuration_are_two_rows_with_the_last_totals_of_both_splits(tmp_path):
    for run, offset in (("q1", 0.0), ("q2", 1.0)):
        events = EventFiles(tmp_path / run / "tb")
        events.configuration({"steps": 2})
        for step in (1, 2):
            events.scalars("train", step, {"total": 4.0 + offset - step})
        events.scalars("eval", 2, {"total": 8.0 + offset})
        events.close()

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=[api_pb2.STATUS_UNKNOWN]
    )
    request.allowed_statuses.append(api_pb2.STATUS_RUNNING)
    everything = {
        run: {tag: series.plugin_content for tag, series in tags.items()}
        for run, tags in provider.list_tensors(
            RequestContext(), experiment_id="", plugin_name=metadata.PLUGIN_NAME
        ).items()
    }
    experiment = context.experiment_from_metadata(RequestContext(), "", True, everything, [])
    for info in experiment.metric_infos:
        request.col_params.add(metric=info.name)
    response = list_session_groups.Handler(RequestContext(), context, "", request).run()
    rows = {
        group.name: {(v.name.group, v.name.tag): v.value for v in group.metric_values}
        for group in response.session_groups
    }
    assert rows == {
        os.path.join("q1", "tb"): {("train", "total"): 2.0, ("eval", "total"): 8.0},
        os.path.join("q2", "tb"): {("train", "total"): 3.0, ("eval", "total"): 9.0},
    }


def test_an_image_read_back_has_the_pixels_written(tmp_path):
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    events = EventFiles(tmp_path)
    events.image("heat/terms", 4, pixels)
    events.close()
    (image,) = read(tmp_path / "train").Images("heat/terms")
    assert (image.step, image.height, image.width) == (4, 2, 5)
    np.testing.assert_array_equal(tf.io.decode_png(image.encoded_image_string).numpy(), pixels)


@pytest.mark.parametrize("wrong", [np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.uint8)])
def test_an_image_that_is_not_uint8_rgb_is_an_error(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"expected uint8 \[height, width, 3\]"):
        EventFiles(tmp_path).image("heat", 1, wrong)


# A disk that does not take it


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("method", ["flush", "close"])
def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path, monkeypatch, method):
    record_writer = tf.io.TFRecordWriter
    with monkeypatch.context() as full_disk:
        full_disk.setattr(tf.io, "TFRecordWriter", lambda path: record_writer("/dev/full"))
        events = EventFiles(tmp_path)
        events.scalars("train", 1, {"total": 1.0})
        with pytest.raises(OSError, match=r"train: .*No space left on device.*workdir=None"):
            getattr(events, method)()
    # With room again, the next value goes to a file of its own, which can be read.
    events.scalars("train", 2, {"total": 2.0})
    events.close()
    assert scalars(tmp_path / "train", "total") == {2: 2.0}


def test_a_file_in_the_way_of_the_directory_is_an_os_error(tmp_path):
    (tmp_path / "tb").write_text("")
    with pytest.raises(OSError, match="tb"):
        EventFiles(tmp_path / "tb").scalars("train", 1, {"total": 1.0})
