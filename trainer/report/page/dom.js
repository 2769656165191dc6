// Elements and numbers. Names are text, never HTML: what is not an element goes in as a text node.

export const isNumber = Number.isFinite;

// make("td.n", { title }, ...children): a tag and its classes, attributes where there are any, children.
export function make(kind, ...children) {
	const [tag, ...classes] = kind.split("."), made = document.createElement(tag);
	made.className = classes.join(" ");
	const attributes = children[0]?.constructor === Object ? children.shift() : {};
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) made[name] = value;
		else if (name === "style") Object.entries(value).forEach((property) => made.style.setProperty(...property));
		else if (value != null && (value !== false || name.startsWith("aria-"))) made.setAttribute(name, value);
	}
	return fill(made, children);
}

// What is there already stays as it is: it keeps the focus and the pointer.
export function fill(box, ...parts) {
	const children = parts.flat(Infinity).filter((child) => child != null && child !== false);
	if (children.length !== box.childNodes.length || children.some((child, i) => box.childNodes[i] !== child)) box.replaceChildren(...children);
	return box;
}

// A button keeps the focus when it is drawn anew, by its key.
export function button(label, onclick, more) {
	return make("button", { type: "button", onclick, "data-key": label, ...more }, label);
}

// A line as a chart draws it, for legends.
export function dashed(dash, colour = "currentColor") {
	let at = 0;
	const parts = (dash.length ? dash : [1]).map((length, i) => `${i % 2 ? "transparent" : colour} ${at}px ${(at += length)}px`);
	return make("i.dash", { style: { background: `repeating-linear-gradient(90deg, ${parts})` } });
}

const minus = (text) => text.replace(/^-/, "−");

// Digits that tell values apart; all of them stand in a cell's title.
export function shown(value, digits = 5) {
	if (!isNumber(value)) return "–";
	const size = Math.abs(value), rounded = Number(value.toPrecision(digits));
	return minus(size && (size < 1e-4 || size >= 1e7) ? rounded.toExponential() : String(rounded));
}

export const percent = (share) => (isNumber(share) ? `${shown(100 * share, 4)} %` : "–");

export function tickText(value) {
	const size = Math.abs(value), compact = size >= 1e4 && size < 1e15;
	return compact ? minus(value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 6 })) : shown(value, 6);
}

export function shownSeconds(seconds) {
	const [size, unit] = [[3600, "h"], [60, "min"]].find(([one]) => seconds >= 2 * one) || [1, "s"];
	return `${shown(seconds / size, 3)} ${unit}`;
}
