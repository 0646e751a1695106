// An element and the page's events in → a reading-room viewer: planes, tools, click-to-segment, metrics.
//
// Nothing here knows the page around it: scans arrive by `study:open` / `series:open`, segments by `segments:changed`,
// places by `viewer:goto`, and what the reader does leaves as `segments:changed`, `evidence:changed` and `toast`.

import { api, emit, on, state as open } from '../bus.js';
import { heatCanvas } from './finding.js';
import { clamp, isVolume, mainPlane, makeGeometry, PLANES, toIndex, toWorld } from './geometry.js';
import { attachKeyboard, attachPointer } from './input.js';
import { fetchSlice, fetchVolume } from './loader.js';
import { Masks } from './masks.js';
import { make, Pane } from './pane.js';
import { presetsFor } from './presets.js';
import { makeLut } from './render.js';
import { helpPanel, Toolbar } from './toolbar.js';

const LAYOUTS = { single: null, two: ['axial', 'coronal'], mpr: PLANES };
const KEPT_FRAMES = 2000;

export class Viewer {
  constructor(element) {
    this.element = element;
    this.stop = new AbortController();
    this.root = make('div', 'rr-viewer', element);
    this.tool = 'segment';
    this.layout = 'mpr';
    this.positive = true;
    this.crosshair = true;
    this.opacity = 0.35;
    this.overlayHidden = false;
    this.heatShown = false;
    this.inverted = false;
    this.spaceHeld = false;
    this.flash = 0;
    this.masks = new Masks();
    this.allRows = []; // every segment of the study, all series
    this.queue = Promise.resolve(); // clicks go to the server one after the other
    this.metrics = { first_image_ms: null, volume_ready_ms: null, frames: [], clicks: [] };
    this.lut = new Uint32Array(65536);
    this.lutVersion = 0;
    this.forget();
    this.toolbar = new Toolbar(this, this.root);
    this.grid = make('div', 'rr-grid', this.root);
    this.panes = PLANES.map((plane) => new Pane(this, plane, this.grid));
    this.slot = make('div', 'rr-slot-3d', this.grid); // the page puts its 3D view here
    this.empty = make('div', 'rr-empty', this.grid);
    this.empty.textContent = 'Open a study to read it here.';
    this.help = helpPanel(this.root);
    this.focus = this.panes[0];
    for (const pane of this.panes) attachPointer(this, pane);
    attachKeyboard(this, this.stop.signal);
    this.observer = new ResizeObserver(() => this.invalidate());
    for (const pane of this.panes) this.observer.observe(pane.stage);
    this.listen();
    this.setLayout('mpr');
  }

  listen() {
    const stops = [
      on('study:open', (study) => this.openStudy(study)),
      on('series:open', (series) => series && this.openSeries(series)),
      on('study:closed', () => this.close()),
      on('segments:changed', (detail) => this.takeSegments(detail.segments, detail.active)),
      on('segment:select', ({ id }) => this.select(id)),
      on('viewer:goto', (detail) => this.goto(detail.lps, detail.segment)),
      on('finding:show', (detail) => this.showFinding(detail)),
    ];
    this.stop.signal.addEventListener('abort', () => stops.forEach((end) => end()));
  }

  // ---- what is open ------------------------------------------------------------------------------------------------

  /** Back to nothing open; voxels are let go. */
  forget() {
    this.loading?.abort();
    this.loading = null;
    this.series = this.header = this.geometry = this.stored = null;
    this.filled = 0;
    this.extra = new Set(); // slices fetched alone before the stream reached them
    this.position = [0, 0, 0];
    this.window = [40, 400];
    this.presets = [];
    this.smallestWidth = 1;
    this.active = null;
    this.hover = null;
    this.ruler = null;
    this.finding = null; // {series, term, box, heatCanvas, lines} that the board points at
    this.problem = '';
    this.ready = Promise.resolve();
  }

  close() {
    this.study = null;
    this.allRows = [];
    this.masks.clear();
    this.forget();
    for (const pane of this.panes) pane.free();
    this.setLayout(this.layout);
  }

  openStudy(study) {
    this.close();
    this.study = study;
    if (!study) return;
    const rows = Array.isArray(study.segments)
      ? Promise.resolve(study.segments)
      : api('GET', `/api/studies/${encodeURIComponent(study.id)}/segments`);
    rows
      .then((found) => this.study === study && this.takeSegments(found, this.active))
      .catch((error) => emit('toast', { level: 'error', text: error.message }));
    // The series list opens the first series where there is one; without a list the viewer does.
    setTimeout(() => {
      if (this.study !== study || this.series || !study.series?.length) return;
      const size = (series) => (series.dimensions || [1]).reduce((a, b) => a * b, 1);
      emit('series:open', [...study.series].sort((a, b) => size(b) - size(a))[0]);
    }, 0);
  }

  openSeries(series) {
    if (this.series?.id === series.id && !this.problem) return this.ready;
    const rows = this.allRows;
    this.forget();
    for (const pane of this.panes) pane.free();
    this.series = series;
    this.loading = new AbortController();
    this.metrics.first_image_ms = this.metrics.volume_ready_ms = null;
    this.updateEmpty();
    this.ready = this.load(series, this.loading.signal).catch((error) => {
      if (error.name === 'AbortError' || this.series !== series) return;
      this.problem = error.message || 'The series could not be opened.';
      emit('toast', { level: 'error', text: this.problem });
      this.updateEmpty();
      this.invalidate();
    });
    this.masks.clear();
    this.takeSegments(rows, null);
    return this.ready;
  }

  async load(series, signal) {
    const started = performance.now();
    const { header, raw } = await fetchSlice(series.id, 'mid', signal);
    header.letters_known = header.letters_known !== false;
    const [columns, rows, slices] = header.stored;
    const all = new Int16Array(columns * rows * slices);
    all.set(raw, header.index * columns * rows);
    this.header = header;
    this.geometry = makeGeometry(header.affine, header.dims);
    this.stored = { raw: all, dims: header.stored };
    this.position = header.dims.map((size, axis) => (axis === 2 ? header.index : size >> 1));
    this.extra.add(header.index);
    this.presets = presetsFor(header, raw);
    this.smallestWidth = Math.abs(header.slope);
    this.hasPlanes = isVolume(this.geometry);
    this.focus = this.panes.find((pane) => pane.plane === mainPlane(this.geometry));
    this.setWindow(...header.window);
    this.setLayout(this.hasPlanes ? 'mpr' : 'single');
    this.drawNow();
    this.metrics.first_image_ms = performance.now() - started;
    if (slices > 1) {
      let drawn = performance.now();
      await fetchVolume(series.id, all, signal, (bytes) => {
        this.filled = bytes;
        if (performance.now() - drawn < 120) return;
        drawn = performance.now();
        this.invalidate();
      });
    }
    this.filled = all.byteLength;
    if (header.modality !== 'CT') this.presets = presetsFor(header, all);
    this.drawNow();
    this.metrics.volume_ready_ms = performance.now() - started;
  }

  /** Bytes of voxels there are, as a part of the whole: 0 to 1. */
  loadedPart() {
    return this.stored ? this.filled / this.stored.raw.byteLength : this.series && !this.problem ? 0.02 : 1;
  }

  /** Changes whenever the voxels that a plane shows may have changed. */
  dataVersion(plane) {
    if (plane !== 'axial') return this.filled;
    const bytes = this.stored.dims[0] * this.stored.dims[1] * 2;
    const k = this.position[2];
    return (k + 1) * bytes <= this.filled ? 'whole' : this.extra.has(k) ? 'alone' : 'none';
  }

  /** A slice that the stream has not reached is fetched alone. */
  async ensureSlice(k) {
    const { stored, series, loading } = this;
    const size = stored.dims[0] * stored.dims[1];
    if ((k + 1) * size * 2 <= this.filled || this.extra.has(k) || this.fetching) return;
    this.fetching = true;
    try {
      const { raw } = await fetchSlice(series.id, k, loading.signal);
      if (this.stored !== stored) return;
      stored.raw.set(raw, k * size);
      this.extra.add(k);
      this.invalidate();
    } catch {
      // The stream brings this slice too, and reports its own failure.
    } finally {
      this.fetching = false;
    }
    if (this.stored === stored && this.position[2] !== k) this.ensureSlice(this.position[2]);
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------

  get shown() {
    return this.root.offsetParent !== null;
  }

  invalidate() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.drawNow();
    });
  }

  drawNow() {
    if (!this.shown) return;
    const started = performance.now();
    for (const pane of this.panes) pane.draw();
    this.toolbar.update();
    if (!this.stored) return;
    if (this.metrics.frames.length >= KEPT_FRAMES) this.metrics.frames.splice(0, KEPT_FRAMES / 2);
    this.metrics.frames.push(performance.now() - started);
  }

  updateEmpty() {
    this.empty.hidden = Boolean(this.stored);
    this.empty.textContent = this.problem || (this.series ? 'Loading…' : 'Open a study to read it here.');
    this.grid.classList.toggle('rr-nothing', !this.stored);
  }

  setLayout(layout) {
    const possible = !this.stored || this.hasPlanes ? layout : 'single';
    this.layout = possible;
    this.grid.dataset.layout = possible;
    const shown = LAYOUTS[possible] || [this.focus.plane];
    for (const pane of this.panes) pane.root.hidden = !shown.includes(pane.plane);
    if (!shown.includes(this.focus.plane)) this.focus = this.panes.find((pane) => pane.plane === shown[0]);
    this.updateEmpty();
    this.invalidate();
  }

  nextLayout() {
    const names = Object.keys(LAYOUTS);
    this.setLayout(names[(names.indexOf(this.layout) + 1) % names.length]);
  }

  statusText() {
    if (!this.stored) return '';
    const { stride } = this.header;
    const parts = [];
    const part = this.loadedPart();
    if (part < 1) parts.push(`loading ${Math.floor(part * 100)} %`);
    if (stride > 1) parts.push('half detail');
    if (!this.header.spacing_known) parts.push('no mm');
    return parts.join(' · ');
  }

  /** The status at length, for whoever points at it. */
  statusTitle() {
    if (!this.stored) return '';
    const parts = [];
    if (this.header.stride > 1) parts.push('Every second voxel in plane is shown; masks and measurements use all.');
    if (!this.header.spacing_known) parts.push('The scan does not say how large its voxels are: lengths are in pixels.');
    return parts.join(' ');
  }

  /** Value and place of a voxel, on two lines. */
  readout(index) {
    const { header, geometry, stored } = this;
    const [i, j] = [Math.floor(index[0] / header.stride), Math.floor(index[1] / header.stride)];
    const at = (index[2] * stored.dims[1] + j) * stored.dims[0] + i;
    if ((at + 1) * 2 > this.filled && !this.extra.has(index[2])) return 'loading'; // a voxel that is not here has no value
    const raw = stored.raw[at];
    const value = raw * header.slope + header.intercept;
    const digits = Number.isInteger(header.slope) && Number.isInteger(header.intercept) ? 0 : 2;
    const unit = header.unit === '1' ? '' : ` ${header.unit}`;
    if (!header.letters_known || !header.spacing_known) return `${value.toFixed(digits).replace('-', '−')}${unit}\n(${index[0]}, ${index[1]})`;
    const [x, y, z] = toWorld(geometry, index).map((mm) => mm.toFixed(1).replace('-', '−'));
    return `${value.toFixed(digits).replace('-', '−')}${unit}\nL ${x}  P ${y}  S ${z} mm`;
  }

  // ---- what the reader does ----------------------------------------------------------------------------------------

  moveTo(index) {
    this.position = index.map((value, axis) => clamp(Math.round(value), this.geometry.dims[axis]));
    this.ensureSlice(this.position[2]);
    this.invalidate();
  }

  navigate(pane, event) {
    const index = pane.indexAt(event);
    if (index) this.moveTo(index);
  }

  setHover(pane, index) {
    const before = this.hover;
    this.hover = pane && index ? { pane, index } : null;
    if (!before && !this.hover) return;
    if (before && before.pane !== pane) before.pane.where.textContent = '';
    if (pane) pane.where.textContent = index ? this.readout(index) : '';
  }

  setTool(tool) {
    this.tool = tool;
    this.grid.dataset.tool = tool;
    this.invalidate();
  }

  setSpace(held) {
    this.spaceHeld = held;
    this.grid.classList.toggle('rr-space', held);
  }

  setPositive(positive) {
    this.positive = positive;
    this.setTool('segment');
  }

  setWindow(centre, width) {
    this.window = [centre, Math.max(width, this.smallestWidth)];
    this.applyWindow();
  }

  applyWindow() {
    if (!this.header) return;
    makeLut(this.header.slope, this.header.intercept, ...this.window, this.inverted, this.lut);
    this.lutVersion++;
    this.invalidate();
  }

  setPreset(n) {
    const preset = this.presets[n];
    if (preset) this.setWindow(preset.centre, preset.width);
  }

  /** Which preset the window is at, or −1. */
  currentPreset() {
    const [centre, width] = this.window;
    return this.presets.findIndex((preset) => Math.abs(preset.centre - centre) < 1e-6 && Math.abs(preset.width - width) < 1e-6);
  }

  toggleInvert() {
    this.inverted = !this.inverted;
    this.applyWindow();
  }

  toggleCrosshair() {
    this.crosshair = !this.crosshair;
    this.invalidate();
  }

  toggleOverlay() {
    this.overlayHidden = !this.overlayHidden;
    this.invalidate();
  }

  /** Outline what a finding rests on; null takes it away. */
  showFinding(detail) {
    this.finding = detail && { ...detail, heatCanvas: detail.heat ? heatCanvas(detail.heat) : null };
    if (detail && !detail.again) this.overlayHidden = false; // brought up to date only: what was hidden stays so
    this.invalidate();
  }

  toggleHeat() {
    this.heatShown = !this.heatShown;
    this.invalidate();
  }

  /** Every structure that a model drew on this radiograph becomes a segment; the segment list asks for them. */
  drawAnatomy() {
    emit('anatomy:draw', { label: null });
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.overlayHidden = false;
    this.invalidate();
  }

  reset() {
    for (const pane of this.panes) pane.reset();
    this.inverted = false;
    this.ruler = null;
    this.setWindow(...this.header.window);
  }

  get helpShown() {
    return !this.help.hidden;
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
    this.invalidate();
  }

  startRuler(pane, point) {
    this.ruler = { pane, slice: pane.slice, from: point, to: point };
  }

  moveRuler(point) {
    if (!this.ruler) return;
    this.ruler.to = point;
    this.invalidate();
  }

  clearRuler() {
    this.ruler = null;
    this.invalidate();
  }

  rulerText() {
    const { pane, from, to } = this.ruler;
    const [dp, dq] = [to[0] - from[0], to[1] - from[1]];
    if (!this.header.spacing_known) return `${Math.hypot(dp, dq).toFixed(0)} px`;
    const { sx, sy, perMm } = pane.transform();
    return `${Math.hypot((dp * sx) / perMm, (dq * sy) / perMm).toFixed(1)} mm`;
  }

  // ---- segments ----------------------------------------------------------------------------------------------------

  get activeRow() {
    return this.masks.rows.find((row) => row.id === this.active);
  }

  select(id) {
    this.active = id;
    this.masks.generation++;
    this.invalidate();
  }

  /** In the navigate tool a click on a segment makes it the active one. */
  selectAt(index) {
    const hit = index && this.masks.rows.find((row) => row.visible && this.masks.has(row.id, index));
    if (hit && hit.id !== this.active) emit('segment:select', { id: hit.id });
  }

  /** The next click starts a new segment. */
  newSegment() {
    this.setPositive(true);
    emit('segments:changed', { segments: this.allRows, active: null });
  }

  takeSegments(rows, active) {
    this.allRows = rows;
    this.active = active ?? null;
    if (!this.series) return;
    const { series } = this;
    this.masksReady = this.masks
      .update(rows, series.id, this.loading?.signal)
      .catch((error) => {
        if (error.name !== 'AbortError') emit('toast', { level: 'error', text: error.message });
      })
      .finally(() => this.series === series && this.invalidate());
    this.invalidate();
  }

  /** Add a prompt at a voxel, after those still on their way. */
  click(pane, index, positive) {
    const done = pane.pending(index);
    const { series } = this;
    const started = performance.now();
    this.moveTo(index);
    return this.enqueue(async () => {
      if (this.series !== series) return;
      await this.change(() =>
        api('POST', `/api/series/${encodeURIComponent(series.id)}/click`, { index, positive, segment: this.active }),
      );
      this.drawNow();
      this.metrics.clicks.push(performance.now() - started);
    }).finally(done);
  }

  undo() {
    return this.step('undo');
  }

  redo() {
    return this.step('redo');
  }

  step(which) {
    return this.enqueue(async () => {
      const row = this.activeRow;
      if (!row) return emit('toast', { level: 'info', text: `Choose a segment to ${which} its last click.` });
      if (!row[`can_${which}`]) return emit('toast', { level: 'info', text: `There is nothing to ${which}.` });
      await this.change(() => api('POST', `/api/segments/${encodeURIComponent(row.id)}/${which}`));
    });
  }

  enqueue(task) {
    const next = this.queue.then(task).catch((error) => emit('toast', { level: 'error', text: error.message }));
    this.queue = next;
    return next;
  }

  /** One request that changes segments: tell everyone, and wait for the overlay. */
  async change(request) {
    const { study } = this;
    const answer = await request();
    if (this.study !== study) return;
    const row = answer.segments.find((candidate) => candidate.id === answer.segment);
    emit('segments:changed', { segments: answer.segments, active: answer.segment });
    emit('evidence:changed');
    if (row?.note) emit('toast', { level: 'info', text: row.note });
    await this.masksReady;
  }

  /** Centre all planes on a point (LPS mm) and flash the segment, opening its series where another is shown. */
  async goto(lps, segment = null) {
    const row = segment && this.allRows.find((candidate) => candidate.id === segment);
    if (row && row.series !== this.series?.id) {
      const series = this.study?.series?.find((candidate) => candidate.id === row.series);
      if (series) emit('series:open', series);
      await this.ready;
    }
    if (row) {
      await this.masksReady;
      this.select(row.id);
    }
    if (!this.geometry) return;
    const index = lps ? toIndex(this.geometry, lps) : row && this.masks.centre(row.id);
    if (!index) return;
    this.moveTo(index);
    for (const pane of this.panes) pane.pan = [0, 0];
    if (row) this.flashSegment();
  }

  flashSegment() {
    const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
    const started = performance.now();
    const turn = (this.turn = {});
    const step = () => {
      if (this.turn !== turn) return;
      const part = (performance.now() - started) / 1200;
      this.flash = part >= 1 ? 0 : still ? 1 : Math.sin(part * 2 * Math.PI) ** 2;
      this.drawNow();
      if (part < 1) requestAnimationFrame(step);
    };
    step();
  }

  /** For tests and the benchmark: what is shown, as plain data. */
  state() {
    const { position, window: levels, layout, tool, positive, inverted, active, crosshair, opacity, problem } = this;
    const header = this.header && { dims: this.header.dims, stride: this.header.stride, unit: this.header.unit };
    return {
      series: this.series?.id ?? null, header, position, window: levels, layout, tool, positive, inverted, active,
      crosshair, opacity, problem, heat: this.heatShown, finding: this.finding && { term: this.finding.term, box: this.finding.box, lines: this.finding.lines ?? [] },
      ready: this.loadedPart() >= 1 && Boolean(this.stored), segments: this.masks.rows.map((row) => row.id),
    };
  }

  unmount() {
    this.forget();
    this.observer.disconnect();
    this.stop.abort();
    this.root.remove();
  }
}

function addStyles() {
  const href = new URL('../../css/viewer.css', import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href)) return;
  const link = document.createElement('link');
  link.rel = 'stylesheet';
  link.href = href;
  document.head.append(link);
}

/** Put a viewer into an element; a second call on the same element answers the first one's. */
export function mount(element) {
  if (element.__viewer) return element.__viewer;
  addStyles();
  const viewer = new Viewer(element);
  const handle = {
    viewer,
    metrics: viewer.metrics,
    state: () => viewer.state(),
    goto: (lps, segment) => viewer.goto(lps, segment),
    /** A prompt on a plane at (i, j, k), as a click there would send it. */
    click: (plane, i, j, k, positive = true) => viewer.click(viewer.panes.find((pane) => pane.plane === plane), [i, j, k], positive),
    /** Page position of a voxel's centre on a plane. */
    pointOf: (plane, ijk) => viewer.panes.find((pane) => pane.plane === plane).clientOf(ijk),
    unmount: () => viewer.unmount(),
  };
  element.__viewer = window.__viewer = handle;
  viewer.updateEmpty();
  // The page may have opened a study before this module arrived.
  if (open.study) viewer.openStudy(open.study);
  if (open.series) viewer.openSeries(open.series);
  return handle;
}
