// Presses on a pane in → scribbles, boxes, lassos, brush strokes and grown regions: shown while drawn, then sent.

import { emit } from '../bus.js';
import { axesOf, fromDisplayExact, toDisplay } from './geometry.js';
import { rgb } from './overlay.js';
import { corners, line, planeValues, Region } from './region.js';

/** The tools that draw, by name: their words in the menu and their keys. */
export const DRAWS = {
  scribble: { name: 'Scribble', key: 'Shift+S' },
  box: { name: 'Box', key: 'Shift+X' },
  lasso: { name: 'Lasso', key: 'Shift+O' },
  brush: { name: 'Brush', key: 'Shift+B' },
  eraser: { name: 'Eraser', key: 'Shift+E' },
  grow: { name: 'Grow by value', key: 'Shift+G' },
};
export const RADII = [0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100]; // mm of the brush
const COLOURS = { true: '#4fbf7b', false: '#e2604f' };
const ERASED = [226, 96, 79];
const MOST_POINTS = 4000; // of one line, as the server takes them
const FIRST = 0.06; // of the window's width: half the range that growing begins with
const WIDEN = 90; // CSS pixels of drag that make the range e times wider
const SHIFT = 600; // CSS pixels of drag that move it by the window's width

const same = (a, b) => a.every((value, axis) => value === b[axis]);

export class Drawing {
  constructor(viewer) {
    this.viewer = viewer;
    this.radius = 5; // mm
    this.forget();
  }

  forget() {
    this.now = null; // {tool, pane, plane, slice, points, positive, region, ...}
    this.sent = new Set(); // on their way to the server, shown until its answer takes their place
  }

  get paints() {
    return ['brush', 'eraser'].includes(this.viewer.tool);
  }

  setRadius(radius) {
    this.radius = radius;
    this.viewer.invalidate();
  }

  /** A brush one step larger (1) or smaller (−1). */
  resize(step) {
    const at = RADII.findIndex((radius) => radius >= this.radius);
    this.setRadius(RADII[Math.max(0, Math.min(RADII.length - 1, (at < 0 ? RADII.length : at) + step))]);
  }

  // ---- the pointer ---------------------------------------------------------------------------------------------------

  /** The voxel under the pointer, or the nearest one inside the image. */
  at(pane, event) {
    const { geometry } = this.viewer;
    return fromDisplayExact(geometry, pane.plane, ...pane.pointAt(event), pane.slice).map((value, axis) => Math.max(0, Math.min(geometry.dims[axis] - 1, Math.round(value))));
  }

  press(pane, event) {
    if (!pane.indexAt(event)) return; // beside the image
    this.begin(pane, this.at(pane, event), event.altKey);
    if (this.now) [this.now.x, this.now.y] = [event.clientX, event.clientY];
  }

  begin(pane, index, other = false) {
    const { viewer } = this;
    const { tool } = viewer;
    this.cancel();
    const positive = tool === 'brush' ? !other : tool === 'eraser' ? other : tool === 'box' || tool === 'lasso' || (viewer.positive && !other);
    const region = this.paints || tool === 'grow' ? new Region(viewer.geometry, pane.plane) : null;
    this.now = { tool, pane, plane: pane.plane, slice: pane.slice, points: [index], positive, region, radius: this.radius, colour: this.colour() };
    if (this.paints) region.stamp(this.pixel(pane.plane, index), this.radius);
    if (tool === 'grow') {
      const values = planeValues(viewer, pane.plane, pane.slice);
      const [column, row] = this.pixel(pane.plane, index);
      const value = values[row * region.columns + column];
      if (!Number.isFinite(value)) this.now = null;
      else {
        Object.assign(this.now, { values, value });
        this.range(0, 0);
      }
    }
    viewer.invalidate();
  }

  move(pane, event) {
    const { now } = this;
    if (!now || now.pane !== pane) return;
    if (now.tool === 'grow') return this.range(event.clientX - now.x, event.clientY - now.y);
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.reach(this.at(pane, each));
    this.viewer.invalidate();
  }

  /** The line goes on to a voxel, or the box's other corner is there. */
  reach(index) {
    const { now } = this;
    const last = now.points[now.points.length - 1];
    if (now.tool === 'box') return (now.points[1] = index);
    if (same(last, index)) return undefined;
    const { u, v } = axesOf(now.plane);
    for (const [a, b] of line([last[u], last[v]], [index[u], index[v]]).slice(1)) {
      const next = [...index];
      [next[u], next[v]] = [a, b];
      now.points.push(next);
      now.region?.stamp(this.pixel(now.plane, next), now.radius);
    }
    return undefined;
  }

  /** Wider to the right, narrower to the left; up and down move it. The value it began at stays inside. */
  range(dx, dy) {
    const { now, viewer } = this;
    const width = viewer.window[1];
    const half = Math.max(viewer.smallestWidth / 2, FIRST * width * Math.exp(dx / WIDEN));
    const centre = now.value + Math.max(-half, Math.min(half, (-dy / SHIFT) * width));
    const whole = Number.isInteger(viewer.header.slope) && Number.isInteger(viewer.header.intercept);
    const round = (value, way) => (whole ? Math[way](value) : value);
    Object.assign(now, { low: Math.min(now.value, round(centre - half, 'floor')), high: Math.max(now.value, round(centre + half, 'ceil')) });
    now.region.flood(now.values, this.pixel(now.plane, now.points[0]), now.low, now.high);
    viewer.invalidate();
  }

  release() {
    const { now } = this;
    this.now = null;
    if (!now) return undefined;
    const prompt = this.prompt(now);
    this.viewer.invalidate();
    if (typeof prompt === 'string') return emit('toast', { level: 'info', text: prompt });
    this.sent.add(now);
    return this.viewer.send(prompt, () => {
      this.sent.delete(now);
      this.viewer.invalidate();
    });
  }

  /** What the server is asked for, or a sentence why there is nothing to ask. */
  prompt({ tool, plane, points, positive, radius, low, high }) {
    const axis = axesOf(plane).w;
    if (tool === 'grow') return { kind: 'grow', seed: points[0], low, high, positive };
    if (tool === 'box') {
      const { u, v } = axesOf(plane);
      const [first, last = first] = points;
      if (Math.min(Math.abs(first[u] - last[u]), Math.abs(first[v] - last[v])) < 2) return 'Drag a box around the structure, from corner to corner.';
      return { kind: 'box', first, last };
    }
    const drawn = corners(points);
    if (drawn.length > MOST_POINTS) return 'This line is too long: draw it in several parts.';
    if (tool === 'lasso') return drawn.length < 3 ? 'Draw a ring around the structure.' : { kind: 'lasso', points: drawn };
    if (tool === 'scribble') return drawn.length < 2 ? { kind: 'click', index: drawn[0], positive } : { kind: 'scribble', points: drawn, positive };
    return { kind: 'stroke', points: drawn, radius_mm: radius, axis, positive };
  }

  /** Enter at the crosshair: a dot, a range around the value, a corner of a box, a line's next point; twice there ends it. */
  enter(pane, index) {
    const { tool } = this.viewer;
    const { now } = this;
    const on = now && now.pane === pane && now.tool === tool && now.slice === pane.slice;
    if (!on) {
      this.begin(pane, index);
      return this.now && ['box', 'lasso', 'scribble'].includes(tool) ? undefined : this.release();
    }
    const ends = tool === 'box' || same(now.points[now.points.length - 1], index);
    this.reach(index);
    this.viewer.invalidate();
    return ends ? this.release() : undefined;
  }

  cancel() {
    const had = Boolean(this.now);
    this.now = null;
    this.viewer.invalidate();
    return had;
  }

  // ---- what is shown -------------------------------------------------------------------------------------------------

  /** Display pixel of a voxel, whole. */
  pixel(plane, index) {
    return toDisplay(this.viewer.geometry, plane, index).map(Math.floor);
  }

  /** The active segment's colour, or that of the next one. */
  colour() {
    return rgb(this.viewer.activeRow?.colour ?? '#4aa3ff');
  }

  /** On a pane, under its present transform. */
  draw(pane, context, transform, ratio) {
    if (this.now?.pane === pane && this.now.slice !== pane.slice) this.cancel();
    for (const drawn of [...this.sent, this.now]) {
      if (drawn?.pane === pane && drawn.slice === pane.slice && drawn.plane === pane.plane) this.show(drawn, context, transform, ratio);
    }
  }

  show({ tool, region, positive, points, plane, colour }, context, transform, ratio) {
    if (region) return region.draw(context, transform, positive ? colour : ERASED, 0.55);
    const { sx, sy, ox, oy } = transform;
    const at = points.map((index) => toDisplay(this.viewer.geometry, plane, index)).map(([p, q]) => [p * sx + ox, q * sy + oy]);
    context.save();
    context.lineCap = context.lineJoin = 'round';
    for (const [stroke, width] of [['#000', 4], [COLOURS[positive], 2]]) {
      context.strokeStyle = stroke;
      context.lineWidth = width * ratio;
      context.setLineDash(tool === 'scribble' || stroke === '#000' ? [] : [6 * ratio, 4 * ratio]);
      context.beginPath();
      if (tool === 'box') {
        const [[x0, y0], [x1, y1] = [x0, y0]] = at;
        context.rect(Math.min(x0, x1) - sx / 2, Math.min(y0, y1) - sy / 2, Math.abs(x1 - x0) + sx, Math.abs(y1 - y0) + sy);
      } else at.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (tool === 'lasso') context.closePath();
      context.stroke();
    }
    context.restore();
    return undefined;
  }

  /** The brush's circle at the pointer, in device pixels of an unturned canvas. */
  drawCursor(pane, context, perMm, ratio) {
    if (!this.paints || !pane.pointer || this.viewer.hover?.pane !== pane) return;
    const [x, y] = pane.pointer;
    context.save();
    for (const [colour, width] of [['#000', 3], [COLOURS[this.viewer.tool === 'brush'], 1.4]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * ratio;
      context.beginPath();
      context.arc(x, y, Math.max(2 * ratio, this.radius * perMm), 0, 2 * Math.PI);
      context.stroke();
    }
    context.restore();
  }

  /** The range, the radius, or what to draw: shown beside the segment's name. */
  hint() {
    const { now, viewer } = this;
    const unit = viewer.header.unit === '1' ? '' : ` ${viewer.header.unit}`;
    const told = (value) => value.toFixed(Number.isInteger(value) ? 0 : 2).replace('-', '−');
    if (now?.tool === 'grow') return `${told(now.low)} to ${told(now.high)}${unit}`;
    if (this.paints) return `radius ${this.radius} ${viewer.header.spacing_known ? 'mm' : 'px'}`;
    return { grow: 'drag right: wider', box: 'box', lasso: 'ring' }[viewer.tool] ?? '';
  }
}
