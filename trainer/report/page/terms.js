// Terms: their colours, which stay, and the folding of names that share a prefix.
import { make } from "./dom.js";

// Okabe and Ito's colours, told apart by colour-blind readers; those of one colour differ in lightness.
const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a68c6", "#a5a02a"];
const TINTS = ["white 0%", "white 50%", "black 40%"];
const REST = "#8b8f96";
const MOST = 14; // areas: of more, the smallest are drawn as one

export class Colours {
	hues = {}; // name or group -> place, as the runs are answered with
	tints = {};

	// Of the entries that are drawn together, those of one colour differ in lightness.
	arrange(entries) {
		const seen = HUES.map(() => 0);
		for (const { name, group } of entries) if (group !== "others") this.tints[name] = seen[this.hue(name)]++ % TINTS.length;
	}

	hue(name) {
		return (this.hues[name] ?? name.length) % HUES.length;
	}

	of({ name, group }) {
		return group === "others" ? REST : `color-mix(in srgb, ${HUES[this.hue(name)]}, ${TINTS[this.tints[name] || 0]})`;
	}

	swatch(entry) {
		return make("i.swatch", { style: { background: this.of(entry) } });
	}
}

// Entries {name, terms, group}: single terms, folded groups of at least three, and the rest.
export function fold(terms, groups, opened, sizeOf) {
	const entries = new Map();
	for (const name of terms) {
		const group = groups[name], members = terms.filter((other) => groups[other] === group), together = members.length >= 3;
		if (together && !opened.includes(group)) entries.set(group, { name: group, terms: members, group });
		else entries.set(name, { name, terms: [name], group: together ? group : null });
	}
	const all = [...entries.values()];
	if (all.length <= MOST || opened.includes("others")) return all;
	const size = (entry) => entry.terms.reduce((sum, name) => sum + sizeOf(name), 0);
	const largest = new Set([...all].sort((a, b) => size(b) - size(a)).slice(0, MOST - 1));
	const rest = all.filter((entry) => !largest.has(entry));
	return [...all.filter((entry) => largest.has(entry)), { name: `${rest.length} others`, terms: rest.flatMap((entry) => entry.terms), group: "others" }];
}
