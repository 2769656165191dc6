// What is chosen: runs and terms on the left, the view above, and what is to be said of it.
import { button, make } from "./dom.js";
import { saveCsv, savePng } from "./saving.js";
import { OPTIONS } from "./state.js";

const MOST_LISTED = 300, SEARCHED = 8; // runs; more runs or terms have a box to search them

// A list with some items taken out where it has them all, else with them.
export const toggled = (list, items) => items.every((one) => list.includes(one)) ? list.filter((one) => !items.includes(one)) : [...list, ...items];
export const holds = (text, part) => text.toLowerCase().includes(part.toLowerCase());

// A box that is typed in stays while the rest is drawn anew.
export function searchBox(label, value, oninput) {
	const box = make("input", { type: "search", placeholder: label, "aria-label": label, "data-key": label, value, oninput: () => oninput(box.value) });
	return box;
}

function choice(page, name, options = OPTIONS[name], more = {}) {
	return make("span.group", { role: "group", "aria-label": name }, options.map((value) =>
		button(value, () => page.set({ [name]: value, ...more }), { "aria-pressed": page.state[name] === value, "data-key": `${name} ${value}` })));
}

export function aside(page) {
	const { state, all } = page, listed = page.runs.filter(({ name }) => holds(name, page.findRun.value)).slice(0, MOST_LISTED);
	return [
		make("h1", "Termwise"),
		make("h2", `Runs (${page.runs.length})`), page.runs.length > SEARCHED && page.findRun, make("ul.runs", listed.map((run) => runLine(page, run))),
		make("h2", `Terms (${all.length})`), (all.length > SEARCHED || state.find) && page.find, make("ul.terms", termLines(page)),
		state.only.length > 0 && button("show all terms", () => page.set({ only: [] })),
		make("p", make("span.group", button("PNG", () => savePng(page)), button("CSV", () => saveCsv(page)))),
		make("p", choice(page, "theme")),
	];
}

function runLine(page, { name, done }) {
	const { runs } = page.state, onchange = () => page.set({ runs: toggled(runs, [name]), step: null, ref: null, from: null, to: null });
	return make("li", make("label", { title: name }, make("input", { type: "checkbox", checked: runs.includes(name), onchange, "data-key": `run ${name}` }),
		page.letter(name), make("span", name), !done && make("small", { title: "no DONE.json: it runs, or was stopped" }, "open")));
}

function termLines(page) {
	const { only, open, find } = page.state, headed = new Set();
	return page.entries(page.all).filter(({ terms }) => terms.some((name) => holds(name, find))).flatMap((entry) => {
		const { name, terms, group } = entry, opened = open.includes(group), alone = only.length > 0 && terms.every((term) => only.includes(term));
		const fold = (text) => button(text, () => page.toggle(group), { class: "plain", "data-key": `fold ${group}` });
		const head = opened && !headed.has(group) && make("li", fold(`▾ ${group}`));
		headed.add(group);
		const pick = { onclick: () => page.set({ only: toggled(only, terms) }), class: "term", "aria-pressed": alone, title: `${name}: show alone`, "data-key": `term ${name}` };
		const label = [page.colours.swatch(entry), make("span", opened && group.endsWith("/*") ? name.slice(group.length - 1) : name)];
		return [head, make(`li${page.isActive(entry) ? "" : ".faint"}${opened ? ".inner" : ""}`,
			button(label, null, pick), terms.length > 1 && fold(`▸ ${terms.length}`))];
	});
}

export function toolbar(page) {
	const { state } = page, splits = [...new Set(page.chosen.flatMap((run) => Object.keys(run.data.splits)))];
	const flag = (name, text) => button(text, () => page.set({ [name]: 1 - state[name] }), { "aria-pressed": state[name] === 1 });
	const onchange = () => page.set({ smooth: Number(smooth.value) });
	const smooth = make("input", { type: "range", max: 0.95, step: 0.05, value: state.smooth, "data-key": "smooth", onchange });
	return [
		choice(page, "view"),
		splits.length > 1 && choice(page, "split", ["all", ...splits]),
		choice(page, "x", OPTIONS.x, { from: null, to: null }),
		make("span.group", flag("logx", "log x"), flag("logy", "log y")),
		make("label", `smooth ${state.smooth || "off"}`, smooth),
		state.runs.length > 1 && choice(page, "layout"),
	];
}

export function notes(page) {
	const { state, listed, problem, chosen } = page;
	const waits = !problem && (!listed || chosen.length < state.runs.length), none = !problem && listed && !page.runs.length;
	const told = chosen.flatMap(({ name, data }) => {
		const below = data.answer.negative, absent = state.split !== "all" && !data.splits[state.split];
		return [...data.answer.notes, absent && `No rows of ${state.split}.`,
			state.view === "share" && below && "Some terms are below zero; shares are of the sum of all sizes.",
			state.logy && state.view !== "weights" && below && "Values below zero are not drawn on a logarithmic axis."].filter(Boolean).map((note) => `${name}: ${note}`);
	});
	return [problem, waits && "Reading …", none && "No runs here yet: a run is a folder with metrics.jsonl, as fit(workdir=...) writes it.", ...told].filter(Boolean);
}
