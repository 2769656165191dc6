"""Makes the pictures of docs/balancing.md, and the tables below them, from runs.

    python docs/make_balancing_page.py

Takes two to three minutes on two CPU cores and needs matplotlib: `pip install "termwise[bench]"`.
Two problems with two terms in the plane, whose Pareto sets are known: two quadratics, and the toy
problem of Nash-MTL. Every method starts from the same points.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from losses import balancing  # noqa: E402

PAGE = ROOT / "docs" / "balancing.md"
PICTURES = ROOT / "docs" / "balancing"
ROUNDING = 1e-12  # a smaller distance differs from machine to machine

METHODS = {
    "equal weights": None,
    "PCGrad": balancing.PCGrad(),
    "CAGrad": balancing.CAGrad(),
    "MGDA": balancing.MGDA(),
    "UPGrad": balancing.UPGrad(),
    "NashMTL": balancing.NashMTL(),
    "FairGrad": balancing.FairGrad(alpha=1.0),
}


class Problem(NamedTuple):
    """Two terms in the plane.

    Attributes:
      values: float64 [2] -> float64 [2], the terms.
      starts: float [starts, 2].
      pareto: float [points, 2], the Pareto set, in order and densely.
      steps, rate: of a run; the rate falls to 0 along a cosine.
      adam: whether the direction goes through Adam's moments, as in the paper, or is the step.
      box: ((left, right), (bottom, top)) of the picture.
    """

    values: Callable
    starts: np.ndarray
    pareto: np.ndarray
    steps: int
    rate: float
    adam: bool
    box: tuple


A, B, SCALE = np.array([-1.0, 0.0]), np.array([1.0, 0.5]), 10.0


def quadratics(w):
    """|w - a|² and 10 |w - b|²; no point off the segment from a to b is Pareto-optimal."""
    return tf.stack([tf.reduce_sum((w - A) ** 2), SCALE * tf.reduce_sum((w - B) ** 2)])


def toy(w):
    """Two valleys above (t2 > 0), two paraboloids below; the first term is a tenth as large."""
    t1, t2 = tf.unstack(w)
    least = tf.constant(5e-6, tf.float64)
    valley1 = tf.math.log(tf.maximum(tf.abs(0.5 * (-t1 - 7) - tf.tanh(-t2)), least)) + 6
    valley2 = tf.math.log(tf.maximum(tf.abs(0.5 * (-t1 + 3) + tf.tanh(-t2) + 2), least)) + 6
    bowl1 = ((t1 - 7) ** 2 + 0.1 * (t2 + 8) ** 2) / 10 - 20
    bowl2 = ((t1 + 7) ** 2 + 0.1 * (t2 + 8) ** 2) / 10 - 20
    # tf.maximum has a derivative where both are equal, tf.nn.relu has none: one run starts there
    zero = tf.constant(0.0, tf.float64)
    above, below = tf.maximum(tf.tanh(t2 / 2), zero), tf.maximum(tf.tanh(-t2 / 2), zero)
    return tf.stack([0.1 * (above * valley1 + below * bowl1), above * valley2 + below * bowl2])


def toy_pareto(points: int = 20_001):
    """[points, 2], the Pareto set of the toy problem: one t2 for each t1 from -7 to 7.

    Below, the derivatives by t1 cancel for the weights (7 + t1) / 14 and (7 - t1) / 14 of the
    unscaled terms. Their mean of the bowls is m = (49 - t1² + 0.1 (t2 + 8)²) / 10 - 20, and that
    of the derivatives by t2 is  -m / (2 cosh²(t2 / 2)) + tanh(-t2 / 2) (t2 + 8) / 50 = 0,
    which bisection solves: it is negative at -12 and positive at -8.
    """
    t1 = np.linspace(-7.0, 7.0, points)
    low, high = np.full(points, -12.0), np.full(points, -8.0)
    for _ in range(60):
        t2 = (low + high) / 2
        mean = (49 - t1**2 + 0.1 * (t2 + 8) ** 2) / 10 - 20
        slope = -mean / (2 * np.cosh(t2 / 2) ** 2) + np.tanh(-t2 / 2) * (t2 + 8) / 50
        low, high = np.where(slope < 0, t2, low), np.where(slope < 0, high, t2)
    return np.stack([t1, (low + high) / 2], axis=1)


PROBLEMS = {
    "quadratics": Problem(
        quadratics,
        np.array([[-1.5, 1.5], [0.0, -1.2], [1.6, -0.8], [-0.4, 1.6], [1.5, 1.6]]),
        A + np.linspace(0, 1, 2001)[:, None] * (B - A),
        steps=2_000,
        rate=0.02,
        adam=False,
        box=((-2.0, 2.0), (-1.5, 2.0)),
    ),
    "toy": Problem(
        toy,
        np.array([[-8.5, 7.5], [0.0, 0.0], [9.0, 9.0], [-7.5, -0.5], [9.0, -1.0]]),
        toy_pareto(),
        steps=100_000,
        rate=2e-3,
        adam=True,
        box=((-11.0, 11.0), (-11.0, 11.0)),
    ),
}


def run(problem: Problem, balancer, kept: int = 500) -> list[np.ndarray]:
    """[kept + 1, 2] for each start: the points after equally many steps, from start to end."""
    every = problem.steps // kept

    @tf.function(jit_compile=True)
    def steps(w, mean, square, first):
        def one(state, step):
            w, mean, square = state
            with tf.GradientTape() as tape:
                tape.watch(w)
                values = problem.values(w)
            jacobian = tape.jacobian(values, w, experimental_use_pfor=False)
            if balancer is None:
                direction = tf.reduce_sum(jacobian, axis=0)
            else:
                direction = balancer.direction(jacobian, values=values, step=step)
            count = tf.cast(step, tf.float64)
            rate = problem.rate * 0.5 * (1 + tf.cos(np.pi * count / problem.steps))
            if problem.adam:
                mean = 0.9 * mean + 0.1 * direction
                square = 0.999 * square + 0.001 * direction**2
                first_moment = mean / (1 - 0.9 ** (count + 1))
                second_moment = square / (1 - 0.999 ** (count + 1))
                direction = first_moment / (tf.sqrt(second_moment) + 1e-8)
            return w - rate * direction, mean, square

        def body(k, *state):
            return k + 1, *one(state, first + k)

        return tf.while_loop(lambda k, *_: k < every, body, (0, w, mean, square))[1:]

    paths = []
    for start in problem.starts:
        w = tf.constant(start, tf.float64)
        state, points = (w, tf.zeros_like(w), tf.zeros_like(w)), [start]
        for k in range(kept):
            state = steps(*state, tf.constant(k * every))
            points.append(state[0].numpy())
        paths.append(np.stack(points))
    return paths


def distance(points, curve) -> np.ndarray:
    """[points], the distance of each to a curve of short straight pieces [pieces + 1, 2]."""
    begin, along = curve[:-1], np.diff(curve, axis=0)
    offset = np.asarray(points)[:, None, :] - begin
    share = np.clip((offset * along).sum(-1) / (along**2).sum(-1), 0, 1)[..., None]
    return np.linalg.norm(offset - share * along, axis=-1).min(axis=1)


def measured(runs: dict, problem: Problem) -> str:
    """A Markdown table: each method's farthest end point, and where on the set its runs end."""
    lines = ["| method | largest distance | ends at first coordinates |", "|---|---|---|"]
    for method, paths in runs.items():
        ends = np.stack([path[-1] for path in paths])
        farthest = distance(ends, problem.pareto).max()
        places = ", ".join(f"{x + 0:.2f}" for x in ends[:, 0].round(2)).replace("-", "−")
        shown = f"{farthest:.2g}" if farthest >= ROUNDING else f"below {ROUNDING:.0e}"
        lines.append(f"| {method} | {shown} | {places} |")
    return "\n".join(lines)


def picture(name: str, problem: Problem, runs: dict) -> None:
    """Writes one picture: a panel per method, over the level lines of the terms' sum."""
    from matplotlib.figure import Figure
    from PIL import Image

    (left, right), (bottom, top) = problem.box
    x, y = np.meshgrid(np.linspace(left, right, 60), np.linspace(bottom, top, 60))
    plane = tf.constant(np.stack([x.ravel(), y.ravel()], axis=1))
    heights = tf.reduce_sum(tf.map_fn(problem.values, plane), axis=1).numpy().reshape(x.shape)
    figure = Figure(figsize=(8, 4.3), layout="constrained")
    panels = figure.subplots(2, 4).ravel()
    for panel, (method, paths) in zip(panels, runs.items(), strict=False):
        panel.contour(x, y, heights, levels=12, colors="0.85", linewidths=0.5)
        panel.plot(*problem.pareto.T, color="0.45", linewidth=3, label="Pareto set")
        for path in paths:
            panel.plot(*path.T, color="tab:blue", linewidth=0.9)
        starts, ends = (np.stack([path[k] for path in paths]) for k in (0, -1))
        panel.plot(*starts.T, "o", color="tab:blue", markersize=3, label="start")
        panel.plot(*ends.T, "o", color="tab:red", markersize=4, label="end")
        panel.set(title=method, xlim=problem.box[0], ylim=problem.box[1], xticks=[], yticks=[])
        panel.title.set_fontsize(9)
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles, labels, loc="center", fontsize=8, frameon=False)
    for panel in panels[len(runs) :]:
        panel.axis("off")
    PICTURES.mkdir(exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    few_colours = Image.open(drawn).convert("P", palette=Image.Palette.ADAPTIVE, colors=32)
    few_colours.save(PICTURES / f"{name}.png", optimize=True)


def with_table(page: str, name: str, table: str) -> str:
    """The page with a table between its two marks."""
    marks = re.compile(rf"(<!-- runs: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marks.search(page):
        raise ValueError(f"{PAGE.name} has no '<!-- runs: {name} -->' with '<!-- end -->' after.")
    return marks.sub(lambda found: f"{found[1]}{table}\n{found[2]}", page)


def main() -> None:
    """Runs every method on both problems; writes the pictures and the page's tables."""
    page = PAGE.read_text(encoding="utf-8")
    for name, problem in PROBLEMS.items():
        runs = {method: run(problem, balancer) for method, balancer in METHODS.items()}
        picture(name, problem, runs)
        page = with_table(page, name, measured(runs, problem))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
