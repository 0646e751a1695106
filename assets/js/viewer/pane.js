// One plane on screen: its canvas, edge letters, corner text and slice slider; draws what the viewer's state says.

import { axesOf, edgeLetters, fromDisplay, planeSize, toDisplay } from './geometry.js';
import { drawFinding } from './finding.js';
import { Tint, drawCrosshair, drawHint, drawMarkers, drawScaleBar, drawSegments, marksOf } from './overlay.js';
import { SliceImage, storedSize, visiblePart } from './render.js';
import { Slab, SLABS, slabSlices } from './slab.js';

const NAMES = { axial: 'Axial', coronal: 'Coronal', sagittal: 'Sagittal' };
// Reading order runs head to feet, front to back, right to left: the step that "down" takes along the slice axis.
const DOWN = { axial: -1, coronal: 1, sagittal: 1 };
const MARGIN = 0.985; // of the pane, so that the image's edge is seen
const LENS = { radius: 95, zoom: 2.5 }; // CSS pixels; times the pane's own scale
const SIDES = ['left', 'top', 'right', 'bottom']; // clockwise

export function make(tag, className, parent) {
  const node = document.createElement(tag);
  node.className = className;
  if (parent) parent.append(node);
  return node;
}

export class Pane {
  /** `name` tells panes of one plane apart, for style and tests. */
  constructor(viewer, plane, parent, name = plane) {
    this.viewer = viewer;
    this.plane = plane;
    this.zoom = 1;
    this.pan = [0, 0]; // device-independent pixels
    this.image = new SliceImage();
    this.lensImage = new SliceImage();
    this.slab = new Slab();
    this.pointer = null; // where the mouse is, in device pixels
    this.tint = new Tint();
    this.root = make('div', 'rr-pane', parent);
    this.root.dataset.plane = name;
    this.ratio = this.ink = 1; // device pixels of a CSS pixel; and of one of what is drawn on the image, larger on 4K
    this.stage = make('div', 'rr-stage', this.root);
    this.canvas = make('canvas', 'rr-canvas', this.stage);
    this.canvas.setAttribute('role', 'img');
    this.context = this.canvas.getContext('2d', { alpha: false });
    this.letters = {};
    for (const side of ['left', 'right', 'top', 'bottom']) this.letters[side] = make('span', `rr-letter rr-${side}`, this.stage);
    this.title = make('div', 'rr-corner rr-top-left', this.stage);
    this.where = make('div', 'rr-corner rr-top-right', this.stage);
    this.levels = make('div', 'rr-corner rr-bottom-left', this.stage);
    this.target = make('div', 'rr-corner rr-target', this.stage); // the segment that a click changes
    this.rail = make('div', 'rr-rail', this.root);
    this.ticks = make('canvas', 'rr-ticks', this.rail);
    this.slider = make('input', 'rr-slider', this.rail);
    this.slider.type = 'range';
    this.slider.min = 0;
    this.slider.step = 1;
    this.slider.addEventListener('input', () => this.goTo(this.fromReading(Number(this.slider.value))));
    this.setPlane(plane);
  }

  setPlane(plane) {
    this.plane = plane;
    this.canvas.setAttribute('aria-label', `${NAMES[plane]} image`);
    this.slider.setAttribute('aria-label', `${NAMES[plane]} slice`);
    this.ticksKey = '';
  }

  get geometry() {
    return this.viewer.geometry;
  }

  get visible() {
    return this.root.offsetParent !== null;
  }

  get slices() {
    return this.geometry.dims[axesOf(this.plane).w];
  }

  get slice() {
    return this.viewer.position[axesOf(this.plane).w];
  }

  /** Slice index from its place in reading order, and back (the mapping is its own inverse). */
  fromReading(place) {
    return DOWN[this.plane] < 0 ? this.slices - 1 - place : place;
  }

  goTo(slice) {
    const position = [...this.viewer.position];
    position[axesOf(this.plane).w] = slice;
    this.viewer.moveTo(position);
  }

  /** `steps` slices onward in reading order. */
  scroll(steps) {
    const place = this.fromReading(this.slice) + steps;
    this.goTo(this.fromReading(Math.max(0, Math.min(this.slices - 1, place))));
  }

  reset() {
    this.zoom = 1;
    this.pan = [0, 0];
  }

  /** Size the backing store to the screen; answers whether there is anything to draw on. */
  resize() {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.round(this.stage.clientWidth * ratio);
    const height = Math.round(this.stage.clientHeight * ratio);
    if (!width || !height) return false;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.ink = ratio * (parseFloat(getComputedStyle(this.root).getPropertyValue('--rr-scale')) || 1);
    }
    this.ratio = ratio;
    return true;
  }

  /** How a radiograph is turned on screen: quarter turns clockwise, mirrored before; [0, false] for anything else. */
  get view() {
    return this.viewer.stored && this.slices === 1 ? [this.viewer.turns, this.viewer.mirror] : [0, false];
  }

  /** Unturned canvas → canvas, about its middle; null where nothing is turned. Panning is part of it then. */
  turned() {
    const [turns, mirror] = this.view;
    if (!turns && !mirror) return null;
    const [x, y] = [this.canvas.width / 2, this.canvas.height / 2];
    return new DOMMatrix()
      .translate(x + this.pan[0] * this.ratio, y + this.pan[1] * this.ratio)
      .rotate(90 * turns)
      .scale(mirror ? -1 : 1, 1)
      .translate(-x, -y);
  }

  /** Device pixel = display pixel * s + o, before `turned`. */
  transform() {
    const [columns, rows] = planeSize(this.geometry, this.plane);
    const [turns, mirror] = this.view;
    const { u, v } = axesOf(this.plane);
    const [mmU, mmV] = [this.geometry.spacing[u], this.geometry.spacing[v]];
    const { width, height } = this.canvas;
    const [wide, high] = turns % 2 ? [height, width] : [width, height];
    const fit = Math.min(wide / (columns * mmU), high / (rows * mmV)) * MARGIN;
    const pan = turns || mirror ? [0, 0] : this.pan;
    const perMm = fit * this.zoom;
    const [sx, sy] = [perMm * mmU, perMm * mmV];
    const ox = width / 2 + pan[0] * this.ratio - (columns * sx) / 2;
    const oy = height / 2 + pan[1] * this.ratio - (rows * sy) / 2;
    return { sx, sy, ox, oy, perMm };
  }

  /** Mouse position → display pixel (fractional). */
  pointAt(event) {
    const { sx, sy, ox, oy } = this.transform();
    const [x, y] = this.unturned(this.canvasPoint(event));
    return [(x - ox) / sx, (y - oy) / sy];
  }

  /** Mouse position → device pixel of the canvas. */
  canvasPoint(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
  }

  unturned([x, y]) {
    const matrix = this.turned();
    if (!matrix) return [x, y];
    const point = matrix.inverse().transformPoint(new DOMPoint(x, y));
    return [point.x, point.y];
  }

  /** Display pixel → device pixel of the canvas. */
  onCanvas([p, q]) {
    const { sx, sy, ox, oy } = this.transform();
    const matrix = this.turned();
    if (!matrix) return [p * sx + ox, q * sy + oy];
    const point = matrix.transformPoint(new DOMPoint(p * sx + ox, q * sy + oy));
    return [point.x, point.y];
  }

  /** Index, whole or not → device pixel of the canvas. */
  place(ijk) {
    return this.onCanvas(toDisplay(this.geometry, this.plane, ijk));
  }

  /** Mouse position → voxel (i, j, k), or null outside the image. */
  indexAt(event) {
    const [p, q] = this.pointAt(event);
    return fromDisplay(this.geometry, this.plane, p, q, this.slice);
  }

  /** Voxel → page position of its centre, in CSS pixels (for the pending mark, and for tests). */
  clientOf(ijk) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = this.place(ijk);
    return [box.left + x / this.ratio, box.top + y / this.ratio];
  }

  /** Zoom by a factor, keeping the point under the mouse where it is. */
  zoomAt(event, factor) {
    const before = this.pointAt(event);
    this.zoom = Math.max(0.25, Math.min(40, this.zoom * factor));
    const [x, y] = this.canvasPoint(event);
    const [nowX, nowY] = this.onCanvas(before);
    this.pan[0] += (x - nowX) / this.ratio;
    this.pan[1] += (y - nowY) / this.ratio;
    this.viewer.invalidate();
  }

  draw() {
    if (!this.visible || !this.resize()) return;
    const { viewer, context } = this;
    const { width, height } = this.canvas;
    context.fillStyle = '#000';
    context.fillRect(0, 0, width, height);
    if (!viewer.stored) return this.clearText();
    const { geometry } = this;
    const transform = this.transform();
    const slice = this.slice;
    const matrix = this.turned();
    if (matrix) context.setTransform(matrix);
    const shown = this.source(slice);
    this.drawImage(this.image, shown, transform, matrix, [0, 0, width, height]);
    const { active } = viewer;
    if (!viewer.overlayHidden) this.drawOverlay(slice, transform);
    if (viewer.finding && !viewer.overlayHidden && this.plane === 'axial' && viewer.finding.series === viewer.series.id) {
      drawFinding(context, viewer.finding, geometry.dims, transform, this.ink, viewer.heatShown);
    }
    if (viewer.crosshairOn(this)) {
      drawCrosshair(context, geometry, this.plane, viewer.position, transform, this.ink);
    }
    const row = viewer.masks.rows.find((candidate) => candidate.id === active);
    if (row && !viewer.overlayHidden) drawMarkers(context, geometry, this.plane, slice, row.steps, transform, this.ink);
    if (row?.hint && viewer.hints && !viewer.overlayHidden) drawHint(context, geometry, this.plane, slice, row.hint, transform, this.ink);
    viewer.drawing?.draw(this, context, transform, this.ratio);
    context.resetTransform();
    viewer.annotations?.draw(this, context, this.ink);
    viewer.drawing?.drawCursor(this, context, transform.perMm, this.ratio);
    if (viewer.lens && this.pointer) this.drawLens(shown, slice, transform, matrix);
    if (viewer.header.spacing_known) drawScaleBar(context, transform.perMm, this.ink);
    this.drawText(slice);
  }

  /** What is drawn: the voxels and the stored slice to read, or a slab of several in one. */
  source(slice) {
    const { viewer, plane } = this;
    const { stride } = viewer.header;
    const at = plane === 'axial' ? slice : Math.floor(slice / stride);
    const version = viewer.dataVersion(plane);
    const count = this.slabCount;
    const whole = count < 2 && plane === 'axial' && stride > 1 && viewer.detailOf(slice);
    if (whole) return { stored: whole, at: 0, version: `whole:${viewer.series.id}:${slice}`, stride: 1 };
    if (count < 2) return { stored: viewer.stored, at, version };
    const thinned = plane === 'axial' ? count : Math.max(1, Math.round(count / stride));
    const { mode } = viewer.slabOf;
    const stored = this.slab.update(viewer.stored, plane, at, thinned, mode, plane === 'axial' ? `${viewer.filled}` : version);
    return { stored, at: 0, version: `slab:${this.slab.key}` };
  }

  /** Slices in one picture; 1 where no slab is asked for. */
  get slabCount() {
    const { slabOf, header } = this.viewer;
    if (!slabOf || slabOf.mode === 'none' || this.slices === 1) return 1;
    return slabSlices(this.geometry, header, this.plane, slabOf.mm);
  }

  /** The raw value that a slab shows at stored column, row and slice k; undefined where one slice is shown. */
  slabValue(i, j, k) {
    if (this.slabCount < 2) return undefined;
    const { dims, raw } = this.source(this.slice).stored; // as it is drawn, computed once
    const [x, y, z] = [i, j, k].map((at, axis) => Math.min(at, dims[axis] - 1));
    return raw[(z * dims[1] + y) * dims[0] + x];
  }

  /** The greys inside `box` [x0, y0, x1, y1] of the canvas, under the context's present transform `matrix`. */
  drawImage(image, { stored, at, version, stride = this.viewer.header.stride }, { sx, sy, ox, oy }, matrix, [x0, y0, x1, y1]) {
    const { viewer, context } = this;
    const down = this.plane === 'axial' ? stride : 1; // only i and j are stored with a stride
    const [px, py] = [stride * sx, down * sy]; // screen pixels per stored voxel
    let corners = [[x0, y0], [x1, y1]];
    let scale = 1;
    if (matrix) {
      const back = matrix.inverse();
      corners = [[x0, y0], [x1, y0], [x0, y1], [x1, y1]].map(([x, y]) => back.transformPoint(new DOMPoint(x, y))).map(({ x, y }) => [x, y]);
      scale = Math.hypot(matrix.a, matrix.b);
    }
    const [xs, ys] = [0, 1].map((n) => corners.map((corner) => corner[n]));
    const seen = [Math.floor((Math.min(...xs) - ox) / px), Math.floor((Math.min(...ys) - oy) / py), Math.ceil((Math.max(...xs) - ox) / px), Math.ceil((Math.max(...ys) - oy) / py)];
    const part = visiblePart(...storedSize(stored, this.plane), Math.max(px, py) * scale, seen);
    const picture = image.update(stored, this.plane, at, viewer.lut, part, `${version}:${viewer.lutVersion}`);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = 'medium';
    const [stepX, stepY] = [part.factor * px, part.factor * py];
    context.drawImage(picture, part.c0 * px + ox, part.r0 * py + oy, part.columns * stepX, part.rows * stepY);
  }

  drawOverlay(slice, transform) {
    const { viewer, context, geometry } = this;
    const { opacity, active, flash } = viewer;
    drawSegments(context, this.tint, viewer.masks, this.plane, slice, geometry.dims, transform, { opacity, active, flash, ratio: this.ink });
  }

  /** The image under the pointer, larger, with what is drawn on it. */
  drawLens(shown, slice, transform, matrix) {
    const { context, ratio, viewer } = this;
    const [x, y] = this.pointer;
    const radius = LENS.radius * ratio;
    const zoomed = new DOMMatrix().translate(x, y).scale(LENS.zoom).translate(-x, -y).multiply(matrix || new DOMMatrix());
    context.save();
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.clip();
    context.fillStyle = '#000';
    context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
    context.setTransform(zoomed);
    this.drawImage(this.lensImage, shown, transform, zoomed, [x - radius, y - radius, x + radius, y + radius]);
    if (!viewer.overlayHidden) this.drawOverlay(slice, transform);
    context.restore();
    context.save();
    context.strokeStyle = '#8a94a1';
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
    context.restore();
  }

  drawText(slice) {
    const { viewer } = this;
    const edges = viewer.header.letters_known ? edgeLetters(this.geometry, this.plane) : {};
    const flat = this.slices === 1;
    const [turns, mirror] = this.view;
    if (mirror) [edges.left, edges.right] = [edges.right, edges.left];
    SIDES.forEach((side, n) => (this.letters[SIDES[(n + turns) % 4]].textContent = edges[side] || ''));
    const count = this.slabCount;
    const unit = viewer.header.spacing_known ? `${viewer.slabOf?.mm} mm` : `${count} slices`;
    const slab = count > 1 ? `\n${SLABS[viewer.slabOf.mode]} ${unit}` : '';
    this.title.textContent = flat
      ? [mirror && 'mirrored', turns && `turned ${90 * turns}°`].filter(Boolean).join(', ')
      : `${this.caption ?? NAMES[this.plane]}  ${slice + 1}/${this.slices}${slab}`;
    const hint = viewer.focus === this ? viewer.annotations?.hint() : '';
    if (hint) this.title.textContent += `${this.title.textContent ? '\n' : ''}${hint}`;
    const [centre, width] = viewer.window;
    const digits = width < 10 ? 2 : 0;
    this.levels.textContent = `W ${width.toFixed(digits)}  L ${centre.toFixed(digits)}${viewer.inverted ? '  inverted' : ''}`;
    this.where.textContent = viewer.hover && viewer.hover.pane === this ? viewer.readout(viewer.hover.index, this) : '';
    this.drawTarget();
    this.root.classList.toggle('rr-flat', flat);
    this.root.classList.toggle('rr-mirrored', mirror);
    this.root.classList.toggle('rr-focus', viewer.focus === this && viewer.panes.filter((pane) => pane.visible).length > 1);
    if (flat) return;
    this.slider.max = this.slices - 1;
    const place = String(this.fromReading(slice));
    if (this.slider.value !== place) this.slider.value = place;
    this.slider.setAttribute('aria-valuetext', `${slice + 1} of ${this.slices}`);
    this.drawTicks();
  }

  /** Which segment the tool acts on, where it acts on one; in the segment's colour. */
  drawTarget() {
    const { viewer } = this;
    const row = viewer.activeRow;
    const name = row ? row.label || `segment ${row.number}` : 'new segment';
    const text = viewer.focus === this && viewer.segmenting ? [name, viewer.drawing.hint()].filter(Boolean).join(' · ') : '';
    if (this.target.textContent !== text) this.target.textContent = text;
    this.target.style.setProperty('--rr-target', row?.colour ?? 'transparent');
  }

  clearText() {
    for (const node of [...Object.values(this.letters), this.title, this.levels, this.where, this.target]) node.textContent = '';
    this.root.classList.add('rr-flat');
  }

  /** Where along the slider segments lie (coloured bars) and were clicked (bright dots). */
  drawTicks() {
    const { viewer } = this;
    const [width, height] = [this.rail.clientWidth, this.rail.clientHeight];
    const key = `${viewer.masks.generation}:${width}:${height}:${this.slices}:${viewer.active}:${viewer.hints}:${viewer.marksVersion}`;
    if (key === this.ticksKey || !height) return;
    this.ticksKey = key;
    this.ticks.width = width;
    this.ticks.height = height;
    const context = this.ticks.getContext('2d');
    const through = axesOf(this.plane).w;
    const pad = 7; // half the thumb, where the slider's travel begins
    const y = (slice) => pad + ((height - 2 * pad) * this.fromReading(slice)) / (this.slices - 1);
    for (const row of viewer.masks.rows) {
      const mask = viewer.masks.byId.get(row.id);
      if (!row.visible || !mask || !mask.voxels.length) continue;
      const [a, b] = [y(mask.box[through]), y(mask.box[through] + mask.box[through + 3] - 1)];
      context.fillStyle = /^#[0-9a-f]{6}$/i.test(row.colour) ? row.colour : '#4aa3ff';
      context.globalAlpha = row.id === viewer.active ? 1 : 0.45;
      context.fillRect(0, Math.min(a, b), 2, Math.max(1, Math.abs(b - a)));
      if (row.id !== viewer.active) continue;
      context.fillStyle = '#fff';
      for (const slice of new Set(row.steps.flatMap((step) => marksOf(step).points.slice(0, 1)).map((index) => index[through]))) context.fillRect(0, y(slice) - 1, 4, 2);
      if (row.hint && viewer.hints) {
        context.fillStyle = '#e0a63a';
        context.fillRect(0, y(row.hint.index[through]) - 1, 7, 2);
      }
    }
    context.globalAlpha = 1;
    for (const { slice, chosen } of viewer.annotations?.marks(this.plane) ?? []) {
      context.fillStyle = chosen ? '#7cc4ff' : '#ffd866';
      context.fillRect(width - 5, y(slice) - 1, 5, 2);
    }
  }

  /** A small ring at the click until the overlay is there; answers the function that takes it away. */
  pending(ijk) {
    const [x, y] = this.clientOf(ijk);
    const box = this.stage.getBoundingClientRect();
    const ring = make('span', 'rr-pending', this.stage);
    ring.style.left = `${x - box.left}px`;
    ring.style.top = `${y - box.top}px`;
    return () => ring.remove();
  }

  free() {
    this.image.free();
    this.lensImage.free();
    this.slab.free();
    this.pointer = null;
    this.tint.key = '';
    this.ticksKey = '';
    this.reset();
  }
}
