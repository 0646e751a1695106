// Another series of the patient in → a pane beside the viewer's own, scrolled with it by the place in the patient.
//
// Linked by millimetres and never by index: the slice shown is the one that holds the same point.  Two dates have two
// frames of reference; a reader who unlinks, scrolls one to its fellow and links again keeps that distance.

import { emit } from '../bus.js';
import { attachPointer } from './input.js';
import { axesOf, toIndex, toWorld } from './geometry.js';
import { Loaded } from './loaded.js';
import { Masks } from './masks.js';
import { make, Pane } from './pane.js';

const PARALLEL = 0.94; // cosine: 20 degrees
const OWN_TOOLS = ['window', 'zoom', 'pan'];

const dot = (a, b) => a.reduce((sum, value, n) => sum + value * b[n], 0);
const unit = (vector) => vector.map((value) => value / Math.hypot(...vector));

/** What may be compared with the open series: earlier studies of the patient first, the like of it before others. */
export function choices(study, series, earlier) {
  const like = (other) => (other.modality === series.modality ? 0 : 2) + (other.description === series.description ? 0 : 1);
  const size = (other) => (other.shape || [1]).reduce((a, b) => a * b, 1);
  const sorted = (list) => [...list].sort((a, b) => like(a) - like(b) || size(b) - size(a));
  const name = (other) => other.description || `Series ${other.number}`;
  const out = [];
  for (const before of earlier) {
    for (const other of sorted(before.series)) out.push({ study: before.id, series: other, date: before.date, name: `${day(before.date)}  ${other.modality} ${name(other)}` });
  }
  for (const other of sorted(study.series)) {
    if (other.id !== series.id) out.push({ study: study.id, series: other, date: study.date, name: `this study  ${other.modality} ${name(other)}` });
  }
  return out;
}

export function day(date) {
  return /^\d{8}$/.test(date || '') ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}` : 'no date';
}

/** Why two series cannot be scrolled together on a plane, in a few words; "" when they can. */
export function unlinkable(a, b, plane, offset = [0, 0, 0]) {
  if (!a.stored || !b.stored) return 'loading';
  const through = axesOf(plane).w;
  if (a.geometry.dims[through] < 2 || b.geometry.dims[through] < 2) return 'single images';
  if (![a, b].every(({ header }) => header.spacing_known && header.letters_known)) return 'a series has no known geometry';
  if (Math.abs(dot(unit(a.geometry.axes[through]), unit(b.geometry.axes[through]))) < PARALLEL) return 'the planes differ in angle';
  const normal = unit(a.geometry.axes[through]);
  const reach = (view, move) => {
    const ends = [0, view.geometry.dims[through] - 1].map((at) => {
      const index = view.geometry.dims.map((size) => (size - 1) / 2);
      index[through] = at;
      return dot(toWorld(view.geometry, index).map((value, n) => value + move[n]), normal);
    });
    return [Math.min(...ends), Math.max(...ends)];
  };
  const [one, two] = [reach(a, offset), reach(b, [0, 0, 0])];
  return one[0] > two[1] || two[0] > one[1] ? 'they show different parts of the body' : '';
}

export class Companion extends Loaded {
  constructor(viewer, grid) {
    super();
    this.main = viewer;
    this.masks = new Masks();
    this.pane = new Pane(this, 'axial', grid, 'compare');
    this.panes = [this.pane];
    this.active = this.hover = this.finding = null;
    this.flash = this.turns = 0;
    this.mirror = this.spaceHeld = false;
    this.heading = make('div', 'rr-heading rr-heading-other', grid);
    this.select = make('select', 'rr-presets rr-other', this.heading);
    this.select.setAttribute('aria-label', 'What to compare with');
    this.select.addEventListener('change', () => {
      this.open(this.list[Number(this.select.value)]);
      this.select.blur();
    });
    this.link = make('button', 'rr-link', this.heading);
    this.link.type = 'button';
    this.link.addEventListener('pointerdown', (event) => event.preventDefault());
    this.link.addEventListener('click', () => this.toggleLink());
    this.heading.hidden = this.pane.root.hidden = true;
    this.forget();
    attachPointer(this, this.pane);
  }

  forget() {
    this.forgetVoxels();
    this.masks.clear();
    this.list = [];
    this.chosen = null;
    this.linked = true;
    this.offset = [0, 0, 0]; // mm from the viewer's place to this one's
    this.pane.free();
  }

  // What a pane and the pointer ask of a viewer.
  get tool() {
    return OWN_TOOLS.includes(this.main.tool) ? this.main.tool : 'navigate';
  }

  get opacity() {
    return this.main.opacity;
  }

  get overlayHidden() {
    return this.main.overlayHidden;
  }

  get crosshair() {
    return this.main.crosshair;
  }

  get lens() {
    return this.main.lens;
  }

  get slabOf() {
    return this.main.slabOf;
  }

  get focus() {
    return this.main.focus;
  }

  set focus(pane) {
    this.main.focus = pane;
  }

  get marksVersion() {
    return 0;
  }

  crosshairOn(pane) {
    return this.main.crosshair && pane.slices > 1;
  }

  invalidate() {
    this.main.invalidate();
  }

  setHover(pane, index) {
    this.hover = pane && index ? { pane, index } : null;
    this.pane.where.textContent = this.hover ? this.readout(index, pane) : '';
  }

  navigate(pane, event) {
    const index = pane.indexAt(event);
    if (index) this.moveTo(index);
  }

  selectAt() {}

  // ---- what is shown -------------------------------------------------------------------------------------------------

  /** Take the choices and show one: the one that is shown already where it is still there, else the first. */
  offer(list) {
    this.list = list;
    this.select.replaceChildren(...list.map((choice, n) => new Option(choice.name, String(n))));
    const again = list.findIndex((choice) => choice.series.id === this.series?.id);
    if (again >= 0) this.select.value = String(again);
    else if (list.length) return this.open(list[0]);
    return this.ready;
  }

  open(choice) {
    if (!choice) return undefined;
    const { list } = this;
    this.forget();
    this.list = list;
    this.chosen = choice;
    this.series = choice.series;
    this.select.value = String(list.indexOf(choice));
    this.pane.setPlane(this.main.focus.plane);
    this.pane.caption = day(choice.date);
    this.loading = new AbortController();
    const { series } = choice;
    const { signal } = this.loading;
    if (choice.study === this.main.study?.id) this.masks.update(this.main.allRows, series.id, signal).catch(() => {}).finally(() => this.invalidate());
    this.ready = this.read(series, signal, () => this.arrived())
      .then(() => this.invalidate())
      .catch((error) => {
        if (error.name === 'AbortError' || this.series !== series) return;
        this.problem = error.message;
        emit('toast', { level: 'error', text: error.message });
      });
    return this.ready;
  }

  /** The first slice is here: the same window where grey levels mean the same, and the same place. */
  arrived() {
    const { main } = this;
    if (main.header && this.header.unit === main.header.unit && this.header.unit !== '1') this.setWindow(...main.window);
    this.follow();
    this.invalidate();
  }

  setPlane(plane) {
    if (this.pane.plane === plane) return;
    this.pane.setPlane(plane);
    this.follow();
  }

  // ---- linked by place -----------------------------------------------------------------------------------------------

  get problemOfLink() {
    return unlinkable(this.main, this, this.pane.plane, this.offset);
  }

  /** The viewer moved: show the slice with the same point. */
  follow() {
    if (!this.linked || this.problemOfLink) return;
    const place = toWorld(this.main.geometry, this.main.position).map((value, n) => value + this.offset[n]);
    this.placeAt(toIndex(this.geometry, place));
  }

  /** This one moved: the viewer goes along. */
  moveTo(index) {
    this.placeAt(index);
    if (!this.linked || this.problemOfLink) return;
    const place = toWorld(this.geometry, this.position).map((value, n) => value - this.offset[n]);
    this.main.placeAt(toIndex(this.main.geometry, place));
  }

  /** Linking again keeps the distance that the two have now. */
  toggleLink() {
    this.linked = !this.linked;
    if (this.linked && this.stored && this.main.stored) {
      const [here, there] = [toWorld(this.geometry, this.position), toWorld(this.main.geometry, this.main.position)];
      this.offset = here.map((value, n) => value - there[n]);
      if (this.problemOfLink) this.offset = [0, 0, 0];
    }
    this.invalidate();
  }

  draw() {
    if (!this.pane.visible) return;
    this.pane.draw();
    const problem = this.problemOfLink;
    const apart = Math.hypot(...this.offset);
    const text = problem === 'loading' ? '' : problem ? `not linked: ${problem}` : !this.linked ? 'not linked' : apart > 0.5 ? `linked, ${apart.toFixed(0)} mm apart` : 'linked by position';
    if (this.link.textContent !== text) this.link.textContent = text;
    this.link.disabled = Boolean(problem);
    this.link.setAttribute('aria-pressed', String(this.linked && !problem));
    this.link.title = 'Scroll both together by the place in the patient (Shift+L). Linking again keeps the distance they have.';
  }
}
