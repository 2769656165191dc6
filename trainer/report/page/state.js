// What is looked at, kept in the address: a view can be sent.

const DEFAULTS = { runs: [], view: "stack", x: "step", logx: "", logy: "", smooth: "0", split: "both", layout: "side", step: "", ref: "", from: "", to: "", open: [], only: [], find: "", theme: "" };
const KEY = "termwise.";

// TensorBoard shows the page in a frame: the address that people copy is that of the frame's parent.
function place() {
  try {
    if (window.parent !== window && window.parent.location.hash !== undefined) return window.parent;
  } catch {
    // another origin: the page keeps its own address
  }
  return window;
}

export function load() {
  const state = structuredClone(DEFAULTS);
  const parameters = new URLSearchParams(place().location.hash.slice(1));
  for (const [name, value] of Object.entries(DEFAULTS)) {
    const given = parameters.getAll(KEY + name);
    if (given.length) state[name] = Array.isArray(value) ? given : given[0];
  }
  return state;
}

export function save(state) {
  const home = place();
  const others = home.location.hash.slice(1).split("&").filter((part) => part && !part.startsWith(KEY));
  const own = new URLSearchParams();
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (Array.isArray(value)) state[name].forEach((one) => own.append(KEY + name, one));
    else if (state[name] !== value) own.set(KEY + name, state[name]);
  }
  const hash = [...others, ...(own.size ? [own.toString()] : [])].join("&");
  if (hash !== home.location.hash.slice(1)) home.history.replaceState(home.history.state, "", `#${hash}`);
}

// Dark as TensorBoard is, or as asked, or as the system is.
export function followTheme(root, asked) {
  const frame = place();
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const host = frame !== window ? frame.document.body.classList.contains("dark-mode") : system.matches;
    root.dataset.theme = asked() || (host ? "dark" : "light");
    root.dispatchEvent(new Event("theme"));
  };
  if (frame !== window) new MutationObserver(apply).observe(frame.document.body, { attributes: true, attributeFilter: ["class"] });
  system.addEventListener("change", apply);
  apply();
  return apply;
}
