// One plane on screen: its canvas, edge letters, corner text and slice slider; draws what the viewer's state says.

import { axesOf, edgeLetters, fromDisplay, planeSize, toDisplay } from './geometry.js';
import { drawFinding } from './finding.js';
import { Tint, drawCrosshair, drawMarkers, drawScaleBar, drawSegments } from './overlay.js';
import { SliceImage, storedSize, visiblePart } from './render.js';

const NAMES = { axial: 'Axial', coronal: 'Coronal', sagittal: 'Sagittal' };
// Reading order runs head to feet, front to back, right to left: the step that "down" takes along the slice axis.
const DOWN = { axial: -1, coronal: 1, sagittal: 1 };
const MARGIN = 0.985; // of the pane, so that the image's edge is seen

export function make(tag, className, parent) {
  const node = document.createElement(tag);
  node.className = className;
  if (parent) parent.append(node);
  return node;
}

export class Pane {
  constructor(viewer, plane, parent) {
    this.viewer = viewer;
    this.plane = plane;
    this.zoom = 1;
    this.pan = [0, 0]; // device-independent pixels
    this.image = new SliceImage();
    this.tint = new Tint();
    this.root = make('div', 'rr-pane', parent);
    this.root.dataset.plane = plane;
    this.stage = make('div', 'rr-stage', this.root);
    this.canvas = make('canvas', 'rr-canvas', this.stage);
    this.canvas.setAttribute('role', 'img');
    this.canvas.setAttribute('aria-label', `${NAMES[plane]} image`);
    this.context = this.canvas.getContext('2d', { alpha: false });
    this.letters = {};
    for (const side of ['left', 'right', 'top', 'bottom']) this.letters[side] = make('span', `rr-letter rr-${side}`, this.stage);
    this.title = make('div', 'rr-corner rr-top-left', this.stage);
    this.where = make('div', 'rr-corner rr-top-right', this.stage);
    this.levels = make('div', 'rr-corner rr-bottom-left', this.stage);
    this.rail = make('div', 'rr-rail', this.root);
    this.ticks = make('canvas', 'rr-ticks', this.rail);
    this.slider = make('input', 'rr-slider', this.rail);
    this.slider.type = 'range';
    this.slider.min = 0;
    this.slider.step = 1;
    this.slider.setAttribute('aria-label', `${NAMES[plane]} slice`);
    this.slider.addEventListener('input', () => this.goTo(this.fromReading(Number(this.slider.value))));
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
    }
    this.ratio = ratio;
    return true;
  }

  /** Device pixel = display pixel * s + o. */
  transform() {
    const [columns, rows] = planeSize(this.geometry, this.plane);
    const { u, v } = axesOf(this.plane);
    const [mmU, mmV] = [this.geometry.spacing[u], this.geometry.spacing[v]];
    const { width, height } = this.canvas;
    const fit = Math.min(width / (columns * mmU), height / (rows * mmV)) * MARGIN;
    const perMm = fit * this.zoom;
    const [sx, sy] = [perMm * mmU, perMm * mmV];
    const ox = width / 2 + this.pan[0] * this.ratio - (columns * sx) / 2;
    const oy = height / 2 + this.pan[1] * this.ratio - (rows * sy) / 2;
    return { sx, sy, ox, oy, perMm };
  }

  /** Mouse position → display pixel (fractional). */
  pointAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const { sx, sy, ox, oy } = this.transform();
    return [((event.clientX - box.left) * this.ratio - ox) / sx, ((event.clientY - box.top) * this.ratio - oy) / sy];
  }

  /** Mouse position → voxel (i, j, k), or null outside the image. */
  indexAt(event) {
    const [p, q] = this.pointAt(event);
    return fromDisplay(this.geometry, this.plane, p, q, this.slice);
  }

  /** Voxel → page position of its centre, in CSS pixels (for the pending mark, and for tests). */
  clientOf(ijk) {
    const box = this.canvas.getBoundingClientRect();
    const { sx, sy, ox, oy } = this.transform();
    const [p, q] = toDisplay(this.geometry, this.plane, ijk);
    return [box.left + (p * sx + ox) / this.ratio, box.top + (q * sy + oy) / this.ratio];
  }

  /** Zoom by a factor, keeping the point under the mouse where it is. */
  zoomAt(event, factor) {
    const before = this.pointAt(event);
    this.zoom = Math.max(0.25, Math.min(40, this.zoom * factor));
    const { sx, sy } = this.transform();
    const after = this.pointAt(event);
    this.pan[0] += ((after[0] - before[0]) * sx) / this.ratio;
    this.pan[1] += ((after[1] - before[1]) * sy) / this.ratio;
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
    const { sx, sy, ox, oy } = transform;
    const slice = this.slice;
    const { stride } = viewer.header;
    const storedSlice = this.plane === 'axial' ? slice : Math.floor(slice / stride);
    const down = this.plane === 'axial' ? stride : 1; // only i and j are stored with a stride
    const [px, py] = [stride * sx, down * sy]; // screen pixels per stored voxel
    const seen = [-ox / px, -oy / py, (width - ox) / px, (height - oy) / py].map((edge, n) => (n < 2 ? Math.floor(edge) : Math.ceil(edge)));
    const part = visiblePart(...storedSize(viewer.stored, this.plane), Math.max(px, py), seen);
    const version = `${viewer.dataVersion(this.plane)}:${viewer.lutVersion}`;
    const image = this.image.update(viewer.stored, this.plane, storedSlice, viewer.lut, part, version);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = 'medium';
    const [stepX, stepY] = [part.factor * px, part.factor * py];
    context.drawImage(image, part.c0 * px + ox, part.r0 * py + oy, part.columns * stepX, part.rows * stepY);
    const { active, opacity, flash } = viewer;
    if (!viewer.overlayHidden) {
      drawSegments(context, this.tint, viewer.masks, this.plane, slice, geometry.dims, transform, {
        opacity, active, flash, ratio: this.ratio,
      });
    }
    if (viewer.finding && !viewer.overlayHidden && this.plane === 'axial' && viewer.finding.series === viewer.series.id) {
      drawFinding(context, viewer.finding, geometry.dims, transform, this.ratio, viewer.heatShown);
    }
    if (viewer.crosshair && viewer.panes.filter((pane) => pane.visible).length > 1) {
      drawCrosshair(context, geometry, this.plane, viewer.position, transform, this.ratio);
    }
    const row = viewer.masks.rows.find((candidate) => candidate.id === active);
    if (row && !viewer.overlayHidden) drawMarkers(context, geometry, this.plane, slice, row.clicks, transform, this.ratio);
    if (viewer.ruler && viewer.ruler.pane === this && viewer.ruler.slice === slice) this.drawRuler(viewer.ruler, transform);
    if (viewer.header.spacing_known) drawScaleBar(context, transform.perMm, this.ratio);
    this.drawText(slice);
  }

  drawRuler({ from, to }, { sx, sy, ox, oy }) {
    const { context, ratio } = this;
    const [ax, ay, bx, by] = [from[0] * sx + ox, from[1] * sy + oy, to[0] * sx + ox, to[1] * sy + oy];
    const text = this.viewer.rulerText();
    context.save();
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    for (const [colour, width] of [['#000', 3.5 * ratio], ['#ffd866', 1.5 * ratio]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(ax, ay);
      context.lineTo(bx, by);
      context.stroke();
    }
    context.lineWidth = 3 * ratio;
    context.strokeStyle = '#000';
    context.fillStyle = '#ffd866';
    context.strokeText(text, bx + 8 * ratio, by - 6 * ratio);
    context.fillText(text, bx + 8 * ratio, by - 6 * ratio);
    context.restore();
  }

  drawText(slice) {
    const { viewer } = this;
    const edges = viewer.header.letters_known ? edgeLetters(this.geometry, this.plane) : {};
    for (const side of Object.keys(this.letters)) this.letters[side].textContent = edges[side] || '';
    const flat = this.slices === 1;
    this.title.textContent = flat ? '' : `${NAMES[this.plane]}  ${slice + 1}/${this.slices}`;
    const [centre, width] = viewer.window;
    const digits = width < 10 ? 2 : 0;
    this.levels.textContent = `W ${width.toFixed(digits)}  L ${centre.toFixed(digits)}${viewer.inverted ? '  inverted' : ''}`;
    this.where.textContent = viewer.hover && viewer.hover.pane === this ? viewer.readout(viewer.hover.index) : '';
    this.root.classList.toggle('rr-flat', flat);
    this.root.classList.toggle('rr-focus', viewer.focus === this && viewer.panes.filter((pane) => pane.visible).length > 1);
    if (flat) return;
    this.slider.max = this.slices - 1;
    const place = String(this.fromReading(slice));
    if (this.slider.value !== place) this.slider.value = place;
    this.slider.setAttribute('aria-valuetext', `${slice + 1} of ${this.slices}`);
    this.drawTicks();
  }

  clearText() {
    for (const node of [...Object.values(this.letters), this.title, this.levels, this.where]) node.textContent = '';
    this.root.classList.add('rr-flat');
  }

  /** Where along the slider segments lie (coloured bars) and were clicked (bright dots). */
  drawTicks() {
    const { viewer } = this;
    const [width, height] = [this.rail.clientWidth, this.rail.clientHeight];
    const key = `${viewer.masks.generation}:${width}:${height}:${this.slices}:${viewer.active}`;
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
      for (const { index } of row.clicks) context.fillRect(0, y(index[through]) - 1, 4, 2);
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
    this.tint.key = '';
    this.ticksKey = '';
    this.reset();
  }
}
