// The tables: the ledger at a step, hints, what differs between runs, cosines.
import { element, isNumber, shown } from "./dom.js";

const number = (value, digits) => element("td", { class: "n", title: isNumber(value) ? String(value) : null, "data-value": isNumber(value) ? value : null }, shown(value, digits));
const swatch = ({ colour, cycle }) => element("i", { class: `swatch c${cycle}`, style: { "--colour": colour } });

// run: {letter, table}; entries: folded terms; at, against: places of rows.
export function ledger({ table, at, against, entries, colours, origins, toggle }) {
  const measured = entries.some((e) => e.terms.some((name) => isNumber(table.value(`grad_norm/${name}`, at))));
  const shares = entries.some((e) => e.terms.some((name) => isNumber(table.value(`update_share/${name}`, at))));
  const heads = ["term", origins.size ? "from" : null, "raw", "weight", "weighted", "share", measured ? "grad norm" : null, shares ? "of update" : null, against != null ? "Δ weighted" : null];
  const total = table.value("total", at), of = (tag, name, i) => table.value(`${tag}/${name}`, i);
  const line = (name, terms, indent, group) => {
    const single = terms.length === 1 && !group, sum = (tag, i) => {
      const there = terms.map((term) => of(tag, term, i)).filter(isNumber);
      return there.length ? there.reduce((a, b) => a + b, 0) : null;
    };
    const weighted = sum("terms", at), share = isNumber(weighted) && total ? weighted / total : null;
    const cells = [number(single ? of("raw", name, at) : null), number(single ? of("weight", name, at) : null), number(weighted)];
    const title = group
      ? element("button", { type: "button", class: "fold", onclick: () => toggle(group), "aria-expanded": String(!!indent) }, name)
      : element("span", { title: [name, origins.get(name)?.equation].filter(Boolean).join("\n\n") }, name);
    return element("tr", { "data-term": name, class: indent ? "inner" : null },
      element("th", { scope: "row" }, swatch(colours.of(name)), title),
      origins.size ? element("td", { class: "from" }, single ? origins.get(name)?.from || "" : "") : null, cells,
      element("td", { class: "n", "data-value": share }, isNumber(share) ? `${shown(100 * share, 3)} %` : "–"),
      measured ? number(single ? of("grad_norm", name, at) : null) : null,
      shares ? number(sum("update_share", at), 3) : null,
      against != null ? number(isNumber(weighted) && isNumber(sum("terms", against)) ? weighted - sum("terms", against) : null) : null);
  };
  const body = entries.map((entry) => line(entry.name, entry.terms, false, entry.terms.length > 1 || entry.group === "others" ? entry.group : null));
  const change = against != null && isNumber(total) && isNumber(table.value("total", against)) ? total - table.value("total", against) : null;
  body.push(element("tr", { class: "total", "data-term": "total" }, element("th", { scope: "row" }, "total"), origins.size ? element("td") : null,
    element("td"), element("td"), number(total), element("td", { class: "n" }, isNumber(total) ? "100 %" : "–"),
    measured ? number(table.value("grad_norm/total", at)) : null, shares ? element("td") : null, against != null ? number(change) : null));
  return element("table", { class: "ledger" },
    element("thead", {}, element("tr", {}, heads.filter((head) => head != null).map((head) => element("th", { scope: "col", class: head === "from" ? "from" : null }, head)))),
    element("tbody", {}, body));
}

export function hintList(hints, point) {
  if (!hints.length) return element("p", { class: "quiet" }, "Nothing stands out.");
  return element("ul", { class: "hints" }, hints.map((hint) => element("li", {},
    element("div", {}, hint.what), element("div", { class: "quiet" }, hint.look),
    hint.names.length ? element("button", { type: "button", onclick: () => point(hint.names) }, "show these alone") : null)));
}

// The fields in which configurations differ; then each term at the end of each run.
export function comparison(fields, runs, terms, colours) {
  const columns = runs.map((run) => element("th", { scope: "col", title: run.name }, `${run.letter} ${run.name}`));
  const text = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));
  const configuration = fields.length
    ? element("table", { class: "differences" }, element("thead", {}, element("tr", {}, element("th", {}, "field"), columns)),
      element("tbody", {}, fields.map(({ field, values }) => element("tr", {}, element("th", { scope: "row" }, field), runs.map((run) => element("td", {}, text(values[run.name])))))))
    : element("p", { class: "quiet" }, "The configurations are the same.");
  const rows = [...terms.flatMap((name) => [[name, `terms/${name}`]]), ["total", "total"]].map(([name, tag]) => {
    const ends = runs.map(({ table }) => table.value(tag, table.step.length - 1));
    const first = ends[0];
    return element("tr", { "data-term": name, class: name === "total" ? "total" : null },
      element("th", { scope: "row" }, name === "total" ? null : swatch(colours.of(name)), name),
      ends.map((value, i) => [number(value), i ? number(isNumber(value) && isNumber(first) ? value - first : null) : null]));
  });
  const heads = runs.map((run, i) => [element("th", { scope: "col" }, `${run.letter}, step ${run.table.step.at(-1) ?? "–"}`), i ? element("th", { scope: "col" }, `${run.letter} − ${runs[0].letter}`) : null]);
  return [element("h3", {}, "Configurations: what differs"), configuration,
    element("h3", {}, "Weighted terms at the end"),
    element("table", { class: "ends" }, element("thead", {}, element("tr", {}, element("th", {}, "term"), heads)), element("tbody", {}, rows))];
}

// Cosines as a map of cells: blue agrees, orange opposes; both are also told by their numbers.
export function heatMap(names, cosine, chosen, choose) {
  const few = names.length <= 10, size = few ? 46 : Math.max(6, Math.floor(520 / names.length));
  const note = element("p", { class: "quiet", "aria-live": "polite" }, few ? "Click a cell to see it over time." : "Point at a cell; click to see it over time.");
  const cells = names.map((a, row) => element("tr", {}, few ? element("th", { scope: "row" }, a) : null, names.map((b, column) => {
    const value = row === column ? 1 : cosine(a, b), strength = isNumber(value) ? Math.round(Math.abs(value) * 100) : 0;
    const text = `${a} : ${b}  ${shown(value, 3)}`;
    return element("td", {
      title: text, class: `heat${row === column ? " same" : ""}${strength > 62 ? " strong" : ""}${chosen === `${a}:${b}` || chosen === `${b}:${a}` ? " chosen" : ""}`,
      "data-value": isNumber(value) ? value : null,
      style: { "--strength": `${strength}%`, "--hue": value < 0 ? "var(--opposes)" : "var(--agrees)", width: `${size}px`, height: `${few ? 34 : size}px` },
      onmouseenter: () => (note.textContent = text), onclick: () => row !== column && choose(a, b),
      tabindex: few && row < column ? "0" : null, onkeydown: (event) => event.key === "Enter" && choose(a, b), "data-key": few ? `cosine ${a}:${b}` : null,
    }, few && isNumber(value) ? value.toFixed(2).replace("-", "−") : "");
  })));
  const head = few ? element("thead", {}, element("tr", {}, element("td"), names.map((name) => element("th", { scope: "col" }, name)))) : null;
  return element("div", { class: "heatmap" }, element("table", { class: few ? "cosines" : "cosines dense" }, head, element("tbody", {}, cells)), note);
}
