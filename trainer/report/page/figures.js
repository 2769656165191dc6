// The charts of a page: the stack, or what else of the terms is asked for, and small ones beside it.
import { button, dashed, fill, isNumber, make, percent, shown, shownSeconds } from "./dom.js";
import { smoothed } from "./data.js";

const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3], [1, 5], [14, 4]]; // of training and validation, or of runs
const TITLES = { stack: "weighted terms, total on top", share: "share of the total", lines: "weighted terms", raw: "raw values", weights: "weights" };
const ONE_SCALE = 8; // times the smallest extent, up to which charts side by side have one scale

export const dashOf = (place) => DASHES[place % DASHES.length];

// What all charts share: x, and the chosen steps on it.
function frame(page) {
	const { x, logx, from, to, step, ref } = page.state, table = page.table(page.chosen[0]), place = (at) => table[x][table.at(at)];
	return { x: { time: x === "time", log: logx, from, to, text: x === "time" && shownSeconds }, cursor: place(step), reference: place(ref) };
}

function marksOf({ letter, data }, unit, over) {
	const name = over ? `${letter} ` : "", { train, about } = data;
	return about.marks.map(({ step, short, label }) => ({ x: unit === "step" ? step : train[unit][train.at(step)], short: short && name + short, label: name + label }));
}

const prefixOf = ({ many }, { letter }, { split }) => (many ? `${letter} ` : "") + (split === "train" ? "" : `${split} `);

// Of a run: what is stacked, and lines; validation is dashed where training is drawn too.
function layersOf(page, run, index, over) {
	const { view, split, only, find, smooth, x } = page.state, stack = view === "stack" || view === "share", layers = [];
	page.tablesOf(run).forEach((table, set) => {
		const prefix = prefixOf(page, run, table), all = { xs: table[x], title: (i) => `step ${table.step[i]}` };
		const line = (name, values, more) => {
			const layer = { ...all, dash: over ? run.dash : dashOf(set), dots: table.split !== "train", name: prefix + name, ...more };
			if (smooth) layers.push({ ...layer, values, faint: true, dots: false });
			layers.push({ ...layer, values: smooth ? smoothed(values, smooth) : values });
		};
		const there = page.entriesOf(table), total = (view === "stack" || (view === "lines" && !only.length && !find)) && table.column("total");
		const bands = there.map((entry) => ({ name: entry.name, values: table.values(entry.terms, view), colour: page.colours.of(entry), faint: !page.isActive(entry) }));
		if (!stack) for (const { name, values, colour, faint } of bands) faint || line(name, values, { colour });
		else if (!set && !(over && index)) layers.push({ ...all, bands, total });
		if (total) line("total", total, { colour: over && stack ? run.ink : undefined, width: 2 });
	});
	return layers;
}

// Charts side by side have one scale, unless what is small would lie flat.
function together(plots, name) {
	const scales = plots.map((plot) => plot[name]), from = Math.min(...scales.map(({ low }) => low)), to = Math.max(...scales.map(({ high }) => high));
	return scales[0].log || to - from <= ONE_SCALE * Math.min(...scales.map(({ low, high }) => high - low)) ? { from, to } : {};
}

export function drawFigures(page) {
	const { chosen, state } = page, { view, split } = state, over = page.many && state.layout === "overlaid";
	const sets = over ? [chosen] : chosen.map((run) => [run]), y = { log: state.logy, text: view === "share" && percent };
	const shows = sets.map((runs, i) => {
		const caption = [
			runs.map((run) => make("span", page.letter(run.name), over && dashed(run.dash, run.ink), run.name)),
			make("span.quiet", (split === "all" ? "" : `${split}: `) + TITLES[view]),
			!over && view !== "share" && page.tablesOf(runs[0]).slice(1).map((table, set) => make("span.quiet", dashed(dashOf(set + 1)), table.split)),
			!i && state.from != null && button("whole run", () => page.zoom()),
		];
		const layers = runs.flatMap((run, index) => layersOf(page, run, index, over)), marks = runs.flatMap((run) => marksOf(run, state.x, over));
		const label = `${TITLES[view]} of ${runs.map((run) => run.name).join(", ")}; arrow keys choose a step, plus and minus zoom`;
		return [page.plot(`main ${i}`, sets.length > 1 ? 300 : 380), { ...frame(page), y, layers, marks, label }, caption];
	});
	page.main = shows.map(([plot]) => plot);
	page.figures.classList.toggle("side", shows.length > 1);
	fill(page.figures, page.main.map((plot) => plot.figure));
	for (const show of shows) show[0].show(...show.slice(1));
	if (shows.length < 2 || !page.main[0].x) return;
	const [across, up] = ["x", "y"].map((name) => together(page.main, name));
	for (const [plot, spec] of shows) plot.show({ ...spec, x: { ...spec.x, ...across }, y: { ...y, ...up } });
}

// The small charts, [kind, name, tags of their lines], of all runs.
function kinds(page) {
	const found = {}, [a, b] = page.pair || [];
	if (a) found.cosine = ["", `cosine of ${a} : ${b}`, [`grad_cosine/${a}:${b}`, `grad_cosine/${b}:${a}`]];
	for (const { data } of page.chosen) for (const [kind, name, tags] of data.answer.charts) found[name] = [kind, name, [...new Set([...(found[name]?.[2] || []), ...tags])]];
	return Object.values(found);
}

// The elements of the small charts, and what draws them once they are in the page.
export function smallCharts(page) {
	const shows = kinds(page).map((kind) => smallChart(page, ...kind)), figures = shows.map(([plot]) => plot.figure);
	return [figures.length > 0 && [make("h2", "Beside the terms"), make("div.charts", figures)], () => shows.forEach(([plot, ...show]) => plot.show(...show))];
}

function smallChart(page, kind, name, tags) {
	const { many, state: { x } } = page, layers = [], cosines = tags[0].startsWith("grad_cosine/"), norms = tags.length > 1 && !cosines;
	for (const run of page.chosen) {
		const { splits, wide } = run.data, tables = cosines ? [wide || splits.train] : Object.keys(splits).map((split) => page.table(run, split));
		tables.forEach((table, set) => {
			for (const tag of tags) {
				const term = tag.replace("grad_norm/", ""), column = table.column(tag), short = prefixOf(page, run, table);
				const places = [...column.keys()].filter((i) => isNumber(column[i])), of = (values) => places.map((i) => values[i]), steps = of(table.step);
				if (!places.length || (norms && !page.isActive({ terms: [term] }))) continue;
				layers.push({
					xs: of(table[x]), values: of(column), name: short + (norms ? term : name), short, dots: set > 0, title: (i) => `step ${steps[i]}`,
					dash: many && norms ? run.dash : dashOf(set), colour: norms ? page.colours.of({ name: term }) : run.ink,
				});
			}
		});
	}
	const end = ({ short, values, colour }) => make("span", { style: { color: many ? colour : "inherit" } }, short + shown(values.at(-1), 4));
	const caption = [make("span", make("span.quiet", kind), ` ${name}`), layers.slice(0, norms ? 0 : 6).map(end)];
	return [page.plot(`chart ${kind} ${name}`, 150), { ...frame(page), y: {}, layers, label: name }, caption];
}
