// What is looked at, kept in the address: a view can be sent.

export const OPTIONS = {
	view: ["stack", "share", "lines", "raw", "weights"],
	x: ["step", "examples", "time"],
	layout: ["side by side", "overlaid"],
	theme: ["as here", "light", "dark"],
};
const DEFAULTS = {
	runs: [], open: [], only: [], find: "", split: "all", view: "stack", x: "step", layout: "side by side", theme: "as here",
	logx: 0, logy: 0, smooth: 0, step: null, ref: null, from: null, to: null,
};
const KEY = "termwise.";

// TensorBoard shows the page in a frame: the address that people copy is that of the frame's parent.
function home() {
	try {
		return window.parent.location.hash === undefined ? window : window.parent;
	} catch {
		return window; // another origin
	}
}

export function load() {
	const given = new URLSearchParams(home().location.hash.slice(1));
	return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => {
		const texts = given.getAll(KEY + name), [text] = texts;
		if (Array.isArray(value)) return [name, texts];
		if (text === undefined || (OPTIONS[name] && !OPTIONS[name].includes(text))) return [name, value];
		return [name, typeof value === "string" ? text : Number(text) || 0];
	}));
}

export function save(state) {
	const { location, history } = home();
	const others = location.hash.slice(1).split("&").filter((part) => part && !part.startsWith(KEY));
	const own = Object.keys(DEFAULTS).filter((name) => state[name] !== DEFAULTS[name])
		.flatMap((name) => [state[name]].flat().map((value) => [KEY + name, value]));
	history.replaceState(history.state, "", `#${[...others, ...(own.length ? [new URLSearchParams(own)] : [])].join("&")}`);
}

// Dark as TensorBoard is, or as asked, or as the system is.
export function followTheme(root, asked, changed) {
	const { document: host } = home(), framed = host !== document, system = window.matchMedia("(prefers-color-scheme: dark)");
	const apply = () => {
		const dark = framed ? host.body.classList.contains("dark-mode") : system.matches;
		root.dataset.theme = asked() === "as here" ? (dark ? "dark" : "light") : asked();
		changed();
	};
	if (framed) new MutationObserver(apply).observe(host.body, { attributes: true, attributeFilter: ["class"] });
	system.onchange = apply;
	apply();
	return apply;
}
