// A pane's context, its transform and the viewer's state in → segments, crosshair, click markers and scale bar drawn.

import { axesOf, toDisplay } from './geometry.js';

const ADD = '#4fbf7b';
const REMOVE = '#e2604f';

export function rgb(colour) {
  const match = /^#([0-9a-f]{6})$/i.exec(colour);
  const value = match ? parseInt(match[1], 16) : 0x4aa3ff;
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** The tint of all visible segments on one slice, as a small canvas over the union of their boxes. */
export class Tint {
  constructor() {
    this.canvas = document.createElement('canvas');
    this.context = this.canvas.getContext('2d');
    this.key = '';
    this.box = null;
  }

  update(masks, plane, w, dims, active) {
    const key = `${masks.generation}:${plane}:${w}:${active}`;
    if (key === this.key) return this.box;
    this.key = key;
    const ordered = [...masks.rows].sort((a, b) => (a.id === active) - (b.id === active)); // the active one on top
    const parts = ordered
      .filter((row) => row.visible && !row.outline)
      .map((row) => ({ colour: rgb(row.colour), slice: masks.slice(row.id, plane, w, dims) }))
      .filter((part) => part.slice);
    if (!parts.length) return (this.box = null);
    const p = Math.min(...parts.map(({ slice }) => slice.p));
    const q = Math.min(...parts.map(({ slice }) => slice.q));
    const columns = Math.max(...parts.map(({ slice }) => slice.p + slice.columns)) - p;
    const rows = Math.max(...parts.map(({ slice }) => slice.q + slice.rows)) - q;
    this.canvas.width = columns;
    this.canvas.height = rows;
    const image = this.context.createImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (const { colour, slice } of parts) {
      const word = (0xff000000 | (colour[2] << 16) | (colour[1] << 8) | colour[0]) >>> 0;
      for (let row = 0; row < slice.rows; row++) {
        const out = (slice.q - q + row) * columns + slice.p - p;
        for (let column = 0; column < slice.columns; column++) if (slice.at(column, row)) pixels[out + column] = word;
      }
    }
    this.context.putImageData(image, 0, 0);
    return (this.box = { p, q, columns, rows });
  }
}

/** Tinted fill and one-pixel outlines. `transform` = {sx, sy, ox, oy}: device pixel = display pixel * s + o. */
export function drawSegments(context, tint, masks, plane, w, dims, transform, { opacity, active, flash, ratio }) {
  const box = tint.update(masks, plane, w, dims, active);
  const { sx, sy, ox, oy } = transform;
  context.save();
  context.imageSmoothingEnabled = false;
  context.globalAlpha = Math.min(1, opacity + flash * 0.4);
  if (box) context.drawImage(tint.canvas, box.p * sx + ox, box.q * sy + oy, box.columns * sx, box.rows * sy);
  const matrix = new DOMMatrix([sx, 0, 0, sy, ox, oy]);
  for (const row of masks.rows) {
    const path = row.visible && masks.outline(row.id, plane, w, dims);
    if (!path) continue;
    const placed = new Path2D();
    placed.addPath(path, matrix);
    const strong = row.id === active;
    context.globalAlpha = opacity === 0 ? 0 : strong ? 1 : 0.75;
    context.lineWidth = ((strong && flash > 0 ? 1 + 2 * flash : 1) + (row.outline ? 0.6 : 0)) * ratio;
    context.strokeStyle = `rgb(${rgb(row.colour).join(' ')})`;
    context.stroke(placed);
  }
  context.restore();
}

/** Two thin lines with a gap at the crossing, so that the voxel under it stays in sight. */
export function drawCrosshair(context, geometry, plane, position, transform, ratio) {
  const { sx, sy, ox, oy } = transform;
  const [p, q] = toDisplay(geometry, plane, position);
  const x = Math.round(p * sx + ox) + 0.5;
  const y = Math.round(q * sy + oy) + 0.5;
  const gap = 9 * ratio;
  const { width, height } = context.canvas;
  context.save();
  context.strokeStyle = 'rgb(74 163 255 / 0.55)';
  context.lineWidth = ratio;
  context.beginPath();
  context.moveTo(0, y);
  context.lineTo(x - gap, y);
  context.moveTo(x + gap, y);
  context.lineTo(width, y);
  context.moveTo(x, 0);
  context.lineTo(x, y - gap);
  context.moveTo(x, y + gap);
  context.lineTo(x, height);
  context.stroke();
  context.restore();
}

/** Where a step lies: the points that mark it, and whether it adds. A brush's work shows in the mask itself. */
export function marksOf({ kind, index, seed, points, first, last, positive = true }) {
  if (kind === 'click') return { points: [index], positive };
  if (kind === 'grow') return { points: [seed], positive };
  if (kind === 'box') return { points: [first, last], positive };
  return { points: points ?? [], positive };
}

/** Green + and red − where the active segment was prompted, and its lines and boxes, on the slices they lie in. */
export function drawMarkers(context, geometry, plane, w, steps, transform, ratio) {
  const through = axesOf(plane).w;
  const { sx, sy, ox, oy } = transform;
  const arm = 4.5 * ratio;
  context.save();
  context.lineCap = context.lineJoin = 'round';
  for (const step of steps) {
    const { points, positive } = marksOf(step);
    if (points.length > 1) drawLine(context, geometry, plane, w, step, positive, transform, ratio);
    const [index] = points;
    if (points.length !== 1 || index[through] !== w) continue;
    const [p, q] = toDisplay(geometry, plane, index);
    const [x, y] = [p * sx + ox, q * sy + oy];
    for (const [colour, width] of [['#000', 4 * ratio], [positive ? ADD : REMOVE, 2 * ratio]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(x - arm, y);
      context.lineTo(x + arm, y);
      if (positive) {
        context.moveTo(x, y - arm);
        context.lineTo(x, y + arm);
      }
      context.stroke();
    }
  }
  context.restore();
}

/** A scribble, a lasso or a box on the slice it was drawn on (a cuboid on each of its slices), thin. */
function drawLine(context, geometry, plane, w, { kind, points, first, last }, positive, { sx, sy, ox, oy }, ratio) {
  const { u, v, w: through } = axesOf(plane);
  let at = points;
  if (kind === 'box') {
    const [low, high] = [Math.min, Math.max].map((pick) => [0, 1, 2].map((axis) => pick(first[axis], last[axis])));
    if (w < low[through] || w > high[through] || low[u] === high[u] || low[v] === high[v]) return;
    at = [[low[u], low[v]], [high[u], low[v]], [high[u], high[v]], [low[u], high[v]]].map(([a, b]) => {
      const corner = [...first];
      [corner[u], corner[v]] = [a, b];
      return corner;
    });
  } else if (at.some((index) => index[through] !== w)) return;
  context.globalAlpha = 0.8;
  for (const [colour, width] of [['#000', 2.6 * ratio], [positive ? ADD : REMOVE, 1.2 * ratio]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    at.forEach((index, n) => {
      const [p, q] = toDisplay(geometry, plane, index);
      context[n ? 'lineTo' : 'moveTo'](p * sx + ox, q * sy + oy);
    });
    if (kind !== 'scribble') context.closePath();
    context.stroke();
  }
  context.globalAlpha = 1;
}

/** Where the next click would tell the engine most: a ring with a + or −, hollow, so that it is not taken for a click. */
export function drawHint(context, geometry, plane, w, { index, positive }, { sx, sy, ox, oy }, ratio) {
  if (index[axesOf(plane).w] !== w) return;
  const [p, q] = toDisplay(geometry, plane, index);
  const [x, y] = [p * sx + ox, q * sy + oy];
  const [radius, arm] = [8 * ratio, 3.5 * ratio];
  context.save();
  for (const [colour, width] of [['#000', 3.5 * ratio], ['#e0a63a', 1.6 * ratio]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(colour === '#000' ? [] : [3 * ratio, 2.5 * ratio]);
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
    context.setLineDash([]);
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    if (positive) {
      context.moveTo(x, y - arm);
      context.lineTo(x, y + arm);
    }
    context.stroke();
  }
  context.restore();
}

/** A round number of millimetres whose bar is at most a quarter of the pane: {mm, pixels}. */
export function scaleBar(pixelsPerMm, paneWidth) {
  const room = paneWidth / 4 / pixelsPerMm;
  const power = 10 ** Math.floor(Math.log10(room));
  const mm = [5, 2, 1].map((step) => step * power).find((length) => length <= room);
  return { mm, pixels: mm * pixelsPerMm };
}

export function drawScaleBar(context, pixelsPerMm, ratio) {
  const { width, height } = context.canvas;
  const { mm, pixels } = scaleBar(pixelsPerMm, width);
  // Lines of one pixel are sharp only where they run through the middle of pixels.
  const right = Math.round(width - 12 * ratio) - 0.5;
  const left = Math.round(right - pixels) + 0.5;
  const y = Math.round(height - 12 * ratio) - 0.5;
  const tick = 4 * ratio;
  context.save();
  context.font = `600 ${11 * ratio}px system-ui, sans-serif`;
  context.textAlign = 'center';
  context.lineJoin = 'round';
  const text = mm >= 10 ? `${mm / 10} cm` : `${mm} mm`;
  const line = () => {
    context.beginPath();
    context.moveTo(left, y - tick);
    context.lineTo(left, y);
    context.lineTo(right, y);
    context.lineTo(right, y - tick);
    context.stroke();
  };
  context.strokeStyle = '#000';
  context.lineWidth = 3 * ratio;
  line();
  context.strokeText(text, (left + right) / 2, y - 5 * ratio);
  context.strokeStyle = '#d5dbe3';
  context.fillStyle = '#d5dbe3';
  context.lineWidth = ratio;
  line();
  context.fillText(text, (left + right) / 2, y - 5 * ratio);
  context.restore();
}
