// An element and the page's events in → a reading-room viewer: planes, tools, click-to-segment, metrics.
//
// Nothing here knows the page around it: scans arrive by `study:open` / `series:open`, segments by `segments:changed`,
// places by `viewer:goto`, and what the reader does leaves as `segments:changed`, `evidence:changed` and `toast`.

import { api, emit, on, state as open } from '../bus.js';
import { Annotations } from './annotations.js';
import { Cine } from './cine.js';
import { choices, Companion, day } from './companion.js';
import { heatCanvas } from './finding.js';
import { axesOf, isVolume, mainPlane, PLANES, toIndex } from './geometry.js';
import { Drawing, DRAWS } from './drawing.js';
import { attachKeyboard, attachPointer } from './input.js';
import { make, Pane } from './pane.js';
import { middle } from './lines.js';
import { Segmented } from './segmented.js';
import { SLABS } from './slab.js';
import { helpPanel, Toolbar } from './toolbar.js';

const LAYOUTS = { single: null, two: ['axial', 'coronal'], mpr: PLANES, compare: null };
const KEPT_FRAMES = 2000;
const THICKNESSES = [3, 5, 10, 15, 20, 30, 50, 100, 200]; // mm of a slab

export class Viewer extends Segmented {
  constructor(element) {
    super();
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
    this.lens = false;
    this.keyCursor = false; // the crosshair stands where the keyboard put it, also on a single image
    this.slabOf = { mode: 'none', mm: 10 };
    this.turns = 0; // of a radiograph on screen: quarter turns clockwise, mirrored before
    this.mirror = false;
    this.spaceHeld = false;
    this.flash = 0;
    this.hints = true;
    this.metrics = { first_image_ms: null, volume_ready_ms: null, frames: [], clicks: [] };
    this.annotations = new Annotations(this);
    this.drawing = new Drawing(this);
    this.cine = new Cine(this);
    this.earlier = []; // studies of the same patient with an earlier date
    this.marksVersion = 0;
    this.forget();
    this.toolbar = new Toolbar(this, this.root);
    this.grid = make('div', 'rr-grid', this.root);
    this.panes = PLANES.map((plane) => new Pane(this, plane, this.grid));
    this.slot = make('div', 'rr-slot-3d', this.grid); // the page puts its 3D view here
    this.heading = make('div', 'rr-heading', this.grid);
    this.companion = new Companion(this, this.grid);
    this.empty = make('div', 'rr-empty', this.grid);
    this.empty.textContent = 'Open a study to read it here.';
    this.help = helpPanel(this.root);
    this.focus = this.panes[0];
    for (const pane of this.panes) attachPointer(this, pane);
    attachKeyboard(this, this.stop.signal);
    this.observer = new ResizeObserver(() => this.invalidate());
    for (const pane of [...this.panes, this.companion.pane]) this.observer.observe(pane.stage);
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
      on('viewer:goto', (detail) => this.goto(detail.lps, detail.segment, detail.annotation)),
      on('segment:largest', ({ id }) => this.toLargest(id)),
      on('segment:delete', ({ id }) => this.removeSegment(id)),
      on('segment:alternative', () => this.alternative()),
      on('finding:show', (detail) => this.showFinding(detail)),
    ];
    this.stop.signal.addEventListener('abort', () => stops.forEach((end) => end()));
  }

  // ---- what is open ------------------------------------------------------------------------------------------------

  /** Back to nothing open; voxels are let go. */
  forget() {
    this.forgetVoxels();
    this.active = null;
    this.hover = null;
    this.finding = null; // {series, term, box, heatCanvas, lines} that the board points at
    this.inverted = this.mirror = this.keyCursor = false;
    this.turns = 0;
    this.slabOf = { mode: 'none', mm: this.slabOf.mm };
    this.annotations.cancel();
    this.drawing.forget();
    this.begins = null;
    this.cine.reset();
    this.ready = Promise.resolve();
  }

  close() {
    this.study = null;
    this.earlier = [];
    this.forgetSegments();
    this.forget();
    this.annotations.forget();
    this.companion.forget();
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
    this.annotations.load(study).catch((error) => emit('toast', { level: 'error', text: error.message }));
    this.findEarlier(study);
    // The series list opens the first series where there is one; without a list the viewer does.
    setTimeout(() => {
      if (this.study !== study || this.series || !study.series?.length) return;
      const size = (series) => (series.dimensions || [1]).reduce((a, b) => a * b, 1);
      emit('series:open', [...study.series].sort((a, b) => size(b) - size(a))[0]);
    }, 0);
  }

  /** Earlier studies of the patient are offered, never opened unasked; without an answer there is no offer. */
  async findEarlier(study) {
    const found = await api('GET', `/api/studies/${encodeURIComponent(study.id)}/earlier`).catch(() => []);
    if (this.study !== study) return;
    this.earlier = found;
    this.invalidate();
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
    await this.read(series, signal, () => {
      this.hasPlanes = isVolume(this.geometry);
      this.focus = this.panes.find((pane) => pane.plane === mainPlane(this.geometry));
      this.setLayout(this.layout === 'compare' && this.choices().length ? 'compare' : this.hasPlanes ? 'mpr' : 'single');
      this.drawNow();
      this.metrics.first_image_ms = performance.now() - started;
    });
    this.drawNow();
    this.metrics.volume_ready_ms = performance.now() - started;
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------

  get shown() {
    return this.root.offsetParent !== null;
  }

  invalidate() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => this.scheduled && this.drawNow());
  }

  drawNow() {
    this.scheduled = false; // whatever waited for the next frame is drawn here
    if (!this.shown) return;
    const started = performance.now();
    for (const pane of this.panes) pane.draw();
    if (this.layout === 'compare') this.companion.draw();
    this.toolbar.update();
    if (!this.stored) return;
    if (this.metrics.frames.length >= KEPT_FRAMES) this.metrics.frames.splice(0, KEPT_FRAMES / 2);
    this.metrics.frames.push(performance.now() - started);
  }

  ticksChanged() {
    this.marksVersion++;
  }

  updateEmpty() {
    this.empty.hidden = Boolean(this.stored);
    this.empty.textContent = this.problem || (this.series ? 'Loading…' : 'Open a study to read it here.');
    this.grid.classList.toggle('rr-nothing', !this.stored);
  }

  setLayout(layout) {
    const can = { single: true, compare: this.choices().length > 0 };
    const possible = !this.stored || (can[layout] ?? this.hasPlanes) ? layout : 'single';
    this.layout = possible;
    this.grid.dataset.layout = possible;
    const { plane } = this.focus;
    const shown = LAYOUTS[possible] || [plane];
    for (const pane of this.panes) pane.root.hidden = !shown.includes(pane.plane);
    if (!shown.includes(plane) || this.focus.viewer !== this) this.focus = this.panes.find((pane) => pane.plane === (shown.includes(plane) ? plane : shown[0]));
    this.setCompare(possible === 'compare' && Boolean(this.stored));
    this.updateEmpty();
    this.invalidate();
  }

  nextLayout() {
    const names = Object.keys(LAYOUTS).filter((name) => name === 'single' || (name === 'compare' ? this.choices().length : this.hasPlanes));
    this.setLayout(names[(names.indexOf(this.layout) + 1) % names.length]);
  }

  /** What the open series can be compared with. */
  choices() {
    return this.study && this.series ? choices(this.study, this.series, this.earlier) : [];
  }

  setCompare(shown) {
    const { companion } = this;
    companion.pane.root.hidden = companion.heading.hidden = this.heading.hidden = !shown;
    if (!shown) return;
    const { series } = this;
    this.heading.textContent = `${day(this.study.date)}  ${series.modality} ${series.description || `Series ${series.number}`}`;
    companion.setPlane(this.focus.plane);
    companion.offer(this.choices());
  }

  toggleLink() {
    if (this.layout === 'compare') this.companion.toggleLink();
  }

  statusText() {
    if (!this.stored) return '';
    const { stride } = this.header;
    const parts = [];
    const part = this.loadedPart();
    if (part < 1) parts.push(`loading ${Math.floor(part * 100)} %`);
    if (stride > 1) parts.push('half detail');
    if (!this.header.spacing_known) parts.push('no mm');
    if (this.cine.running) parts.push(`cine ${this.cine.rate} / s`);
    else if (this.earlier.length && this.layout !== 'compare') parts.push(`earlier ${this.earlier[0].date.slice(0, 4)}`);
    return parts.join(' · ');
  }

  /** The status at length, for whoever points at it. */
  statusTitle() {
    if (!this.stored) return '';
    const parts = [];
    if (this.header.stride > 1) parts.push('The scan is too large to be held whole: every second voxel in plane is shown while scrolling, in the other planes and in slabs; an axial slice at rest has all, and masks and measurements use all.');
    if (!this.header.spacing_known) parts.push('The scan does not say how large its voxels are: lengths are in pixels.');
    if (this.earlier.length && this.layout !== 'compare') parts.push(`There is an earlier study of this patient (${day(this.earlier[0].date)}): the compare layout shows it beside this one (L).`);
    return parts.join(' ');
  }

  // ---- what the reader does ----------------------------------------------------------------------------------------

  moveTo(index) {
    this.placeAt(index);
    if (this.layout === 'compare') this.companion.follow();
  }

  /** The crosshair a voxel on, in the plane that has the focus: what a mouse points at, without one. */
  nudge(across, down) {
    const pane = this.focus;
    const { viewer } = pane;
    const { u, v, flip } = axesOf(pane.plane);
    const index = [...viewer.position];
    index[u] += across;
    index[v] += flip ? -down : down;
    this.keyCursor = true;
    viewer.moveTo(index);
    if (viewer !== this) return;
    this.annotations.follow(pane, this.position);
    this.setHover(pane, this.position);
  }

  /** What a click at the crosshair would do. */
  act() {
    const pane = this.focus;
    if (pane.viewer !== this) return;
    if (this.tool === 'segment') this.click(pane, this.position, this.positive);
    else if (this.tool in DRAWS) this.drawing.enter(pane, this.position);
    else if (this.tool === 'navigate') this.selectAt(this.position);
    else this.annotations.enter(pane, this.position);
  }

  crosshairOn(pane) {
    return this.keyCursor || (this.crosshair && this.layout !== 'single' && pane.slices > 1);
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
    if (pane) pane.where.textContent = index ? this.readout(index, pane) : '';
  }

  /** Value, place, and the segments that lie there. */
  readout(index, pane = null) {
    const names = this.overlayHidden ? [] : this.masks.rows.filter((row) => row.visible && this.masks.has(row.id, index));
    return [super.readout(index, pane), names.map((row) => row.label || `segment ${row.number}`).join(', ')].filter(Boolean).join('\n');
  }

  setTool(tool) {
    if (tool !== this.tool) {
      this.annotations.cancel();
      this.drawing.cancel();
    }
    this.tool = tool;
    this.grid.dataset.tool = tool;
    this.invalidate();
  }

  /** A tool by its key; a ratio of heart and thorax needs a radiograph. */
  chooseTool(tool) {
    if (tool === 'ratio' && !this.flat) return emit('toast', { level: 'info', text: 'A cardiothoracic ratio is measured on a frontal radiograph.' });
    this.setTool(tool);
  }

  setSpace(held) {
    this.spaceHeld = held;
    this.grid.classList.toggle('rr-space', held);
  }

  /** Whether the tool changes a segment. */
  get segmenting() {
    return this.tool === 'segment' || this.tool in DRAWS;
  }

  /** Clicks, scribbles and grown regions add or remove from now on; brush and eraser change places. */
  setPositive(positive) {
    this.positive = positive;
    if (this.drawing.paints) this.setTool(positive ? 'brush' : 'eraser');
    else if (!['scribble', 'grow'].includes(this.tool)) this.setTool('segment');
    this.invalidate();
  }

  toggleHints() {
    this.hints = !this.hints;
    this.invalidate();
  }

  /** To where the engine would have the next click. */
  toHint() {
    const hint = this.activeRow?.hint;
    if (!hint) return emit('toast', { level: 'info', text: this.activeRow?.settled ? 'The last click changed little; another will hardly help. A brush (Shift+B) will.' : 'There is no hint for a next click.' });
    this.hints = true;
    return this.moveTo(hint.index);
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
    for (const pane of [...this.panes, this.companion.pane]) pane.reset();
    this.turns = 0;
    this.mirror = false;
    this.slabOf = { ...this.slabOf, mode: 'none' };
    for (const view of this.layout === 'compare' && this.companion.stored ? [this, this.companion] : [this]) {
      view.inverted = false;
      view.setWindow(...view.header.window);
    }
  }

  get flat() {
    return Boolean(this.stored) && this.geometry.dims[2] === 1;
  }

  /** A radiograph a quarter turn on; the letters, where there are any, turn with it. */
  turn(quarters = 1) {
    if (!this.flat) return emit('toast', { level: 'info', text: 'Only single images are turned: planes of a scan keep their sides.' });
    this.turns = (this.turns + quarters + 4) % 4;
    this.invalidate();
  }

  /** Left and right exchanged on screen, and told in the image's corner. */
  flip() {
    if (!this.flat) return emit('toast', { level: 'info', text: 'Only single images are mirrored: planes of a scan keep their sides.' });
    this.mirror = !this.mirror;
    this.turns = (4 - this.turns) % 4; // mirrored as it stands on screen
    this.invalidate();
  }

  toggleLens() {
    this.lens = !this.lens;
    this.invalidate();
  }

  setSlab(mode, mm = this.slabOf.mm) {
    this.slabOf = { mode, mm };
    this.invalidate();
  }

  nextSlab() {
    const modes = Object.keys(SLABS);
    this.setSlab(modes[(modes.indexOf(this.slabOf.mode) + 1) % modes.length]);
  }

  /** A slab one step thicker (1) or thinner (−1); without one a MIP begins. */
  thicken(step) {
    const { mode, mm } = this.slabOf;
    if (mode === 'none') return this.setSlab('max');
    const at = THICKNESSES.findIndex((thickness) => thickness >= mm);
    this.setSlab(mode, THICKNESSES[Math.max(0, Math.min(THICKNESSES.length - 1, (at < 0 ? THICKNESSES.length : at) + step))]);
  }

  toggleCine() {
    this.cine.toggle();
    this.invalidate();
  }

  get helpShown() {
    return !this.help.hidden;
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
    this.invalidate();
  }

  // ---- going to a place ---------------------------------------------------------------------------------------------

  /** The slice of the focused plane on which the active segment is largest. */
  toLargest(id = this.active) {
    const pane = this.focus.viewer === this ? this.focus : this.panes[0];
    const slice = this.masks.largestSlice(id, pane.plane);
    if (slice < 0) return emit('toast', { level: 'info', text: 'Choose a segment to go to its largest slice.' });
    this.moveTo(this.masks.centre(id).map((value, axis) => (axis === axesOf(pane.plane).w ? slice : value)));
  }

  /** Centre all planes on a point (LPS mm), flash the segment or choose the measurement, opening its series where
   * another is shown. */
  async goto(lps, segment = null, annotation = null) {
    const row = segment && this.allRows.find((candidate) => candidate.id === segment);
    const drawn = annotation && this.annotations.rows.find((candidate) => candidate.id === annotation);
    const wanted = (row || drawn)?.series;
    if (wanted && wanted !== this.series?.id) {
      const series = this.study?.series?.find((candidate) => candidate.id === wanted);
      if (series) emit('series:open', series);
      await this.ready;
    }
    if (drawn) {
      this.annotations.select(drawn.id);
      if (!this.panes.some((pane) => pane.visible && pane.plane === drawn.plane)) {
        this.focus = this.panes.find((pane) => pane.plane === drawn.plane);
        this.setLayout(this.layout);
      }
    }
    if (row) {
      await this.masksReady;
      this.select(row.id);
    }
    if (!this.geometry) return;
    if (drawn && !lps) return this.moveTo(middle(drawn.points));
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
      annotations: this.annotations.rows, selected: this.annotations.selected, slab: this.slabOf, turns: this.turns, mirror: this.mirror,
      cine: this.cine.running, hints: this.hints, radius: this.drawing.radius,
    };
  }

  unmount() {
    this.forget();
    this.companion.forget();
    this.annotations.unmount();
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
