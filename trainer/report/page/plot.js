// One chart on a canvas: stacked areas, lines, marks on the axis, a chosen step; mouse and keyboard.
import { fill, isNumber, make, shown, tickText } from "./dom.js";
import { nearest } from "./data.js";

const LEFT = 62, RIGHT = 20, TOP = 14, BOTTOM = 30;
const CLOCK = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
const MOST_LINES = 14; // in what is told at the pointer

// A stack: each value lies on those before it, negative ones below zero.
function stacked(layer) {
	const up = layer.xs.map(() => 0), down = layer.xs.map(() => 0);
	const bands = layer.bands.map((band) => {
		const sum = band.values.reduce((a, b) => a + (b || 0), 0), from = [], to = []; // 0 is on the side where it mostly is
		band.values.forEach((value, i) => {
			const side = (value || sum) < 0 ? down : up;
			from.push(side[i]);
			to.push((side[i] += value || 0));
		});
		return { ...band, from, to };
	});
	return { ...layer, bands };
}

// Values to pixels, and back.
class Scale {
	constructor([low, high], log, start, length) {
		Object.assign(this, { low, high, log, start, length });
	}

	at(value) {
		const { low, high } = this, part = this.log ? Math.log(Math.max(value / low, 1e-3)) / Math.log(high / low) : (value - low) / (high - low);
		return this.start + part * this.length;
	}

	back(pixel) {
		const { low, high } = this, part = Math.min(Math.max((pixel - this.start) / this.length, 0), 1);
		return this.log ? low * (high / low) ** part : low + part * (high - low);
	}

	// About `count` round numbers; on a logarithmic scale powers of ten.
	ticks(count, time) {
		const { low, high } = this, span = high - low, ticks = [];
		if (this.log) {
			const [first, last] = [low, high].map(Math.log10), every = Math.ceil((last - first) / count);
			for (let power = Math.ceil(first); power <= last; power += every) ticks.push(10 ** power);
			if (ticks.length > 1) return ticks;
		}
		const power = 10 ** Math.floor(Math.log10(span / count)), round = [1, 2, 2.5, 5, 10].map((m) => m * power);
		const step = [...(time && span >= 5 ? CLOCK : []), ...round].find((one) => one * count >= span * 0.999) || 10 * power;
		for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && i < 2 ** 53; i++) if (!ticks.includes(i * step)) ticks.push(i * step);
		return ticks;
	}
}

function extent(lists, log) {
	const there = lists.flat().filter((value) => isNumber(value) && !(log && value <= 0));
	return [there.reduce((a, b) => Math.min(a, b), Infinity), there.reduce((a, b) => Math.max(a, b), -Infinity)];
}

export class Plot {
	// The page is told: pick(x, reference), move(rows, reference), zoom(from, to) or zoom(), unzoom() by a double click.
	constructor(key, height, page) {
		Object.assign(this, { page, height, hover: null });
		this.canvas = make("canvas", { tabindex: 0, role: "img", "data-key": key });
		[this.tip, this.caption] = [make("div.tip", { hidden: true }), make("figcaption")];
		this.figure = make("figure", this.caption, this.canvas, this.tip);
		this.figure.plot = this;
		this.listen(this.canvas);
		new ResizeObserver(() => this.draw()).observe(this.figure);
	}

	// spec: {x, y: {log, time, text, from, to}, layers, marks, cursor, reference, label}
	show(spec, caption) {
		this.spec = spec;
		this.layers = spec.layers.map((layer) => (layer.bands ? stacked(layer) : layer));
		this.canvas.setAttribute("aria-label", spec.label);
		if (caption) fill(this.caption, caption);
		this.draw();
	}

	listen(canvas) {
		const at = (event) => event.clientX - canvas.getBoundingClientRect().left;
		let pressed = null, drag = null;
		const end = (hover) => {
			Object.assign(this, { hover, drag: null });
			pressed = null;
			this.draw();
		};
		canvas.onpointerdown = (event) => {
			[pressed, drag] = [at(event), null];
			canvas.setPointerCapture(event.pointerId);
		};
		canvas.onpointermove = (event) => {
			this.hover = at(event);
			if (pressed != null) drag = this.drag = Math.abs(this.hover - pressed) > 5 ? [pressed, this.hover] : null;
			this.draw();
		};
		canvas.onpointerup = (event) => {
			end(at(event));
			if (drag) this.page.zoom(...drag.map((pixel) => this.x.back(pixel)).sort((a, b) => a - b));
		};
		canvas.onpointerleave = canvas.onpointercancel = () => end(null);
		canvas.onclick = (event) => drag || event.detail > 1 || this.page.pick(this.x.back(at(event)), event.shiftKey);
		canvas.ondblclick = () => this.page.unzoom();
		canvas.onkeydown = (event) => this.key(event);
	}

	key(event) {
		const { page, x: { low, high } } = this, rows = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key], factor = { "+": 0.5, "-": 2 }[event.key];
		if (rows) page.move(rows * (event.shiftKey ? 10 : 1), event.altKey);
		else if (event.key === "0") page.zoom();
		else if (factor) {
			const middle = this.spec.cursor ?? (low + high) / 2;
			page.zoom(middle - (middle - low) * factor, middle + (high - middle) * factor);
		} else return;
		event.preventDefault();
	}

	// The scales: of what is drawn within the zoom, or as asked.
	measure() {
		const { x, y } = this.spec, bottom = this.height - BOTTOM;
		let [left, right] = extent(this.layers.map((layer) => layer.xs), x.log);
		if (isNumber(x.from)) [left, right] = [x.log && x.from <= 0 ? left : x.from, x.to];
		if (!(right > left)) [left, right] = left > 0 && left < Infinity ? [left * 0.99, left * 1.01] : [x.log ? 1 : 0, 10];
		const seen = this.layers.flatMap(({ xs, bands, values }) =>
			(bands ? bands.map((band) => band.to) : [values]).map((list) => list.filter((_, i) => xs[i] >= left && xs[i] <= right)));
		let [low, high] = extent([seen.flat(), this.layers.some((layer) => layer.bands) ? 0 : []], y.log);
		const pad = (high - low || Math.abs(high)) * 0.05;
		if (isNumber(y.from)) [low, high] = [y.from, y.to];
		else if (low > high) [low, high] = [y.log ? 0.1 : 0, 1];
		else if (y.log) [low, high] = [low / 1.15, high * 1.15];
		else [low, high] = [low === 0 ? 0 : low - pad, high === 0 && low < 0 ? 0 : high + (pad || 1)];
		this.x = new Scale([left, right], x.log, LEFT, this.width - LEFT - RIGHT);
		this.y = new Scale([low, high], y.log, bottom, TOP - bottom);
	}

	draw() {
		const { figure, canvas, height } = this, width = (this.width = figure.clientWidth);
		if (!this.spec || !width) return;
		const scale = window.devicePixelRatio, style = getComputedStyle(figure), pen = (this.pen = canvas.getContext("2d"));
		this.paint = Object.fromEntries(["ink", "soft", "grid", "ground"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
		[canvas.width, canvas.height, canvas.style.height] = [Math.round(width * scale), Math.round(height * scale), `${height}px`];
		pen.scale(scale, scale);
		[pen.font, pen.lineJoin, pen.fillStyle] = [`11px ${style.fontFamily}`, "round", this.paint.ground];
		pen.fillRect(0, 0, width, height);
		this.measure();
		this.axes();
		pen.save();
		pen.beginPath();
		pen.rect(LEFT, TOP - 2, width - LEFT - RIGHT, height - TOP - BOTTOM + 4);
		pen.clip();
		for (const layer of this.layers) layer.bands ? this.area(layer) : this.line(layer);
		pen.restore();
		this.marks();
		this.cursors();
		this.tooltip();
	}

	// A line through points; null is a gap.
	stroke(points, colour, width = 1, dash = []) {
		const { pen } = this;
		[pen.strokeStyle, pen.lineWidth] = [colour, width];
		pen.setLineDash(dash);
		pen.beginPath();
		points.forEach((point, i) => point && (points[i - 1] ? pen.lineTo(...point) : pen.moveTo(...point)));
		pen.stroke();
	}

	fill(points, colour, alpha = 1) {
		const { pen } = this;
		[pen.fillStyle, pen.globalAlpha] = [colour, alpha];
		pen.beginPath();
		points.forEach((point) => pen.lineTo(...point));
		pen.fill();
		pen.globalAlpha = 1;
	}

	text(words, x, y, align, baseline) {
		const { pen } = this;
		[pen.fillStyle, pen.textAlign, pen.textBaseline] = [this.paint.soft, align, baseline];
		pen.fillText(words, x, y);
	}

	axes() {
		const { width, height, paint, spec } = this, right = width - RIGHT, bottom = height - BOTTOM;
		for (const tick of this.y.ticks(Math.max(3, Math.floor(height / 50)))) {
			const y = Math.round(this.y.at(tick)) + 0.5;
			this.stroke([[LEFT, y], [right, y]], tick === 0 ? paint.soft : paint.grid);
			this.text((spec.y.text || tickText)(tick), LEFT - 7, y, "right", "middle");
		}
		for (const tick of this.x.ticks(Math.max(3, Math.floor((width - LEFT) / 95)), spec.x.time)) {
			const x = Math.round(this.x.at(tick)) + 0.5;
			this.stroke([[x, bottom], [x, bottom + 4]], paint.soft);
			this.text((spec.x.text || tickText)(tick), x, bottom + 8, "center", "top");
		}
		this.stroke([[LEFT, bottom + 0.5], [right, bottom + 0.5]], paint.soft);
	}

	area({ xs, bands, total }) {
		const { paint } = this, stretches = [[]];
		// what is not there ends an area: rows without a total are a gap
		xs.forEach((x, i) => (isNumber(x) && (!total || isNumber(total[i])) ? stretches.at(-1).push(i) : stretches.push([])));
		for (const { values, from, to, colour, faint } of bands) {
			if (!values.some((value) => value)) continue;
			for (const places of stretches) {
				const edge = (side) => places.map((i) => [this.x.at(xs[i]), this.y.at(side[i])]), outline = [...edge(to), ...edge(from).reverse()];
				this.fill(outline, colour, faint ? 0.15 : 0.88);
				this.stroke(outline, paint.ground, 0.7);
			}
		}
	}

	line({ xs, values, colour = this.paint.ink, width = 1.6, dash, dots, faint }) {
		const { pen } = this, each = dots && xs.length < 120;
		const points = xs.map((x, i) => isNumber(x) && isNumber(values[i]) && !(this.y.log && values[i] <= 0) && [this.x.at(x), this.y.at(values[i])]);
		pen.globalAlpha = faint ? 0.22 : 1;
		this.stroke(points, colour, width, dash);
		pen.globalAlpha = 1;
		points.forEach((point, i) => {
			if (!point || !(each || !(points[i - 1] || points[i + 1]))) return;
			pen.fillStyle = colour;
			pen.beginPath();
			pen.arc(...point, 2.6, 0, 7);
			pen.fill();
		});
	}

	inside(x) {
		return x >= LEFT - 1 && x <= this.width - RIGHT + 1;
	}

	marks() {
		const { pen, paint, spec: { marks = [] } } = this, y = this.height - BOTTOM;
		let end = 0; // of the last text
		for (const { x: value, short } of marks.sort((a, b) => a.x - b.x)) {
			const x = this.x.at(value);
			if (!this.inside(x)) continue;
			this.fill([[x - 4, y + 7], [x + 4, y + 7], [x, y]], short ? paint.soft : paint.ink);
			if (!short) continue;
			this.stroke([[x, TOP], [x, y]], paint.soft, 1, [2, 3]);
			const long = pen.measureText(short).width, left = x + long > this.width - 8 ? x - long - 5 : x + 5;
			if (left < end) continue; // the pointer tells it
			this.text(short, left, TOP - 4, "left", "top");
			end = left + long;
		}
	}

	cursors() {
		const { drag, height, paint, spec } = this, bottom = height - BOTTOM;
		for (const [value, dash] of [[spec.cursor], [spec.reference, [4, 3]]]) {
			const x = this.x.at(value);
			if (isNumber(value) && this.inside(x)) this.stroke([[x, TOP - 4], [x, bottom]], paint.ink, 1, dash);
		}
		if (drag) this.fill([[drag[0], TOP], [drag[1], TOP], [drag[1], bottom], [drag[0], bottom]], paint.ink, 0.12);
	}

	// What lies under the pointer: the row that is nearest, its largest values first.
	tooltip() {
		const { hover, tip, paint, width, spec: { marks = [], y } } = this, lines = [];
		tip.hidden = hover == null || !this.inside(hover) || !!this.drag;
		if (tip.hidden) return;
		const at = this.x.back(hover), layers = this.layers.filter(({ faint, xs }) => !faint && xs.length);
		for (const layer of layers) {
			const i = nearest(layer.xs, at);
			lines.push(...(layer.bands || [layer]).map(({ name, values, colour = paint.ink }) => [name, values[i], colour]));
		}
		const there = lines.filter(([, value]) => isNumber(value)).sort(([, a], [, b]) => Math.abs(b) - Math.abs(a)), text = y.text || shown;
		tip.replaceChildren(make("b", layers[0]?.title(nearest(layers[0].xs, at)) ?? tickText(at)),
			...marks.filter((mark) => Math.abs(this.x.at(mark.x) - hover) < 5).map(({ label }) => make("div", `▲ ${label}`)),
			...there.slice(0, MOST_LINES).map(([name, value, colour]) => make("div", make("i", { style: { background: colour } }), make("span", name), make("em", text(value)))),
			there.length > MOST_LINES ? make("div", `… ${there.length - MOST_LINES} more`) : "");
		tip.style.left = `${Math.max(0, hover + 16 + tip.offsetWidth > width ? hover - tip.offsetWidth - 14 : hover + 16)}px`;
	}
}
