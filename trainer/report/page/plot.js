// One chart on a canvas: stacked areas, lines, marks on the axis, a chosen step; mouse and keyboard.
import { element, isNumber } from "./dom.js";

const LEFT = 62, RIGHT = 12, TOP = 12, BOTTOM = 30;

// A stack: each value lies on those before it, negative ones below zero.
export function stacked(bands, length) {
  const up = new Float64Array(length), down = new Float64Array(length);
  return bands.map((band) => {
    const from = new Float64Array(length), to = new Float64Array(length);
    const sum = band.values.reduce((a, b) => a + (b || 0), 0); // where it is 0, on the side where it mostly is
    for (let i = 0; i < length; i++) {
      const value = isNumber(band.values[i]) ? band.values[i] : 0;
      const side = value < 0 || (value === 0 && sum < 0) ? down : up;
      from[i] = side[i];
      to[i] = side[i] += value;
    }
    return { ...band, from, to };
  });
}

export function niceTicks(low, high, count) {
  const span = high - low || 1;
  const rough = span / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
  return ticks;
}

const CLOCK = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

function timeTicks(low, high, count) {
  const step = CLOCK.find((s) => (high - low) / s <= count), ticks = [];
  if (!step || high - low < 5) return niceTicks(low, high, count);
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) ticks.push(tick);
  return ticks;
}

function logTicks(low, high, room) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const every = Math.max(1, Math.ceil((last - first + 1) / Math.max(room, 2)));
  const ticks = [];
  for (let e = first; e <= last; e += every) ticks.push(10 ** e);
  return ticks.length >= 2 ? ticks : niceTicks(low, high, 3).filter((t) => t >= low);
}

export function tickText(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e4 && size < 1e15) {
    const [unit, name] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([u]) => size >= u);
    return `${Number((value / unit).toPrecision(6))}${name}`.replace("-", "−");
  }
  if (size < 1e-3 || size >= 1e15) return value.toExponential(Number.isInteger(Math.log10(size)) ? 0 : 1).replace("-", "−").replace("e−", "e-");
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

function hatch(context, colour, ground, turn) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = ground;
  pen.lineWidth = 1.6;
  pen.beginPath();
  for (const shift of [-8, 0, 8]) {
    pen.moveTo(shift, turn ? 0 : 8);
    pen.lineTo(shift + 8, turn ? 8 : 0);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

export class Plot {
  // handlers: pick(x, reference), zoom(from, to) or zoom(null), step(direction, far)
  constructor(title, height, handlers = {}) {
    this.handlers = handlers;
    this.height = height;
    this.canvas = element("canvas", { tabindex: "0", role: "img", "aria-label": title });
    this.tip = element("div", { class: "tip", hidden: true });
    this.figure = element("figure", { class: "plot" }, this.canvas, this.tip);
    this.figure.plot = this;
    this.spec = null;
    this.hover = null;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.figure);
  }

  show(spec) {
    this.spec = spec;
    this.layers = spec.layers.map((layer) =>
      layer.kind === "stack" ? { ...layer, bands: stacked(layer.bands, layer.xs.length) } : layer);
    this.canvas.setAttribute("aria-label", spec.label || "chart");
    this.draw();
  }

  listen() {
    const canvas = this.canvas;
    let pressed = null;
    const at = (event) => event.clientX - canvas.getBoundingClientRect().left;
    canvas.addEventListener("pointerdown", (event) => {
      pressed = at(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      this.hover = at(event);
      this.drag = pressed != null && Math.abs(at(event) - pressed) > 5 ? [pressed, at(event)] : null;
      this.pointerY = event.clientY - canvas.getBoundingClientRect().top;
      this.draw();
    });
    canvas.addEventListener("pointerup", (event) => {
      if (this.drag && this.handlers.zoom) {
        const [a, b] = this.drag.map((p) => this.fromPixel(p)).sort((p, q) => p - q);
        this.handlers.zoom(a, b);
      } else if (pressed != null && this.handlers.pick) {
        this.handlers.pick(this.fromPixel(at(event)), event.shiftKey);
      }
      pressed = this.drag = null;
      this.draw();
    });
    canvas.addEventListener("pointerleave", () => {
      this.hover = null;
      this.draw();
    });
    canvas.addEventListener("dblclick", () => this.handlers.zoom?.(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const { step, zoom } = this.handlers, [low, high] = this.x || [0, 1];
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (event.key in moves && step) step(moves[event.key] * (event.shiftKey ? 10 : 1), event.altKey);
    else if (event.key === "0" && zoom) zoom(null);
    else if ((event.key === "+" || event.key === "-") && zoom) {
      const middle = this.spec.cursor ?? (low + high) / 2, factor = event.key === "+" ? 0.5 : 2;
      zoom(middle - (middle - low) * factor, middle + (high - middle) * factor);
    } else return;
    event.preventDefault();
  }

  toPixel(value) {
    const [low, high] = this.x, log = this.spec.x.log ? Math.log10 : (v) => v;
    return LEFT + ((log(value) - log(low)) / (log(high) - log(low) || 1)) * (this.width - LEFT - RIGHT);
  }

  fromPixel(pixel) {
    const [low, high] = this.x, part = (pixel - LEFT) / (this.width - LEFT - RIGHT);
    const inside = Math.min(Math.max(part, 0), 1);
    return this.spec.x.log ? low * (high / low) ** inside : low + inside * (high - low);
  }

  toY(value) {
    const [low, high] = this.y, log = this.spec.y.log ? (v) => Math.log10(Math.max(v, low * 1e-3)) : (v) => v;
    const part = (log(value) - log(low)) / (log(high) - log(low) || 1);
    return this.height - BOTTOM - part * (this.height - BOTTOM - TOP);
  }

  // The extent of what is drawn within the zoom.
  measure() {
    const { x, y } = this.spec;
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const { xs } of this.layers) {
      for (const value of xs) {
        if (!isNumber(value) || (x.log && value <= 0)) continue;
        left = Math.min(left, value);
        right = Math.max(right, value);
      }
    }
    if (isNumber(x.from)) left = x.from;
    if (isNumber(x.to)) right = x.to;
    if (!(right > left)) [left, right] = isNumber(left) ? [left * 0.99, left * 1.01 || 1] : [x.log ? 1 : 0, x.log ? 10 : 1];
    const take = (value) => {
      if (!isNumber(value) || (y.log && value <= 0)) return;
      low = Math.min(low, value);
      high = Math.max(high, value);
    };
    for (const layer of this.layers) {
      layer.xs.forEach((value, i) => {
        if (value < left || value > right) return;
        if (layer.kind === "stack") {
          for (const band of layer.bands) take(band.to[i]);
          if (!y.log) take(0);
        } else take(layer.values[i]);
      });
    }
    if (!isNumber(low)) [low, high] = y.log ? [0.1, 1] : [0, 1];
    if (isNumber(y.from)) low = Math.min(y.from, low);
    if (isNumber(y.to)) high = Math.max(y.to, high);
    if (y.log) [low, high] = high > low ? [low / 1.15, high * 1.15] : [low / 2, high * 2];
    else {
      const pad = (high - low || Math.abs(high) || 1) * 0.05;
      if (!(low === 0)) low -= pad;
      if (!(high === 0) && y.to !== high) high += pad;
    }
    [this.x, this.y] = [[left, right], [low, high]];
  }

  draw() {
    const width = this.figure.clientWidth;
    if (!this.spec || !width) return;
    const scale = window.devicePixelRatio || 1, style = getComputedStyle(this.figure);
    this.paint = Object.fromEntries(["ink", "soft", "grid", "ground"].map((k) => [k, style.getPropertyValue(`--${k}`).trim()]));
    this.width = width;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.canvas.style.height = `${this.height}px`;
    const pen = (this.pen = this.canvas.getContext("2d"));
    pen.scale(scale, scale);
    pen.font = `11px ${style.fontFamily}`;
    pen.fillStyle = this.paint.ground;
    pen.fillRect(0, 0, width, this.height);
    this.measure();
    this.axes(pen);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, TOP - 2, width - LEFT - RIGHT, this.height - TOP - BOTTOM + 4);
    pen.clip();
    for (const layer of this.layers) (layer.kind === "stack" ? this.area : this.line).call(this, pen, layer);
    pen.restore();
    this.marks(pen);
    this.cursors(pen);
    this.tooltip();
  }

  axes(pen) {
    const { width, height, paint, spec } = this, right = width - RIGHT;
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const rows = Math.max(3, Math.floor(height / 50));
    for (const tick of spec.y.log ? logTicks(...this.y, rows) : niceTicks(...this.y, rows)) {
      const y = Math.round(this.toY(tick)) + 0.5;
      if (y < TOP - 3 || y > height - BOTTOM + 3) continue;
      pen.strokeStyle = tick === 0 ? paint.soft : paint.grid;
      pen.beginPath();
      pen.moveTo(LEFT, y);
      pen.lineTo(right, y);
      pen.stroke();
      pen.fillStyle = paint.soft;
      pen.fillText(spec.y.text ? spec.y.text(tick) : tickText(tick), LEFT - 7, y);
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const columns = Math.max(3, Math.floor((width - LEFT) / 95));
    const ticks = (spec.x.log ? logTicks : spec.x.time ? timeTicks : niceTicks)(...this.x, columns);
    for (const tick of ticks) {
      const x = Math.round(this.toPixel(tick)) + 0.5;
      if (x < LEFT - 1 || x > right + 1) continue;
      pen.strokeStyle = paint.soft;
      pen.beginPath();
      pen.moveTo(x, height - BOTTOM);
      pen.lineTo(x, height - BOTTOM + 4);
      pen.stroke();
      pen.fillStyle = paint.soft;
      pen.fillText(spec.x.text ? spec.x.text(tick) : tickText(tick), Math.min(Math.max(x, LEFT + 6), right - 14), height - BOTTOM + 8);
    }
    pen.strokeStyle = paint.soft;
    pen.beginPath();
    pen.moveTo(LEFT, height - BOTTOM + 0.5);
    pen.lineTo(right, height - BOTTOM + 0.5);
    pen.stroke();
  }

  area(pen, layer) {
    const { xs, total } = layer;
    for (const band of layer.bands) {
      if (!band.values.some((v) => isNumber(v) && v !== 0)) continue;
      pen.globalAlpha = band.faint ? 0.15 : 0.88;
      pen.fillStyle = band.cycle ? hatch(pen, band.colour, this.paint.ground, band.cycle % 2) : band.colour;
      // what is not there ends an area: rows without a total are a gap
      for (const [start, stop] of runsOf(xs, total)) {
        pen.beginPath();
        for (let i = start; i < stop; i++) pen.lineTo(this.toPixel(xs[i]), this.toY(band.to[i]));
        for (let i = stop - 1; i >= start; i--) pen.lineTo(this.toPixel(xs[i]), this.toY(band.from[i]));
        pen.closePath();
        pen.fill();
        pen.globalAlpha = 1;
        pen.strokeStyle = this.paint.ground;
        pen.lineWidth = 0.7;
        pen.stroke();
        pen.globalAlpha = band.faint ? 0.15 : 0.88;
      }
    }
    pen.globalAlpha = 1;
    if (total) this.line(pen, { xs, values: total, colour: this.paint.ink, width: 1.8 });
  }

  line(pen, { xs, values, colour, width = 1.6, dash = [], dots = false, faint = false }) {
    pen.globalAlpha = faint ? 0.22 : 1;
    pen.strokeStyle = pen.fillStyle = colour || this.paint.ink;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.setLineDash(dash);
    const there = (i) => isNumber(values[i]) && !(this.spec.y.log && values[i] <= 0);
    pen.beginPath();
    let open = false, alone = [];
    for (let i = 0; i < xs.length; i++) {
      if (!there(i)) {
        open = false;
        continue;
      }
      const x = this.toPixel(xs[i]), y = this.toY(values[i]);
      if (open) pen.lineTo(x, y);
      else {
        pen.moveTo(x, y);
        if (!there(i + 1)) alone.push([x, y]);
      }
      open = true;
    }
    pen.stroke();
    pen.setLineDash([]);
    const points = dots && xs.length < 120 ? xs.map((x, i) => there(i) && [this.toPixel(x), this.toY(values[i])]) : alone;
    for (const point of points) {
      if (!point) continue;
      pen.beginPath();
      pen.arc(point[0], point[1], 2.6, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  marks(pen) {
    for (const mark of this.spec.marks || []) {
      const x = this.toPixel(mark.x);
      if (!(x >= LEFT && x <= this.width - RIGHT)) continue;
      pen.fillStyle = pen.strokeStyle = mark.kind === "skipped" ? this.paint.ink : this.paint.soft;
      const y = this.height - BOTTOM;
      pen.beginPath();
      pen.moveTo(x - 4, y + 7);
      pen.lineTo(x + 4, y + 7);
      pen.lineTo(x, y);
      pen.closePath();
      pen.fill();
      if (mark.kind !== "skipped") {
        pen.setLineDash([2, 3]);
        pen.beginPath();
        pen.moveTo(x, TOP);
        pen.lineTo(x, y);
        pen.stroke();
        pen.setLineDash([]);
        pen.textBaseline = "top";
        pen.textAlign = x > this.width - 90 ? "right" : "left";
        pen.fillText(mark.short || "", x + (pen.textAlign === "left" ? 5 : -5), TOP - 2);
      }
    }
  }

  cursors(pen) {
    for (const [value, dash] of [[this.spec.cursor, []], [this.spec.reference, [4, 3]]]) {
      if (!isNumber(value)) continue;
      const x = this.toPixel(value);
      if (!(x >= LEFT - 1 && x <= this.width - RIGHT + 1)) continue;
      pen.strokeStyle = this.paint.ink;
      pen.lineWidth = 1;
      pen.setLineDash(dash);
      pen.beginPath();
      pen.moveTo(x, TOP - 4);
      pen.lineTo(x, this.height - BOTTOM);
      pen.stroke();
      pen.setLineDash([]);
    }
    if (!this.drag) return;
    pen.fillStyle = this.paint.ink;
    pen.globalAlpha = 0.12;
    pen.fillRect(this.drag[0], TOP, this.drag[1] - this.drag[0], this.height - TOP - BOTTOM);
    pen.globalAlpha = 1;
  }

  // What lies under the pointer: the row that is nearest, its largest values first.
  tooltip() {
    const { hover, tip, spec } = this;
    tip.hidden = hover == null || hover < LEFT - 4 || hover > this.width - RIGHT + 4 || !!this.drag;
    if (tip.hidden) return;
    const at = this.fromPixel(hover), near = (this.spec.marks || []).filter((m) => Math.abs(this.toPixel(m.x) - hover) < 5);
    const lines = [];
    let title = null;
    for (const layer of this.layers) {
      if (layer.faint || !layer.xs.length) continue;
      const i = nearest(layer.xs, at);
      title ??= layer.title?.(i);
      if (layer.kind === "stack") {
        if (layer.total) lines.push({ name: layer.totalName || "total", value: layer.total[i], colour: this.paint.ink });
        lines.push(...layer.bands.map((b) => ({ name: b.name, value: b.values[i], colour: b.colour }))
          .filter((l) => isNumber(l.value)).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)));
      } else if (isNumber(layer.values[i])) lines.push({ name: layer.name, value: layer.values[i], colour: layer.colour || this.paint.ink });
    }
    const text = spec.y.text || ((v) => String(Number(v.toPrecision(5))));
    tip.replaceChildren(
      element("b", {}, title ?? tickText(at)),
      ...near.map((mark) => element("div", {}, `▲ ${mark.label}`)),
      ...lines.slice(0, 14).map((line) => element("div", {},
        element("i", { style: { background: line.colour } }), element("span", {}, line.name), element("em", {}, isNumber(line.value) ? text(line.value) : "–"))),
      lines.length > 14 ? element("div", {}, `… ${lines.length - 14} more`) : "",
    );
    const left = hover + 16 + tip.offsetWidth > this.width ? hover - tip.offsetWidth - 14 : hover + 16;
    tip.style.left = `${Math.max(left, 0)}px`;
    tip.style.top = `${TOP}px`;
  }
}

// Stretches [start, stop) in which a row has a total and a place on the axis.
function runsOf(xs, total) {
  const stretches = [];
  let start = null;
  for (let i = 0; i <= xs.length; i++) {
    const there = i < xs.length && isNumber(xs[i]) && (!total || isNumber(total[i]));
    if (there && start == null) start = i;
    if (!there && start != null) {
      stretches.push([start, i]);
      start = null;
    }
  }
  return stretches;
}

export function nearest(xs, value) {
  let best = 0;
  for (let i = 1; i < xs.length; i++) if (Math.abs(xs[i] - value) < Math.abs(xs[best] - value)) best = i;
  return best;
}
