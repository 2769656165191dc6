// Where rows come from, a server or the page itself, and what is computed from them to be drawn.
import { isNumber } from "./dom.js";

export class Source {
	// embedded: answers by path and run, of a report; null asks the server
	constructor(embedded) {
		Object.assign(this, { embedded, live: !embedded });
	}

	async ask(path, query) {
		if (this.embedded) return query?.run ? this.embedded[path][query.run] : this.embedded[path];
		const response = await fetch(new URL(`${path}?${new URLSearchParams(query)}`, document.baseURI)), body = await response.json().catch(() => ({}));
		if (!response.ok) throw new Error(body.error || `${response.status} ${response.statusText}`);
		return body;
	}

	rows = (run, first, last) => this.ask("rows", isNumber(first) ? { run, first, last } : { run });
	wide = async (run) => (await this.ask(this.live ? "rows" : "wide", { run, wide: 1, points: 100 })) || this.rows(run);

	async compare(runs) {
		const { fields } = await this.ask("compare", runs.map((run) => ["run", run]));
		return fields.filter(({ values }) => new Set(runs.map((run) => JSON.stringify(values[run]))).size > 1);
	}
}

// One split of a run: columns of whole rows. `table[unit]` is x in that unit: step, examples or time.
export class Table {
	constructor(split, { step = [], examples = [], seconds = [], sizes = [], tags = {}, count = 0 } = {}) {
		Object.assign(this, { split, step, examples, time: seconds, sizes, tags, count });
		this.terms = Object.keys(tags).filter((tag) => tag.startsWith("terms/")).map((tag) => tag.slice(6));
	}

	column(tag) {
		return this.tags[tag] || this.step.map(() => null);
	}

	value(tag, i) {
		return this.tags[tag]?.[i] ?? null;
	}

	// The values of some terms, added up, in one of the views. Shares are of the sum of all sizes.
	values(terms, view) {
		const head = { raw: "raw", weights: "weight" }[view] || "terms";
		const sums = this.step.map((_, i) => sumOf(terms.map((name) => this.value(`${head}/${name}`, i))));
		return view === "share" ? sums.map((sum, i) => ratio(sum, this.sizes[i])) : sums;
	}

	// Place of the row that is nearest to a step; null where there is none.
	at(step) {
		return step != null && this.step.length ? nearest(this.step, step) : null;
	}
}

export const ratio = (a, b) => (isNumber(a) && b ? a / b : null);

// The sum of what is there; null where nothing is.
export function sumOf(values) {
	const there = values.filter(isNumber);
	return there.length ? there.reduce((a, b) => a + b) : null;
}

export function nearest(xs, value) {
	return xs.reduce((best, x, i) => (Math.abs(x - value) < Math.abs(xs[best] - value) ? i : best), 0);
}

// Split -> table: train, and those of validation that have rows.
export function tables({ splits }) {
	const there = Object.entries(splits).filter(([split, { step }]) => split === "train" || step.length);
	return Object.fromEntries(there.map(([split, columns]) => [split, new Table(split, columns)]));
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
