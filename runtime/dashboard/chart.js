// Score over time with its threshold, drawn on a canvas: no library, for a device has no network.

export const SPAN_S = 120;

const GAP_S = 2;
const MARGIN = { left: 46, right: 12, top: 30, bottom: 22 };
const FONT = '12px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif';

/** Points of one camera: [time in seconds, score, threshold, 1 if anomalous]. */
export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = [];
    this.now = 0;
    this.threshold = null;
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  update(points, now, threshold) {
    // After a restart of the line its clock begins anew.
    if (this.points.length && now < this.points[this.points.length - 1][0]) this.points = [];
    this.points.push(...points);
    const first = this.points.findIndex((point) => point[0] >= now - SPAN_S - GAP_S);
    this.points.splice(0, first < 0 ? this.points.length : first);
    this.now = now;
    this.threshold = threshold;
    this.draw();
  }

  draw() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    if (box.width < 80 || box.height < 60 || document.hidden) return;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(box.width), height = Math.round(box.height);
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = FONT;
    const plane = this.plane(width, height);
    this.grid(pen, plane);
    this.scores(pen, plane);
    this.limit(pen, plane);
    this.legend(pen, plane);
  }

  plane(width, height) {
    const style = getComputedStyle(this.canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    let low = 0, high = 0;
    for (const [, score, limit] of this.points) {
      if (score !== null) { low = Math.min(low, score); high = Math.max(high, score); }
      if (limit !== null) { low = Math.min(low, limit); high = Math.max(high, limit * 1.15); }
    }
    if (this.threshold !== null) high = Math.max(high, this.threshold * 1.3);
    if (high <= low) high = low + 1;
    const step = niceStep((high - low) / 4);
    high = Math.ceil((high * 1.02) / step) * step;
    low = Math.floor(low / step) * step;
    const left = MARGIN.left, right = width - MARGIN.right;
    const top = MARGIN.top, bottom = height - MARGIN.bottom;
    return {
      left, right, top, bottom, low, high, step, color,
      x: (time) => right - ((this.now - time) / SPAN_S) * (right - left),
      y: (value) => bottom - ((value - low) / (high - low)) * (bottom - top),
    };
  }

  grid(pen, plane) {
    pen.lineWidth = 1;
    pen.strokeStyle = plane.color("--line");
    pen.fillStyle = plane.color("--soft");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const count = Math.round((plane.high - plane.low) / plane.step);
    for (let row = 0; row <= count; row += 1) {
      const value = plane.low + row * plane.step;
      const y = Math.round(plane.y(value)) + 0.5;
      stroke(pen, [[plane.left, y], [plane.right, y]]);
      pen.fillText(shortNumber(value, plane.step), plane.left - 8, y);
    }
    pen.textBaseline = "alphabetic";
    const every = plane.right - plane.left < 420 ? 60 : 30;
    for (let age = 0; age <= SPAN_S; age += every) {
      const x = plane.x(this.now - age);
      pen.textAlign = age === 0 ? "right" : age === SPAN_S ? "left" : "center";
      const text = age === 0 ? "now" : age % 60 === 0 ? `−${age / 60} min` : `−${age} s`;
      pen.fillText(text, x, plane.bottom + 17);
    }
  }

  scores(pen, plane) {
    pen.save();
    pen.beginPath();
    pen.rect(plane.left, plane.top - 4, plane.right - plane.left, plane.bottom - plane.top + 8);
    pen.clip();
    pen.beginPath();
    let before = null;
    for (const [time, score] of this.points) {
      if (score === null) { before = null; continue; }
      const joined = before !== null && time - before < GAP_S;
      if (joined) pen.lineTo(plane.x(time), plane.y(score));
      else pen.moveTo(plane.x(time), plane.y(score));
      before = time;
    }
    pen.lineJoin = "round";
    pen.lineWidth = 1.5;
    pen.strokeStyle = plane.color("--score");
    pen.stroke();
    // A shape, not a colour alone: triangles where a frame was anomalous.
    pen.fillStyle = plane.color("--alarm-ink");
    for (const [x, y] of this.peaks(plane)) triangle(pen, x, y);
    pen.restore();
  }

  /** The anomalous points, the highest one of each few pixels. */
  peaks(plane) {
    const highest = new Map();
    for (const [time, score, , anomalous] of this.points) {
      if (!anomalous || score === null) continue;
      const x = plane.x(time), y = plane.y(score);
      const slot = Math.floor(time / 1.5);
      if (!highest.has(slot) || y < highest.get(slot)[1]) highest.set(slot, [x, y]);
    }
    return highest.values();
  }

  limit(pen, plane) {
    if (this.threshold === null) return;
    const steps = [];
    for (const [time, , limit] of this.points) {
      if (limit === null || plane.x(time) < plane.left) continue;
      const y = plane.y(limit);
      if (steps.length) steps.push([plane.x(time), steps[steps.length - 1][1]]);
      steps.push([plane.x(time), y]);
    }
    const y = plane.y(this.threshold);
    const first = [[plane.left, steps.length ? steps[0][1] : y], ...steps];
    pen.setLineDash([6, 4]);
    pen.lineWidth = 1.5;
    pen.strokeStyle = plane.color("--limit");
    stroke(pen, [...first, [plane.right, first[first.length - 1][1]], [plane.right, y]]);
    pen.setLineDash([]);
  }

  /** Above the plane, where no curve crosses the words. */
  legend(pen, plane) {
    const y = 13;
    let x = plane.left;
    const word = (text) => {
      pen.fillStyle = plane.color("--soft");
      pen.fillText(text, x, y + 4);
      x += pen.measureText(text).width + 18;
    };
    pen.textAlign = "left";
    pen.lineWidth = 1.5;
    pen.strokeStyle = plane.color("--score");
    stroke(pen, [[x, y], [x + 18, y]]);
    x += 24;
    word("Score");
    pen.setLineDash([6, 4]);
    pen.strokeStyle = plane.color("--limit");
    stroke(pen, [[x, y], [x + 26, y]]);
    pen.setLineDash([]);
    x += 32;
    word(`Threshold ${number(this.threshold)}`);
    pen.fillStyle = plane.color("--alarm-ink");
    triangle(pen, x + 5, y + 1);
    x += 14;
    word("Anomalous");
  }
}

/** Four significant digits, as in the captions of the pictures. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(3);
  return size >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(4)));
}

function shortNumber(value, step) {
  const digits = Math.min(8, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  return Math.abs(value) >= 1e6 ? value.toExponential(1) : value.toFixed(digits);
}

function niceStep(rough) {
  const size = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * size >= rough) * size;
}

function stroke(pen, path) {
  pen.beginPath();
  path.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

function triangle(pen, x, y) {
  pen.beginPath();
  pen.moveTo(x, y - 4.5);
  pen.lineTo(x + 4, y + 2.5);
  pen.lineTo(x - 4, y + 2.5);
  pen.fill();
}
