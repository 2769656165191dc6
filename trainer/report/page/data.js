// Where rows come from, a server or the page itself, and what is computed from them to be drawn.
import { isNumber } from "./dom.js";

async function answer(path, query = []) {
  const parameters = new URLSearchParams(query).toString();
  const response = await fetch(new URL(parameters ? `${path}?${parameters}` : path, document.baseURI));
  const body = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
  if (!response.ok) throw new Error(body.error || `${response.status} ${response.statusText}`);
  return body;
}

export class Server {
  live = true;
  runs = async () => (await answer("runs")).runs;
  about = (run) => answer("about", [["run", run]]);
  compare = async (runs) => (await answer("compare", runs.map((run) => ["run", run]))).fields;
  rows(run, first, last, wide = false) {
    const query = [["run", run]];
    if (isNumber(first)) query.push(["first", Math.floor(first)], ["last", Math.ceil(last)]);
    if (wide) query.push(["wide", 1], ["points", 100]);
    return answer("rows", query);
  }
}

export class Embedded {
  live = false;
  constructor(data) {
    this.data = data;
  }
  runs = async () => this.data.runs;
  about = async (run) => this.data.about[run];
  rows = async (run, first, last, wide) => (wide && this.data.wide[run]) || this.data.rows[run];
  async compare(runs) {
    const chosen = ({ field, values }) => ({ field, values: Object.fromEntries(runs.filter((r) => r in values).map((r) => [r, values[r]])) });
    const differs = ({ values }) => new Set(runs.map((run) => JSON.stringify(values[run]))).size > 1;
    return this.data.compare.map(chosen).filter(differs);
  }
}

// One split of a run: columns of whole rows, with x in steps, examples and seconds.
export class Table {
  constructor(split, columns, start, of = null) {
    this.split = split;
    this.step = columns.step;
    this.time = columns.time;
    this.tags = columns.tags;
    this.count = columns.count;
    this.terms = Object.keys(this.tags).filter((tag) => tag.startsWith("terms/")).map((tag) => tag.slice(6));
    this.seconds = this.time.map((time) => (isNumber(time) ? time - start : null));
    this.examples = of ? this.step.map((step) => interpolated(of.step, of.examples, step)) : this.counted();
  }

  // Examples seen: between two rows as many a step as the later one says.
  counted() {
    const rate = this.column("examples_per_second"), speed = this.column("steps_per_second");
    let sum = 0, before = 0, batch = 1;
    return this.step.map((step, i) => {
      if (rate[i] > 0 && speed[i] > 0) batch = rate[i] / speed[i];
      sum += (step - before) * batch;
      before = step;
      return sum;
    });
  }

  column(tag) {
    return this.tags[tag] || new Array(this.step.length).fill(null);
  }

  xs(unit) {
    return unit === "examples" ? this.examples : unit === "time" ? this.seconds : this.step;
  }

  // The values of an entry (a term, or several folded) in one of the views.
  values(entry, view) {
    const columns = entry.terms.map((name) => this.column(`${view === "raw" ? "raw" : view === "weights" ? "weight" : "terms"}/${name}`));
    const sum = this.step.map((_, i) => {
      const there = columns.map((column) => column[i]).filter(isNumber);
      return there.length ? there.reduce((a, b) => a + b, 0) : null;
    });
    if (view !== "share") return sum;
    const whole = this.whole();
    return sum.map((value, i) => (isNumber(value) && whole[i] > 0 ? value / whole[i] : null));
  }

  // What shares are of: the total, or with terms below zero the sum of all sizes.
  whole() {
    this.sizes ??= this.step.map((_, i) => this.terms.reduce((sum, name) => sum + Math.abs(this.tags[`terms/${name}`][i] || 0), 0));
    return this.sizes;
  }

  hasNegative() {
    return this.terms.some((name) => this.tags[`terms/${name}`].some((value) => value < 0));
  }

  // Place of the row that is nearest to a step; null where there is none.
  at(step) {
    if (!this.step.length) return null;
    let low = 0, high = this.step.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.step[middle] < step) low = middle + 1;
      else high = middle;
    }
    return low > 0 && step - this.step[low - 1] <= this.step[low] - step ? low - 1 : low;
  }

  value(tag, i) {
    return i == null ? null : this.column(tag)[i];
  }
}

function interpolated(xs, ys, x) {
  if (!xs.length) return x;
  let i = xs.findIndex((value) => value >= x);
  if (i < 0) i = xs.length - 1;
  if (xs[i] === x || i === 0) return ys[i] * (xs[i] ? x / xs[i] : 1);
  const part = (x - xs[i - 1]) / (xs[i] - xs[i - 1]);
  return ys[i - 1] + part * (ys[i] - ys[i - 1]);
}

export function tables(answer) {
  const { train, eval: evaluation } = answer.splits;
  const times = [train.time[0], evaluation.time[0]].filter(isNumber);
  const start = answer.start ?? (times.length ? Math.min(...times) : 0);
  const of = new Table("train", train, start);
  return { train: of, eval: new Table("eval", evaluation, start, of), start };
}

// The mean of what came before, weighed less the longer ago; null stays null.
export function smoothed(values, weight) {
  let mean = 0, mass = 0;
  return values.map((value) => {
    if (!isNumber(value)) return null;
    mean = weight * mean + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return mean / mass;
  });
}

// Where something happened: {x, label, kind}.
export function marksOf(table, about, unit) {
  const xs = table.xs(unit), marks = [];
  const place = (step) => (unit === "step" ? step : xs[table.at(step)]);
  (about?.starts || []).forEach((start) => {
    if (isNumber(start.resumed_from)) marks.push({ x: place(start.resumed_from), kind: "start", short: "restored", label: `restored to step ${start.resumed_from}, ${start.time}` });
  });
  table.column("skipped_steps").forEach((count, i) => {
    if (count > 0) marks.push({ x: xs[i], kind: "skipped", label: `${count} steps skipped as not finite, up to step ${table.step[i]}` });
  });
  let before = null;
  table.column("phase").forEach((phase, i) => {
    if (phase != null && phase !== before && i) marks.push({ x: xs[i], kind: "phase", short: phase, label: `phase ${phase}` });
    before = phase ?? before;
  });
  return marks;
}
