// What is seen, as a picture and as a table.
import { make } from "./dom.js";

function download(name, blob) {
	const href = URL.createObjectURL(blob);
	make("a", { href, download: name }).click();
	setTimeout(() => URL.revokeObjectURL(href), 1000);
}

export function savePng(page) {
	const canvases = page.main.map((plot) => plot.canvas), scale = window.devicePixelRatio || 1, row = 18 * scale, style = getComputedStyle(page.root);
	const legend = page.drawn.filter((entry) => page.isActive(entry)), width = Math.max(...canvases.map((canvas) => canvas.width));
	const height = canvases.reduce((sum, canvas) => sum + canvas.height + 2 * row, row * (legend.length + 1));
	const picture = make("canvas", { width, height }), pen = picture.getContext("2d");
	const fill = (colour, what, ...where) => {
		pen.fillStyle = colour;
		pen[what](...where);
	};
	const [ground, ink] = ["--ground", "--ink"].map((name) => style.getPropertyValue(name));
	fill(ground, "fillRect", 0, 0, width, height);
	pen.font = `${13 * scale}px ${style.fontFamily}`;
	let y = 0;
	for (const { canvas, caption } of page.main) {
		fill(ink, "fillText", caption.innerText.replaceAll("\n", "   "), row, y + row, width - row);
		pen.drawImage(canvas, 0, y + 2 * row);
		y += canvas.height + 2 * row;
	}
	for (const entry of legend) {
		y += row;
		fill(page.colours.of(entry), "fillRect", row, y - row / 2, row / 2, row / 2);
		fill(ink, "fillText", entry.name, 2 * row, y);
	}
	picture.toBlob((blob) => download("termwise.png", blob));
}

function csvCell(value) {
	const text = `${/^[=+\-@\t\r]/.test(value) && !Number.isFinite(value) ? "'" : ""}${value ?? ""}`; // a name is no formula
	return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csvOf(page) {
	const { x, view, from, to } = page.state, entries = page.drawn.filter((entry) => page.isActive(entry));
	const lines = [["run", "split", "step", "examples", "seconds", ...entries.map((entry) => entry.name), "total"]];
	for (const run of page.chosen) {
		for (const table of page.tablesOf(run)) {
			const columns = [table.step, table.examples, table.time, ...entries.map(({ terms }) => table.values(terms, view)), table.column("total")];
			table.step.forEach((_, i) => {
				if (from == null || (table[x][i] >= from && table[x][i] <= to)) lines.push([run.name, table.split, ...columns.map((column) => column[i])]);
			});
		}
	}
	return lines.map((line) => `${line.map(csvCell).join(",")}\n`).join("");
}

export function saveCsv(page) {
	download("termwise.csv", new Blob([csvOf(page)], { type: "text/csv" }));
}
