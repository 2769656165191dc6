// The tables: the ledger at a step, hints, what differs between runs, cosines.
import { button, isNumber, make, percent, shown } from "./dom.js";
import { ratio, sumOf } from "./data.js";

const TOTAL = { name: "total", terms: [] };
const OF_TOTAL = { terms: "total", grad_norm: "grad_norm/total" };
const SUMMED = ["terms", "update_share"]; // of folded terms

const cell = (value, text = shown(value)) => make("td.n", { title: value, "data-value": value }, text);
const difference = (a, b) => (isNumber(a) && isNumber(b) ? a - b : null);
const head = (text, kind = "") => make(`th${kind}`, { scope: "col" }, text);
const side = (...content) => make("th", { scope: "row" }, content);

function grid(kind, heads, rows) {
	return make("div.scroll", make(`table.${kind}`, make("thead", make("tr", heads)), make("tbody", rows)));
}

// at, against: places of rows in the table; origins: term -> {from, equation}.
export function ledger(page, table, at, against, origins) {
	const value = (tag, { name, terms }, i) => {
		if (name === TOTAL.name && !terms.length) return table.value(OF_TOTAL[tag], i);
		return terms.length === 1 || SUMMED.includes(tag) ? sumOf(terms.map((term) => table.value(`${tag}/${term}`, i))) : null;
	};
	const here = (tag) => (line) => value(tag, line, at), entries = page.entriesOf(table), told = Object.keys(origins).length > 0;
	const columns = [["raw", here("raw")], ["weight", here("weight")], ["weighted", here("terms")],
		["share", (line) => ratio(here("terms")(line), table.value("total", at)), percent], ["grad norm", here("grad_norm")],
		["of update", here("update_share"), percent], ["change", (line) => difference(here("terms")(line), against == null ? null : value("terms", line, against))],
	].filter(([, of], i) => i < 4 || entries.some((line) => isNumber(of(line))));
	const titled = ({ name, terms, group }) => terms.length > 1 ? button(name, () => page.toggle(group), { class: "plain", "data-key": `ledger ${group}` })
		: make("span", { title: [name, origins[name]?.equation].filter(Boolean).join("\n\n") }, name);
	const rows = [...entries, TOTAL].map((line) => make(line === TOTAL ? "tr.total" : "tr", { "data-term": line.name },
		side(line !== TOTAL && page.colours.swatch(line), titled(line)),
		told && make("td.from", line.terms.length === 1 ? origins[line.name]?.from : ""),
		columns.map(([, of, text]) => (line === TOTAL && of(line) == null ? make("td") : cell(of(line), text?.(of(line)))))));
	return grid("ledger", [head("term"), told && head("from", ".from"), columns.map(([name]) => head(name, ".n"))], rows);
}

export function hintList(hints, point) {
	if (!hints.length) return make("p.quiet", "Nothing stands out.");
	return make("ul.hints", hints.map(({ what, look, terms }) =>
		make("li", make("div", what), make("div.quiet", look), terms.length > 0 && button("show these alone", () => point(terms)))));
}

// The fields in which configurations differ; then each term at the end of each run.
export function comparison(fields, runs, terms, colours) {
	const text = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));
	const differences = fields.map(({ field, values }) => make("tr", side(field), runs.map((run) => make("td", text(values[run.name])))));
	const ends = [...terms.map((name) => [name, `terms/${name}`]), ["total", "total"]].map(([name, tag], i) => {
		const values = runs.map(({ data: { train } }) => train.value(tag, train.step.length - 1)), total = i === terms.length;
		const cells = values.map((value, k) => [cell(value), k > 0 && cell(difference(value, values[0]))]);
		return make(total ? "tr.total" : "tr", { "data-term": name }, side(!total && colours.swatch({ name }), name), cells);
	});
	const heads = runs.map(({ letter, data }, k) => [head(`${letter}, step ${data.train.step.at(-1) ?? "–"}`, ".n"), k > 0 && head(`${letter} − ${runs[0].letter}`, ".n")]);
	return [
		make("h2", "Configurations: what differs"),
		fields.length ? grid("differences", [head("field"), runs.map((run) => head(`${run.letter} ${run.name}`))], differences) : make("p.quiet", "Nothing."),
		make("h2", "Weighted terms at the end"), grid("ends", [head("term"), heads], ends),
	];
}

// Cosines as a map of cells: blue agrees, orange opposes; both are also told by their numbers.
export function heatMap(names, cosine, pair, choose) {
	const { length } = names, few = length <= 10, size = few ? 46 : Math.max(6, Math.floor(480 / length));
	const moves = { ArrowUp: -length, ArrowDown: length, ArrowLeft: -1, ArrowRight: 1 };
	const [first, second] = pair?.every((name) => names.includes(name)) ? pair : names;
	const note = make("p.quiet", { "aria-live": "polite" }, "Click a cell, or press Enter, to see it over time; the arrow keys go from cell to cell.");
	const cells = names.flatMap((a, row) => names.map((b, column) => {
		const same = row === column, value = same ? 1 : cosine(a, b), strength = Math.round(Math.abs(value) * 100), title = `${a} : ${b}  ${shown(value, 3)}`;
		const chosen = !same && pair?.includes(a) && pair.includes(b), tell = () => (note.textContent = title), open = () => same || choose(a, b);
		const onkeydown = (event) => {
			const next = cells[row * length + column + moves[event.key]];
			if (next) next.focus();
			else if (event.key === "Enter" || event.key === " ") open();
			else return;
			event.preventDefault();
		};
		return make(`td.heat${same ? ".same" : ""}${strength > 62 ? ".strong" : ""}${chosen ? ".chosen" : ""}`, {
			title, onkeydown, onclick: open, onfocus: tell, onmouseenter: tell, tabindex: a === first && b === second ? 0 : -1,
			"data-key": `cosine ${a}:${b}`, "data-value": value,
			style: { "--strength": `${strength}%`, "--hue": value < 0 ? "var(--opposes)" : "var(--agrees)", width: `${size}px`, height: `${few ? 34 : size}px` },
		}, few && shown(value, 2));
	}));
	const rows = names.map((name, row) => make("tr", size >= 13 && side(name), cells.slice(row * length, (row + 1) * length)));
	return make("div.heatmap", grid("cosines", few ? [make("td"), names.map((name) => head(name))] : [], rows), note);
}
