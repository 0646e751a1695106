// Points of a measurement in → its numbers while it is drawn, and its shape on a pane.  The server measures anew what is
// stored, by the same rules (core_models/segmentation/lines.py).

import { axesOf } from './geometry.js';

/** Tool → how many points it takes and what it is called. */
export const MEASURES = {
  length: { points: 2, name: 'Length', key: 'M' },
  angle: { points: 3, name: 'Angle', key: 'Q' },
  ellipse: { points: 2, name: 'Ellipse: mean, SD, area', key: 'E' },
  probe: { points: 1, name: 'Value at a point', key: 'D' },
  ratio: { points: 4, name: 'Cardiothoracic ratio: heart, then thorax', key: 'K' },
};
const COLOUR = '#ffd866';
const CHOSEN = '#7cc4ff';
const HANDLE = 3.5; // CSS pixels

/** Where the viewer goes to show the points. */
export const middle = (points) => [0, 1, 2].map((n) => points.reduce((sum, point) => sum + point[n], 0) / points.length);

const minus = (a, b) => a.map((value, n) => value - b[n]);
const dot = (a, b) => a.reduce((sum, value, n) => sum + value * b[n], 0);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

/** An index step in mm, or as it is where the spacing is not known. */
function vector(geometry, header, step) {
  if (!header.spacing_known) return step;
  return [0, 1, 2].map((r) => geometry.axes[0][r] * step[0] + geometry.axes[1][r] * step[1] + geometry.axes[2][r] * step[2]);
}

/**
 * The numbers of points that are being drawn: [{key, value, unit}], [] where there are too few.
 * @param view {geometry, header, stored}
 */
export function measure(view, kind, plane, points) {
  const { geometry, header } = view;
  const unit = header.spacing_known ? 'mm' : 'px';
  const apart = (a, b) => Math.hypot(...vector(geometry, header, minus(b, a)));
  if (points.length < 2 && kind !== 'probe') return [];
  if (kind === 'length') return [{ key: 'length', value: apart(points[0], points[1]), unit }];
  if (kind === 'angle') {
    if (points.length < 3) return [{ key: 'length', value: apart(points[0], points[1]), unit }];
    const [a, b] = [0, 2].map((n) => vector(geometry, header, minus(points[n], points[1])));
    return [{ key: 'angle', value: (Math.atan2(Math.hypot(...cross(a, b)), dot(a, b)) * 180) / Math.PI, unit: '°' }];
  }
  if (kind === 'ratio') {
    const heart = { key: 'heart', value: apart(points[0], points[1]), unit };
    if (points.length < 4) return [heart];
    const thorax = apart(points[2], points[3]);
    return [{ key: 'ratio', value: thorax ? heart.value / thorax : 0, unit: '' }];
  }
  if (kind === 'ellipse') return ellipse(view, plane, points);
  return [];
}

function ellipse({ geometry, header, stored }, plane, [a, b]) {
  const { u, v } = axesOf(plane);
  const low = a.map((value, n) => Math.min(value, b[n]));
  const high = a.map((value, n) => Math.max(value, b[n]));
  const centre = low.map((value, n) => (value + high[n]) / 2);
  const half = low.map((value, n) => Math.max((high[n] - value) / 2, 1e-6));
  const first = low.map((value) => Math.max(0, Math.ceil(value)));
  const last = high.map((value, n) => Math.min(geometry.dims[n] - 1, Math.floor(value)));
  const { stride } = header;
  const [columns, rows] = stored.dims;
  let [count, sum, squares] = [0, 0, 0];
  for (let k = first[2]; k <= last[2]; k++) {
    for (let j = first[1]; j <= last[1]; j++) {
      for (let i = first[0]; i <= last[0]; i++) {
        const at = [i, j, k];
        if (((at[u] - centre[u]) / half[u]) ** 2 + ((at[v] - centre[v]) / half[v]) ** 2 > 1) continue;
        const raw = stored.raw[(k * rows + Math.floor(j / stride)) * columns + Math.floor(i / stride)];
        const value = raw * header.slope + header.intercept;
        count++;
        sum += value;
        squares += value * value;
      }
    }
  }
  if (!count) return [];
  const mean = sum / count;
  const pixels = Math.PI * half[u] * half[v];
  const pixel = Math.hypot(...cross(geometry.axes[u], geometry.axes[v])) / 100;
  const unit = header.unit === '1' ? '' : header.unit;
  return [
    { key: 'mean', value: mean, unit },
    { key: 'sd', value: Math.sqrt(Math.max(0, squares / count - mean * mean)), unit },
    { key: 'area', value: header.spacing_known ? pixels * pixel : pixels, unit: header.spacing_known ? 'cm²' : 'px²' },
  ];
}

function digits(value, unit) {
  if (unit === 'HU' || unit === 'px' || unit === 'px²') return 0;
  if (unit === 'cm²') return 2;
  return Math.abs(value) >= 1000 ? 0 : 1;
}

const told = ({ value, unit }) => `${value.toFixed(digits(value, unit)).replace('-', '−')}${unit === '°' ? '' : ' '}${unit}`.trim();

/** The numbers as they stand beside the lines, one line each. */
export function words(numbers) {
  const of = Object.fromEntries(numbers.map((number) => [number.key, number]));
  if (of.ratio) return [`CTR ${of.ratio.value.toFixed(2)}`];
  if (of.mean) return [`${of.mean.value.toFixed(digits(of.mean.value, of.mean.unit)).replace('-', '−')} ± ${told(of.sd)}`, told(of.area)];
  return numbers.slice(0, 1).map(told);
}

/** The shape's points on the canvas in device pixels → its path. */
function trace(context, kind, at) {
  context.beginPath();
  if (kind === 'ellipse' && at.length > 1) {
    const [[ax, ay], [bx, by]] = at;
    context.ellipse((ax + bx) / 2, (ay + by) / 2, Math.abs(bx - ax) / 2, Math.abs(by - ay) / 2, 0, 0, 2 * Math.PI);
    return;
  }
  const parts = kind === 'ratio' ? [at.slice(0, 2), at.slice(2)] : [at];
  for (const part of parts) part.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
}

/**
 * One measurement on a canvas.
 * @param drawn {kind, at: [[x, y]] in device pixels, numbers, label, chosen}
 */
export function drawMeasure(context, { kind, at, numbers, label, chosen }, ratio) {
  const colour = chosen ? CHOSEN : COLOUR;
  context.save();
  context.lineCap = 'round';
  context.lineJoin = 'round';
  for (const [stroke, width] of [['#000', 3.5 * ratio], [colour, 1.5 * ratio]]) {
    context.strokeStyle = stroke;
    context.lineWidth = width;
    trace(context, kind, at);
    context.stroke();
    const arm = kind === 'probe' ? 6 * ratio : HANDLE * ratio;
    for (const [x, y] of at) {
      context.beginPath();
      if (kind === 'probe') {
        context.moveTo(x - arm, y);
        context.lineTo(x + arm, y);
        context.moveTo(x, y - arm);
        context.lineTo(x, y + arm);
      } else context.arc(x, y, arm, 0, 2 * Math.PI);
      context.stroke();
    }
  }
  const lines = words(numbers);
  if (label) lines.unshift(label);
  context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  const wide = Math.max(0, ...lines.map((line) => context.measureText(line).width));
  const [x, y] = at[at.length - 1];
  const left = Math.max(4 * ratio, Math.min(x + 9 * ratio, context.canvas.width - wide - 6 * ratio));
  const step = 15 * ratio;
  const top = Math.max(14 * ratio, Math.min(y - 7 * ratio, context.canvas.height - step * lines.length));
  context.lineWidth = 3.5 * ratio;
  context.strokeStyle = '#000';
  context.fillStyle = colour;
  lines.forEach((line, n) => {
    context.strokeText(line, left, top + n * step);
    context.fillText(line, left, top + n * step);
  });
  context.restore();
}

/** How far (x, y) is from the shape itself, in the same pixels as `at`. */
export function distance(kind, at, x, y) {
  if (kind === 'ellipse') {
    const [[ax, ay], [bx, by]] = at;
    const [rx, ry] = [Math.max(1, Math.abs(bx - ax) / 2), Math.max(1, Math.abs(by - ay) / 2)];
    const radius = Math.hypot((x - (ax + bx) / 2) / rx, (y - (ay + by) / 2) / ry);
    return Math.abs(radius - 1) * Math.min(rx, ry);
  }
  if (at.length === 1) return Math.hypot(x - at[0][0], y - at[0][1]);
  const pairs = kind === 'ratio' ? [[at[0], at[1]], [at[2], at[3]]] : at.slice(1).map((point, n) => [at[n], point]);
  return Math.min(
    ...pairs.map(([[ax, ay], [bx, by]]) => {
      const [dx, dy] = [bx - ax, by - ay];
      const part = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
      return Math.hypot(x - ax - part * dx, y - ay - part * dy);
    }),
  );
}
