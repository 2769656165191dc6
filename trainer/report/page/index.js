// The page: what is chosen on the left, the objective as a stack, the ledger at a step, and the rest.
import { button, fill, make } from "./dom.js";
import { Plot } from "./plot.js";
import { Colours, fold } from "./terms.js";
import { Source, Table, nearest, tables } from "./data.js";
import { followTheme, load, save } from "./state.js";
import { comparison, heatMap, hintList, ledger } from "./tables.js";
import { aside, holds, notes, searchBox, toggled, toolbar } from "./controls.js";
import { dashOf, drawFigures, smallCharts } from "./figures.js";

const INKS = 4; // colours of runs, in style.css
const EVERY = 2000, SOON = 150; // milliseconds between two looks at runs; where rows are still being read

class Page {
	constructor(root, source) {
		Object.assign(this, { root, source, state: load(), colours: new Colours(), data: new Map(), runs: [], chosen: [], plots: new Map(), fields: [] });
		this.findRun = searchBox("search runs", "", () => this.draw());
		this.find = searchBox("search terms", this.state.find, (find) => this.set({ find }));
		[this.aside, this.bar, this.told, this.figures, this.panels] = ["aside", "div.bar", "p.note", "div.figures", "div.panels"].map((kind) => make(kind));
		this.told.setAttribute("role", "status");
		root.append(this.aside, make("main", this.bar, this.told, this.figures, this.panels));
		this.retheme = followTheme(root, () => this.state.theme, () => this.draw());
	}

	async follow() {
		if (!document.hidden) await this.look();
		if (this.source.live) setTimeout(() => this.follow(), this.reading ? SOON : EVERY);
	}

	async look() {
		await this.trying(async () => {
			const { state } = this, { runs, hues, first } = await this.source.ask("runs"), listed = JSON.stringify(runs);
			const same = listed === this.listed && !this.problem;
			Object.assign(this, { runs, listed });
			this.colours.hues = hues;
			state.runs = state.runs.filter((name) => runs.some((run) => run.name === name));
			if (!state.runs.length) state.runs = first;
			if (state.runs.some((name) => !this.data.has(name))) this.draw();
			return (await this.fetch()) || !same;
		});
	}

	async trying(read) {
		try {
			if (!(await read())) return;
			this.problem = null;
		} catch (error) {
			this.problem = error.message;
		}
		this.draw();
	}

	async fetch() {
		const { source, state } = this, key = state.runs.join("\n");
		let changed = this.compared !== key;
		this.reading = false;
		await Promise.all(state.runs.map(async (name) => {
			const run = this.runs.find((other) => other.name === name), old = this.data.get(name), stamp = JSON.stringify(run);
			if (old?.stamp === stamp && old.answer.complete) return;
			const [answer, about] = await Promise.all([source.rows(name), source.ask("about", { run: name })]), splits = tables(answer);
			this.data.set(name, { splits, train: splits.train, answer, about, stamp });
			this.reading ||= !answer.complete;
			changed = true;
		}));
		if (!changed) return false;
		this.fields = state.runs.length > 1 ? await source.compare(state.runs) : [];
		this.compared = key;
		return this.fetchZoom();
	}

	// Within a zoom all rows are asked for again: those that were left out are drawn there.
	async fetchZoom() {
		const { x, from, to, runs } = this.state;
		await Promise.all(runs.filter((name) => this.data.has(name)).map(async (name) => {
			const data = this.data.get(name), { step, count, [x]: xs } = data.train;
			const place = (at, beside) => step[Math.min(Math.max(nearest(xs, at) + beside, 0), step.length - 1)];
			data.zoomed = null;
			if (this.source.live && from != null && count > step.length) data.zoomed = tables(await this.source.rows(name, place(from, -1), place(to, 1)));
		}));
		return true;
	}

	// A table of a run, of the rows within a zoom where these were read.
	table({ data }, split = this.state.split === "all" ? "train" : this.state.split) {
		return (data.zoomed || data.splits)[split] || new Table(split);
	}

	tablesOf(run) {
		return (this.state.split === "all" ? Object.keys(run.data.splits) : [this.state.split]).map((split) => this.table(run, split));
	}

	// The letter of a run where several are compared.
	letter(name) {
		const run = this.many && this.chosen.find((other) => other.name === name);
		return run && make("b.letter", { style: { color: run.ink } }, `${run.letter} `);
	}

	// Changes what the address says; other runs and another zoom are read.
	set(changes) {
		Object.assign(this.state, changes);
		save(this.state);
		if ("theme" in changes) this.retheme();
		else this.draw();
		if ("runs" in changes) this.trying(() => this.fetch());
		else if ("from" in changes) this.trying(() => this.fetchZoom());
	}

	entries(terms) {
		const answers = this.chosen.map((run) => run.data.answer), groups = Object.assign({}, ...answers.map((answer) => answer.groups));
		return fold(terms, groups, this.state.open, (name) => Math.max(...answers.map((answer) => answer.sizes[name] || 0)));
	}

	entriesOf(table) {
		return this.drawn.filter((entry) => entry.terms.some((name) => table.tags[`terms/${name}`]));
	}

	isActive({ terms }) {
		const { only, find } = this.state;
		return (!only.length || terms.some((name) => only.includes(name))) && terms.some((name) => holds(name, find));
	}

	toggle(group) {
		this.set({ open: toggled(this.state.open, [group]) });
	}

	draw() {
		const focus = document.activeElement?.dataset.key, { runs } = this.state, style = getComputedStyle(this.root);
		this.chosen = runs.map((name, i) => {
			const ink = style.getPropertyValue(`--run${i % INKS}`), letter = String.fromCharCode(65 + (i % 26));
			return { name, ink, letter, dash: dashOf(i), data: this.data.get(name) };
		}).filter((run) => run.data);
		this.many = this.chosen.length > 1;
		this.all = [...new Set(this.chosen.flatMap((run) => Object.values(run.data.splits).flatMap((table) => table.terms)))];
		this.drawn = this.entries(this.all);
		this.colours.arrange(this.drawn);
		this.seen = new Set();
		fill(this.aside, aside(this));
		fill(this.bar, toolbar(this));
		fill(this.told, notes(this).map((note) => make("span", note)));
		drawFigures(this);
		const [charts, show] = smallCharts(this);
		fill(this.panels, this.sections(), make("section.wide", charts));
		this.panels.classList.toggle("one", !this.many);
		show();
		for (const key of this.plots.keys()) if (!this.seen.has(key)) this.plots.delete(key);
		if (focus && document.activeElement === document.body) this.root.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
	}

	// The plot of a key, made once: it keeps the focus and the pointer.
	plot(key, height) {
		this.seen.add(key);
		if (!this.plots.has(key)) this.plots.set(key, new Plot(key, height, this));
		return this.plots.get(key);
	}

	// What a plot tells: a click, an arrow key, a drag, a double click.
	pick(x, reference) {
		const { step, ref } = this.state, table = this.table(this.chosen[0]);
		this.unpicked = { step, ref };
		if (table.step.length) this.set({ [reference ? "ref" : "step"]: table.step[nearest(table[this.state.x], x)] });
	}

	move(rows, reference) {
		const table = this.table(this.chosen[0]), name = reference ? "ref" : "step", at = table.at(this.state[name] ?? this.stepOf(table));
		if (at != null) this.set({ [name]: table.step[Math.min(Math.max(at + rows, 0), table.step.length - 1)] });
	}

	zoom(from = null, to = null) {
		this.set({ from, to });
	}

	// The first click of a double click has chosen a step: the one before is chosen again.
	unzoom() {
		this.set({ from: null, to: null, ...this.unpicked });
	}

	stepOf(table) {
		return this.state.step ?? table.step.at(-1);
	}

	sections() {
		const { chosen } = this;
		const each = (title, of) => chosen.map((run) => {
			const content = of(run);
			return content && make("section", make("h2", this.letter(run.name), title), content);
		});
		return [
			each("Ledger", (run) => this.ledgerOf(run)),
			each("What is off", (run) => hintList(run.data.about.hints, (only) => this.set({ only }))),
			this.many && make("section.wide", comparison(this.fields, chosen, this.all, this.colours)),
			each("Gradients", (run) => this.gradients(run)),
		];
	}

	ledgerOf(run) {
		const table = this.table(run), at = table.at(this.stepOf(table)), against = table.at(this.state.ref);
		if (at == null) return make("p.quiet", `No rows of ${table.split}.`);
		const onchange = () => this.set({ step: table.step[table.at(Number(box.value))] });
		const box = make("input", { type: "number", value: table.step[at], "aria-label": "step", "data-key": `step ${run.name}`, onchange });
		const change = against == null ? " · click the chart or press ← →; shift-click chooses a second step"
			: [` against step ${table.step[against]} `, button("clear", () => this.set({ ref: null }))];
		return [make("p.quiet", `${table.split}, step `, box, change), ledger(this, table, at, against, this.many ? {} : run.data.about.terms)];
	}

	// Cosines of the row at or before the step: most rows measure none.
	gradients({ name, data }) {
		const { train, wide = train } = data, step = this.stepOf(wide);
		if (!train.terms.some((term) => train.tags[`grad_norm/${term}`])) return null;
		if (wide === train) {
			data.wide = new Table("train");
			this.trying(async () => (data.wide = tables(await this.source.wide(name)).train));
		}
		const choose = (...pair) => {
			this.pair = pair;
			this.draw();
		};
		const cosine = (a, b, i) => wide.value(`grad_cosine/${a}:${b}`, i) ?? wide.value(`grad_cosine/${b}:${a}`, i);
		const pairs = train.terms.flatMap((a) => train.terms.map((b) => [a, b])), measured = (i) => pairs.filter((pair) => cosine(...pair, i) != null);
		const at = wide.step.findLastIndex((other, i) => other <= step && measured(i).length), names = [...new Set(measured(at).flat())];
		if (at < 0) return make("p.quiet", "No cosines were measured.");
		return [make("p.quiet", `cosines between terms, step ${wide.step[at]}`), heatMap(names, (a, b) => cosine(a, b, at), this.pair, choose)];
	}
}

export async function render() {
	const embedded = document.getElementById("termwise-data"), root = make("div.termwise");
	if (!embedded) {
		document.head.append(make("link", { rel: "stylesheet", href: new URL("style.css", document.baseURI).href }));
		document.title = "Termwise";
	}
	document.body.append(root);
	root.page = new Page(root, new Source(embedded && JSON.parse(embedded.textContent)));
	await root.page.follow();
}
