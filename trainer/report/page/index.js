// The page: what is chosen on the left, the objective as a stack, the ledger at a step, and the rest.
import { button, choice, element, isNumber, shown, shownSeconds } from "./dom.js";
import { Plot, tickText } from "./plot.js";
import { Colours, fold } from "./terms.js";
import { Embedded, Server, marksOf, smoothed, tables } from "./data.js";
import { followTheme, load, save } from "./state.js";
import { comparison, heatMap, hintList, ledger } from "./tables.js";
import { saveCsv, savePng } from "./saving.js";

const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 2], [1, 2]];
const INKS = ["var(--run0)", "var(--run1)", "var(--run2)", "var(--run3)"];
const VIEWS = [["stack", "stack"], ["share", "share"], ["lines", "lines"], ["raw", "raw"], ["weights", "weights"]];
const UNITS = [["step", "steps"], ["examples", "examples"], ["time", "time"]];
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const EVERY = 2000; // milliseconds between two looks at runs that are being written
const MOST_CHARTS = 12;

class Page {
  constructor(root, source) {
    Object.assign(this, { root, source, state: load(), colours: new Colours(), data: new Map(), runs: [], plots: new Map(), fields: [] });
    this.frame();
    this.note = element("p", { class: "note", role: "status", hidden: true });
    this.figures = element("div", { class: "figures" });
    this.panels = element("div", { class: "panels" });
    this.main = element("main", {}, this.bar, this.note, this.figures, this.panels);
    root.replaceChildren(this.aside, this.main);
    root.addEventListener("theme", () => this.draw());
    this.retheme = followTheme(root, () => this.state.theme);
  }

  // What stays while the rest is drawn anew: a box that is typed in, a slider that is moved.
  frame() {
    const box = (label, oninput) => {
      const made = element("input", { type: "search", placeholder: label, "aria-label": label });
      made.oninput = () => oninput(made.value);
      return made;
    };
    this.findRun = box("search runs", () => this.draw());
    this.find = box("search terms", (find) => this.set({ find }));
    this.find.value = this.state.find;
    this.smooth = element("input", { type: "range", min: "0", max: "0.95", step: "0.05", "aria-label": "smoothing" });
    this.smooth.value = this.state.smooth;
    this.smooth.oninput = () => this.set({ smooth: this.smooth.value });
    this.smoothText = element("span");
    [this.runHead, this.termHead] = [element("h2"), element("h2")];
    [this.runList, this.termList] = [element("ul", { class: "runs" }), element("ul", { class: "terms" })];
    this.tools = element("div");
    this.aside = element("aside", { "aria-label": "runs and terms" }, element("h1", {}, "Termwise"),
      this.runHead, this.findRun, this.runList, this.termHead, this.find, this.termList, this.tools);
    [this.before, this.behind] = [element("span", { class: "parts" }), element("span", { class: "parts" })];
    this.bar = element("div", { class: "bar", role: "toolbar", "aria-label": "view" }, this.before,
      element("label", { class: "choice" }, this.smoothText, this.smooth), this.behind);
  }

  async start() {
    await this.look();
    if (this.source.live) {
      const again = async () => {
        if (!document.hidden) await this.look();
        setTimeout(again, this.reading ? 150 : EVERY);
      };
      setTimeout(again, this.reading ? 150 : EVERY);
    }
  }

  // Reads what is new, and draws it.
  async look() {
    try {
      const before = JSON.stringify(this.runs);
      this.runs = await this.source.runs();
      this.runs.forEach((run) => this.colours.learn(run.terms));
      const names = new Set(this.runs.map((run) => run.name));
      this.state.runs = this.state.runs.filter((name) => names.has(name));
      if (!this.state.runs.length && this.runs.length) {
        const newest = [...this.runs].sort((a, b) => b.changed - a.changed)[0];
        this.state.runs = this.source.live ? [newest.name] : this.runs.map((run) => run.name);
      }
      if (this.state.runs.some((name) => !this.data.has(name))) this.draw();
      const changed = await this.fetch();
      this.looked = true;
      if (changed || before !== JSON.stringify(this.runs) || this.problem) {
        this.problem = null;
        this.draw();
      }
    } catch (error) {
      this.problem = error.message;
      this.draw();
    }
  }

  async fetch() {
    let changed = false;
    this.reading = false;
    await Promise.all(this.state.runs.map(async (name) => {
      const run = this.runs.find((other) => other.name === name), old = this.data.get(name);
      const stamp = `${run.bytes} ${run.changed} ${run.done}`;
      if (old && old.stamp === stamp && old.answer.complete) return;
      const [answer, about] = await Promise.all([this.source.rows(name), this.source.about(name)]);
      this.colours.learn(tables(answer).train.terms);
      this.data.set(name, { ...tables(answer), answer, about, stamp, zoomed: null, wide: null });
      this.reading ||= !answer.complete;
      changed = true;
    }));
    const key = this.state.runs.join("\n");
    if (this.compared !== key) {
      this.fields = this.state.runs.length > 1 ? await this.source.compare(this.state.runs) : [];
      this.compared = key;
      changed = true;
    }
    if (changed) await this.fetchZoom();
    return changed;
  }

  // Within a zoom all rows are asked for again: those that were left out are drawn there.
  async fetchZoom() {
    const { from, to } = this.state;
    await Promise.all(this.chosen().map(async ({ data, name }) => {
      data.zoomed = null;
      if (!this.source.live || from === "" || data.answer.splits.train.count <= data.train.step.length) return;
      const steps = [from, to].map((x) => this.stepAt(data.train, Number(x)));
      const margin = (steps[1] - steps[0]) * 0.02 + 1;
      const answer = await this.source.rows(name, Math.max(0, steps[0] - margin), steps[1] + margin);
      data.zoomed = tables({ ...answer, start: data.start });
    }));
  }

  stepAt(table, x) {
    if (this.state.x === "step") return x;
    const xs = table.xs(this.state.x);
    let i = xs.findIndex((value) => value >= x);
    if (i < 0) i = xs.length - 1;
    if (i <= 0) return table.step[0] ?? 0;
    return table.step[i - 1] + ((x - xs[i - 1]) / (xs[i] - xs[i - 1])) * (table.step[i] - table.step[i - 1]);
  }

  chosen() {
    return this.state.runs.map((name, i) => ({ name, letter: LETTERS[i % 26], dash: DASHES[i % DASHES.length], ink: INKS[i % INKS.length], data: this.data.get(name) })).filter((run) => run.data);
  }

  table(run, split = this.state.split === "eval" ? "eval" : "train") {
    return (run.data.zoomed || run.data)[split];
  }

  async set(changes, refetch = false) {
    Object.assign(this.state, changes);
    save(this.state);
    this.draw();
    if (refetch) {
      try {
        await ("runs" in changes ? this.fetch() : this.fetchZoom());
      } catch (error) {
        this.problem = error.message;
      }
      this.draw();
    }
  }

  entries(terms) {
    const sizes = new Map();
    for (const { data } of this.chosen()) {
      for (const name of data.train.terms) {
        const column = data.train.tags[`terms/${name}`], there = column.filter(isNumber);
        sizes.set(name, Math.max(sizes.get(name) || 0, there.reduce((sum, v) => sum + Math.abs(v), 0) / (there.length || 1)));
      }
    }
    return fold(terms, new Set(this.state.open), sizes);
  }

  terms() {
    const names = new Set(this.chosen().flatMap((run) => [...run.data.train.terms, ...run.data.eval.terms]));
    return [...names];
  }

  isActive(entry) {
    const { only, find } = this.state, low = find.toLowerCase();
    return (!only.length || entry.terms.some((name) => only.includes(name))) && (!low || entry.terms.some((name) => name.toLowerCase().includes(low)));
  }

  toggle(group) {
    const { open } = this.state;
    this.set({ open: open.includes(group) ? open.filter((other) => other !== group) : [...open, group] });
  }

  step(run) {
    const table = this.table(run);
    return this.state.step === "" ? table.step.at(-1) : Number(this.state.step);
  }

  draw() {
    const focus = document.activeElement?.closest?.("[data-key]")?.dataset.key;
    const chosen = this.chosen();
    this.all = this.terms();
    this.drawn = this.entries(this.all);
    this.colours.arrange(this.drawn.map((entry) => entry.name));
    this.drawAside();
    this.drawBar();
    this.drawNote(chosen);
    this.drawFigures(chosen);
    this.drawPanels(chosen);
    if (focus && document.activeElement === document.body) this.root.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  }

  drawAside() {
    const { state } = this;
    const keyed = (made, key) => (made.dataset.key = key, made);
    const named = (run) => run.name.toLowerCase().includes(this.findRun.value.toLowerCase());
    const runs = this.runs.filter(named).slice(0, 300).map((run) => {
      const place = state.runs.indexOf(run.name);
      const box = keyed(element("input", { type: "checkbox", checked: place >= 0 }), `run ${run.name}`);
      box.onchange = () => this.set({ runs: box.checked ? [...state.runs, run.name] : state.runs.filter((name) => name !== run.name), step: "", ref: "", from: "", to: "" }, true);
      return element("li", {}, element("label", { title: run.name }, box, place >= 0 && state.runs.length > 1 ? element("b", { class: "letter", style: { color: INKS[place % INKS.length] } }, LETTERS[place % 26]) : null,
        element("span", {}, run.name), run.done ? null : element("small", { title: "no DONE.json: it runs, or was stopped" }, "open")));
    });
    const low = state.find.toLowerCase();
    const seen = this.entries(this.all).filter((entry) => !low || entry.terms.some((name) => name.toLowerCase().includes(low)));
    const groups = new Set();
    const items = seen.flatMap((entry) => {
      const lines = [], opened = entry.group && state.open.includes(entry.group);
      if (opened && !groups.has(entry.group)) lines.push(element("li", { class: "group" }, keyed(button(`▾ ${entry.group}`, null, () => this.toggle(entry.group), "fold"), `fold ${entry.group}`)));
      groups.add(entry.group);
      const { colour, cycle } = this.colours.of(entry.name);
      const isolated = state.only.length > 0 && entry.terms.every((name) => state.only.includes(name));
      const pick = keyed(element("button", { type: "button", class: "term", "aria-pressed": String(isolated), title: `${entry.name}: show alone` }, element("i", { class: `swatch c${cycle}`, style: { "--colour": colour } }),
        element("span", {}, opened && entry.group.endsWith("/*") ? entry.name.slice(entry.group.length - 1) : entry.name)), `term ${entry.name}`);
      pick.onclick = () => this.set({ only: isolated ? state.only.filter((name) => !entry.terms.includes(name)) : [...new Set([...state.only, ...entry.terms])] });
      const many = entry.terms.length > 1 || entry.group === "others";
      const unfold = many ? keyed(button(`▸ ${entry.terms.length}`, null, () => this.toggle(entry.group), "unfold"), `fold ${entry.group}`) : null;
      return [...lines, element("li", { class: `${this.isActive(entry) ? "" : "faint"}${opened ? " inner" : ""}` }, pick, unfold)];
    });
    this.runHead.textContent = `Runs (${this.runs.length})`;
    this.termHead.textContent = `Terms (${this.all.length})`;
    this.findRun.hidden = this.runs.length <= 8;
    this.find.hidden = this.all.length <= 8 && !state.find;
    this.runList.replaceChildren(...runs);
    this.termList.replaceChildren(...items);
    this.tools.replaceChildren(...[
      state.only.length ? button("show all terms", null, () => this.set({ only: [] })) : null,
      element("div", { class: "group" }, button("PNG", null, () => savePng(this), "what is drawn, as a picture"), button("CSV", null, () => saveCsv(this), "what is drawn, as a table")),
      choice("theme", state.theme, [["", "as here"], ["light", "light"], ["dark", "dark"]], (theme) => { this.set({ theme }); this.retheme(); }),
    ].filter(Boolean));
  }

  drawBar() {
    const { state } = this, one = state.runs.length < 2;
    const group = (label, options, name, changes = {}, refetch = false) => element("span", { class: "group", role: "group", "aria-label": label },
      options.map(([key, text]) => {
        const made = button(text, state[name] === key, () => this.set({ [name]: key, ...changes }, refetch));
        made.dataset.key = `${name} ${key}`;
        return made;
      }));
    const flag = (name, text) => {
      const made = button(text, !!state[name], () => this.set({ [name]: state[name] ? "" : "1" }));
      made.dataset.key = name;
      return made;
    };
    this.smoothText.textContent = `smooth ${Number(state.smooth) || "off"}`;
    this.before.replaceChildren(
      group("view", VIEWS, "view"), group("rows", [["both", "train + eval"], ["train", "train"], ["eval", "eval"]], "split"),
      group("x axis", UNITS, "x", { from: "", to: "" }, true), element("span", { class: "group" }, flag("logx", "log x"), flag("logy", "log y")));
    this.behind.replaceChildren(...(one ? [] : [group("runs", [["side", "side by side"], ["over", "overlaid"]], "layout")]));
  }

  drawNote(chosen) {
    const notes = [];
    if (this.problem) notes.push(this.problem);
    if (chosen.length < this.state.runs.length || (!this.looked && !this.problem)) notes.push("Reading …");
    if (!this.runs.length && this.looked && !this.problem) notes.push("No runs here yet: a run is a folder with metrics.jsonl. fit(workdir=...) writes one.");
    for (const { name, data } of chosen) {
      const { answer, about, train } = data;
      if (!answer.complete) notes.push(`${name}: ${Math.floor((100 * answer.read) / answer.size)} % of its rows are read so far.`);
      if (answer.damaged) notes.push(`${name}: ${answer.damaged} lines of metrics.jsonl hold no row and are left out.`);
      if (about.events_only) notes.push(`${name}: only event files. Missing: ${about.missing.join("; ")}.`);
      else if (about.missing.length) notes.push(`${name}: not drawn: ${about.missing.join("; ")}.`);
      if (!train.step.length && !data.eval.step.length && answer.complete) notes.push(`${name}: no rows yet.`);
      if (train.count > train.step.length) notes.push(`${name}: ${train.step.length} of ${train.count} rows are drawn, each whole${this.source.live ? "; zoom in for more" : ""}.`);
      if (this.state.view === "share" && train.hasNegative()) notes.push(`${name}: some terms are below zero; shares are of the sum of all sizes.`);
      if (this.state.logy && train.hasNegative() && this.state.view !== "weights") notes.push(`${name}: values below zero are not drawn on a logarithmic axis.`);
    }
    this.note.replaceChildren(...notes.map((note) => element("span", {}, note)));
    this.note.hidden = !notes.length;
  }

  // The plot of a key, made once: it keeps the focus and the pointer.
  plot(key, height, seen) {
    seen.add(key);
    if (!this.plots.has(key)) {
      this.plots.set(key, new Plot(key, height, {
        pick: (x, reference) => this.pick(x, reference),
        step: (count, reference) => this.move(count, reference),
        zoom: (from, to) => this.set(from == null ? { from: "", to: "" } : { from: String(from), to: String(to) }, true),
      }));
      this.plots.get(key).canvas.dataset.key = key;
    }
    return this.plots.get(key);
  }

  pick(x, reference) {
    const run = this.chosen()[0];
    if (!run) return;
    const table = this.table(run), xs = table.xs(this.state.x);
    if (!xs.length) return;
    const i = xs.reduce((best, value, at) => (Math.abs(value - x) < Math.abs(xs[best] - x) ? at : best), 0);
    this.set({ [reference ? "ref" : "step"]: String(table.step[i]) });
  }

  move(count, reference) {
    const run = this.chosen()[0];
    if (!run) return;
    const table = this.table(run), name = reference ? "ref" : "step";
    const at = table.at(this.state[name] === "" ? this.step(run) : Number(this.state[name]));
    if (at == null) return;
    const i = Math.min(Math.max(at + count, 0), table.step.length - 1);
    this.set({ [name]: String(table.step[i]) });
  }

  axis() {
    const { x, logx, from, to } = this.state;
    const text = x === "time" ? (value) => shownSeconds(value) : undefined;
    return { time: x === "time", log: !!logx, from: from === "" ? undefined : Number(from), to: to === "" ? undefined : Number(to), text };
  }

  cursor(run) {
    const table = this.table(run), place = (step) => (step === "" ? null : table.xs(this.state.x)[table.at(Number(step))]);
    return { cursor: place(this.state.step), reference: place(this.state.ref) };
  }

  layersOf(run, index) {
    const { view, split, smooth, layout } = this.state, stack = view === "stack" || view === "share", layers = [];
    const single = this.chosen().length < 2, over = layout === "over" && !single;
    for (const name of split === "both" ? ["train", "eval"] : [split]) {
      const table = this.table(run, name), xs = table.xs(this.state.x), evaluation = name === "eval";
      if (!xs.length) continue;
      const prefix = `${over ? `${run.letter} ` : ""}${evaluation ? "eval " : ""}`;
      const title = (i) => `${single ? "" : `${run.letter}  `}step ${table.step[i]}`;
      const line = (values, more) => layers.push({ kind: "line", xs, values, title, dots: evaluation, dash: over ? run.dash : evaluation ? [5, 4] : [], ...more });
      const soft = (values, more) => {
        if (Number(smooth)) line(values, { ...more, faint: true });
        line(Number(smooth) ? smoothed(values, Number(smooth)) : values, more);
      };
      const there = this.drawn.filter((entry) => entry.terms.some((term) => table.tags[`terms/${term}`]));
      const total = view === "share" ? null : table.column("total");
      if (stack && (split !== "both" || !evaluation) && !(over && index)) {
        const bands = there.map((entry) => ({ name: entry.name, values: table.values(entry, view), ...this.colours.of(entry.name), faint: !this.isActive(entry) }));
        layers.push({ kind: "stack", xs, bands, total, title, totalName: `${prefix}total` });
        if (total && Number(smooth)) line(smoothed(total, Number(smooth)), { name: "smoothed total", colour: "#d55e00", width: 2.2, dash: [] });
      } else if (stack) {
        if (total) soft(total, { name: `${prefix}total`, colour: over ? this.ink(run) : undefined, width: 1.8 });
      } else {
        const lines = view === "lines" ? there : there.flatMap((entry) => (entry.terms.length > 1 && this.state.only.length ? entry.terms.map((term) => ({ ...entry, name: term, terms: [term] })) : [entry]));
        for (const entry of lines) if (this.isActive(entry)) soft(table.values(entry, view), { name: `${prefix}${entry.name}`, colour: this.colours.of(entry.name).colour });
        if (view === "lines" && !this.state.only.length && !this.state.find) soft(total, { name: `${prefix}total`, width: 2.2 });
      }
    }
    return layers;
  }

  ink(run) {
    return getComputedStyle(this.root).getPropertyValue(run.ink.slice(4, -1)).trim();
  }

  drawFigures(chosen) {
    const { view, layout, logy } = this.state, seen = new Set(), y = { log: !!logy, text: view === "share" ? (v) => `${Number((100 * v).toPrecision(4))} %`.replace("-", "−") : undefined };
    const title = { stack: "weighted terms, total on top", share: "share of the total", lines: "weighted terms", raw: "raw values", weights: "weights" }[view];
    const spec = (runs) => ({
      x: this.axis(), y, layers: runs.flatMap((run) => this.layersOf(run, chosen.indexOf(run))), ...this.cursor(runs[0]),
      marks: runs.flatMap((run) => marksOf(this.table(run), run.data.about, this.state.x)),
      label: `${title} of ${runs.map((run) => run.name).join(", ")}; arrow keys choose a step, plus and minus zoom`,
    });
    const sets = chosen.length > 1 && layout === "side" ? chosen.map((run) => [run]) : chosen.length ? [chosen] : [];
    const shown = sets.map((runs, i) => {
      const plot = this.plot(`main ${i}`, sets.length > 1 ? 300 : 380, seen);
      const caption = element("figcaption", {}, runs.map((run) => element("span", {}, chosen.length > 1 ? element("b", { class: "letter", style: { color: run.ink } }, run.letter) : null,
        runs.length > 1 ? element("i", { class: "dash", style: { "border-top-style": ["solid", "dashed", "dotted"][chosen.indexOf(run) % 3] } }) : null, chosen.length > 1 ? ` ${run.name}` : run.name)), element("span", { class: "quiet" }, title),
        i || this.state.from === "" ? null : button("whole run", null, () => this.set({ from: "", to: "" }, true)));
      plot.figure.querySelector("figcaption")?.remove();
      plot.figure.prepend(caption);
      return [plot, spec(runs)];
    });
    this.replace(this.figures, shown.map(([plot]) => plot.figure));
    this.figures.classList.toggle("side", shown.length > 1);
    for (const [plot, of] of shown) plot.show(of);
    if (shown.length > 1) { // one scale for all
      const low = Math.min(...shown.map(([plot]) => plot.y[0])), high = Math.max(...shown.map(([plot]) => plot.y[1]));
      for (const [plot, of] of shown) plot.show({ ...of, y: { ...y, from: low, to: high } });
    }
    this.main_plots = shown.map(([plot]) => plot);
    this.seen = seen;
  }

  replace(parent, children) {
    if (parent.children.length === children.length && children.every((child, i) => parent.children[i] === child)) return;
    parent.replaceChildren(...children);
  }

  section(title, ...content) {
    return element("section", {}, element("h2", {}, title), content);
  }

  drawPanels(chosen) {
    const parts = [];
    this.panels.classList.toggle("one", chosen.length < 2);
    for (const run of chosen) parts.push(this.ledgerOf(run, chosen.length > 1));
    parts.push(...chosen.map((run) => this.section(chosen.length > 1 ? `${run.letter}: what is off` : "What is off", hintList(run.data.about.hints, (names) => this.set({ only: this.all.filter((name) => names.some((n) => n === name || (n.endsWith("/*") && name.startsWith(n.slice(0, -1))))) })))));
    if (chosen.length > 1) parts.push(element("section", { class: "wide" }, comparison(this.fields, chosen.map((run) => ({ ...run, table: run.data.train })), this.all, this.colours)));
    parts.push(...chosen.map((run) => this.gradients(run, chosen.length > 1)).filter(Boolean));
    const charts = element("section", { class: "wide" }, this.charts(chosen));
    this.panels.replaceChildren(...parts, charts);
    for (const [key, plot] of this.plots) if (!this.seen.has(key)) this.plots.delete(key), plot.figure.remove();
    for (const [plot, spec] of this.pending) plot.show(spec);
  }

  ledgerOf(run, many) {
    const table = this.table(run), at = table.at(this.step(run));
    if (at == null) return this.section("Ledger", element("p", { class: "quiet" }, "No rows yet."));
    const against = this.state.ref === "" ? null : table.at(Number(this.state.ref));
    const origins = new Map(many ? [] : (run.data.about.starts || []).flatMap((start) => (start.terms || []).map((term) => [term.name, term])));
    const select = element("input", { type: "number", value: table.step[at], "aria-label": "step", "data-key": `step ${run.name}` });
    select.onchange = () => this.set({ step: String(table.step[table.at(Number(select.value))]) });
    const bar = element("p", { class: "quiet" }, `${many ? `${run.letter}  ` : ""}${table.split}, step `, select,
      against == null ? " · click the chart or press ← →; shift-click chooses a second step" : ` against step ${table.step[against]} `,
      against == null ? null : button("clear", null, () => this.set({ ref: "" })));
    const made = this.section(many ? `${run.letter}: ledger` : "Ledger", bar, element("div", { class: "scroll" },
      ledger({ table, at, against, entries: this.drawn.filter((e) => e.terms.some((name) => table.tags[`terms/${name}`])), colours: this.colours, origins, toggle: (group) => this.toggle(group) })));
    made.dataset.run = run.name;
    return made;
  }

  // Cosines of the row at or before the step: most rows measure none.
  gradients(run, many) {
    const table = run.data.train, names = table.terms.filter((name) => table.column(`grad_norm/${name}`).some(isNumber));
    if (!names.length) return null;
    if (!run.data.wide) {
      run.data.wide = table;
      this.source.rows(run.name, null, null, true).then((answer) => {
        run.data.wide = tables(answer).train;
        this.draw();
      }, () => {});
    }
    const wide = run.data.wide, pairs = Object.keys(wide.tags).filter((tag) => tag.startsWith("grad_cosine/"));
    let at = wide.at(this.step(run));
    const measured = (i) => pairs.some((pair) => isNumber(wide.tags[pair][i]));
    while (at > 0 && !measured(at)) at--;
    const cosine = (a, b) => wide.value(`grad_cosine/${a}:${b}`, at) ?? wide.value(`grad_cosine/${b}:${a}`, at);
    const paired = names.filter((name) => pairs.some((pair) => pair.startsWith(`grad_cosine/${name}:`) || pair.endsWith(`:${name}`)));
    const map = pairs.length ? heatMap(paired, cosine, this.pair, (a, b) => { this.pair = `${a}:${b}`; this.draw(); }) : element("p", { class: "quiet" }, "No cosines were measured.");
    const made = this.section(`${many ? `${run.letter}: g` : "G"}radients`, element("p", { class: "quiet" }, `cosines between terms, step ${wide.step[at] ?? "–"}`), map);
    made.classList.add("gradients");
    return made;
  }

  charts(chosen) {
    this.pending = [];
    const tags = new Set(chosen.flatMap((run) => [...Object.keys(run.data.train.tags), ...Object.keys(run.data.eval.tags)]));
    const named = (head) => [...tags].filter((tag) => tag.startsWith(head));
    const norms = named("grad_norm/").filter((tag) => tag !== "grad_norm/total");
    const pair = this.pair && [this.pair, this.pair.split(":").reverse().join(":")].map((p) => `grad_cosine/${p}`);
    const groups = [["metric", named("metrics/")], ["loss parameter", named("loss_parameters/")],
      ["constraint", [...named("multiplier/"), ...named("violation/")]], ["more weight", named("helps/")],
      ["", [...(pair ? [pair] : []), ...(norms.length ? [norms] : []), ...(tags.has("grad_norm/total") ? ["grad_norm/total"] : [])]],
      ["", [...tags].filter((tag) => tag.startsWith("learning_rate"))], ["", ["steps_per_second", "examples_per_second"].filter((tag) => tags.has(tag))]];
    const all = groups.flatMap(([kind, of]) => of.slice(0, this.more ? of.length : MOST_CHARTS).map((tag) => this.chart(tag, chosen, kind)));
    const left = groups.reduce((sum, [, of]) => sum + of.length, 0) - all.length;
    if (!all.length) return [];
    return [element("h2", {}, "Beside the terms"), element("div", { class: "charts" }, all), left ? button(`${left} more charts`, null, () => { this.more = true; this.draw(); }) : null];
  }

  chart(tag, chosen, kind) {
    const many = Array.isArray(tag), list = many ? tag : [tag], cosines = list[0].startsWith("grad_cosine/");
    const name = many ? (cosines ? `cosine of ${this.pair}` : "gradient norms of the terms") : tag.replace(/^(metrics|loss_parameters)\//, "").replace("grad_norm/total", "gradient norm of the total").replaceAll("_per_second", " per second");
    const plot = this.plot(`chart ${many ? (cosines ? "cosine" : "norms") : tag}`, 150, this.seen), layers = [];
    for (const run of chosen) {
      for (const split of ["train", "eval"]) {
        const table = cosines ? run.data.wide || run.data.train : this.table(run, split);
        if (cosines && split === "eval") continue;
        for (const one of list) {
          if (!table.tags[one]) continue;
          const term = one.replace("grad_norm/", ""), isTerm = many && !cosines;
          if (isTerm && !this.isActive({ terms: [term] })) continue;
          const short = `${chosen.length > 1 ? `${run.letter} ` : ""}${split === "eval" ? "eval " : ""}`, label = `${short}${isTerm ? term : name}`;
          const keep = table.column(one).map((value, i) => [table.xs(this.state.x)[i], value]).filter(([, value]) => !many || isNumber(value));
          layers.push({ kind: "line", xs: keep.map(([x]) => x), values: keep.map(([, value]) => value), name: label, short, colour: isTerm ? this.colours.of(term).colour : this.ink(run),
            dash: split === "eval" ? [5, 4] : chosen.length > 1 && isTerm ? run.dash : [], dots: split === "eval", title: (i) => tickText(keep[i]?.[0] ?? 0) });
        }
      }
    }
    const last = layers.map((layer) => [layer.short, layer.values.findLast(isNumber)]).filter(([, value]) => isNumber(value));
    plot.figure.querySelector("figcaption")?.remove();
    plot.figure.prepend(element("figcaption", {}, element("span", {}, kind ? element("span", { class: "quiet" }, `${kind} `) : null, name), !many && last.length ? element("span", { class: "quiet" }, last.slice(0, 4).map(([short, value]) => `${short}${shown(value, 4)}`).join(" · ")) : null));
    this.pending.push([plot, { x: this.axis(), y: { log: false }, layers, ...(chosen[0] ? this.cursor(chosen[0]) : {}), label: name }]);
    return plot.figure;
  }
}

export async function render() {
  const embedded = document.getElementById("termwise-data");
  if (!embedded) {
    document.head.append(element("link", { rel: "stylesheet", href: new URL("style.css", document.baseURI).href }));
    document.title = "Termwise";
  }
  const root = element("div", { class: "termwise" });
  document.body.append(root);
  const page = new Page(root, embedded ? new Embedded(JSON.parse(embedded.textContent)) : new Server());
  root.page = page;
  await page.start();
}
