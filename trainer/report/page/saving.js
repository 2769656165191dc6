// What is seen, as a picture and as a table.
import { download, element } from "./dom.js";

export function savePng(page) {
  const plots = page.main_plots, scale = window.devicePixelRatio || 1, style = getComputedStyle(page.root);
  const legend = page.drawn.filter((entry) => page.isActive(entry)), row = 18 * scale;
  const width = Math.max(...plots.map((plot) => plot.canvas.width)), perRow = Math.max(1, Math.floor(width / (260 * scale)));
  const height = plots.reduce((sum, plot) => sum + plot.canvas.height + row * 1.6, 0) + row * (Math.ceil(legend.length / perRow) + 1);
  const canvas = element("canvas", { width, height }), pen = canvas.getContext("2d");
  pen.fillStyle = style.getPropertyValue("--ground");
  pen.fillRect(0, 0, width, height);
  pen.font = `${13 * scale}px ${style.fontFamily}`;
  pen.textBaseline = "middle";
  const ink = style.getPropertyValue("--ink");
  let y = 0;
  for (const plot of plots) {
    pen.fillStyle = ink;
    pen.fillText([...plot.figure.querySelectorAll("figcaption > span")].map((part) => part.innerText).join("   "), 12 * scale, y + row * 0.9);
    pen.drawImage(plot.canvas, 0, y + row * 1.6);
    y += plot.canvas.height + row * 1.6;
  }
  legend.forEach((entry, i) => {
    const x = ((i % perRow) * width) / perRow + 12 * scale, at = y + row * (Math.floor(i / perRow) + 0.5);
    pen.fillStyle = page.colours.of(entry.name).colour;
    pen.fillRect(x, at - 5 * scale, 10 * scale, 10 * scale);
    pen.fillStyle = ink;
    pen.fillText(entry.name, x + 16 * scale, at);
  });
  canvas.toBlob((blob) => download("termwise.png", blob));
}

export function csvOf(page) {
  const cell = (value) => {
    let text = value == null ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // a name is no formula
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const entries = page.drawn.filter((entry) => page.isActive(entry)), { x, view, split, from, to } = page.state;
  const lines = [["run", "split", "step", ...(x === "step" ? [] : [x]), ...entries.map((entry) => entry.name), "total"].map(cell).join(",")];
  for (const run of page.chosen()) {
    for (const name of split === "both" ? ["train", "eval"] : [split]) {
      const table = page.table(run, name), xs = table.xs(x), total = table.column("total");
      const columns = entries.map((entry) => table.values(entry, view));
      table.step.forEach((step, i) => {
        if (from !== "" && (xs[i] < Number(from) || xs[i] > Number(to))) return;
        lines.push([run.name, name, step, ...(x === "step" ? [] : [xs[i]]), ...columns.map((column) => column[i]), total[i]].map(cell).join(","));
      });
    }
  }
  return `${lines.join("\n")}\n`;
}

export function saveCsv(page) {
  download("termwise.csv", new Blob([csvOf(page)], { type: "text/csv" }));
}
