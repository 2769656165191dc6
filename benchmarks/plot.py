"""The results as one picture: bars for contests, curves for what is scaled."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no window

from matplotlib import pyplot

from benchmarks.ratios import ratios

COLUMNS = 3


def draw(results: dict[str, dict], file: Path) -> None:
    """One panel for each benchmark: the median ratio, with the spread over the rounds.

    A dot is the ratio of the best rounds, a diamond or a dashed line that of processor time.
    """
    results = {name: one for name, one in results.items() if one["references"]}
    rows = -(-len(results) // COLUMNS)
    figure, grid = pyplot.subplots(
        rows, COLUMNS, figsize=(6.5 * COLUMNS, 2.9 * rows), squeeze=False, layout="constrained"
    )
    for panel in grid.flat[len(results) :]:
        panel.set_axis_off()
    for panel, (name, result) in zip(grid.flat, results.items(), strict=False):
        found = ratios(result)
        spread = [
            [max(0.0, one.median - one.low) for one in found],
            [max(0.0, one.high - one.median) for one in found],
        ]
        medians = [one.median for one in found]
        if result.get("axis"):
            points = [result["points"][one.label] for one in found]
            panel.errorbar(points, medians, spread, marker="o", color="tab:blue", capsize=3)
            cpu = [(point, one.cpu) for point, one in zip(points, found, strict=True) if one.cpu]
            if cpu:
                panel.plot(*zip(*cpu, strict=True), "k--", label="processor time")
                panel.legend(fontsize=8)
            panel.set_xscale("log", base=2)
            panel.set_xticks(points, [f"{point:g}" for point in points])
            panel.set_xlabel(result["axis"])
            panel.set_ylim(bottom=0)
            panel.axhline(1, color="gray", linewidth=1)
        else:
            colours = ["tab:blue" if "Termwise" in one.label else "silver" for one in found]
            places = range(len(found))
            panel.barh(places, medians, xerr=spread, color=colours, ecolor="gray", capsize=3)
            panel.plot([one.best for one in found], places, "k.")
            panel.plot([one.cpu or float("nan") for one in found], places, "kd", fillstyle="none")
            panel.set_yticks(places, [one.label for one in found])
            panel.invert_yaxis()
            panel.axvline(1, color="gray", linewidth=1)
        word = "less is better" if result["lower_is_better"] else "more is better"
        panel.set_title(f"{name}: {result['title']}\nratio to the reference, {word}", fontsize=9)
        panel.tick_params(labelsize=8)
    figure.savefig(file, dpi=80)
    pyplot.close(figure)
