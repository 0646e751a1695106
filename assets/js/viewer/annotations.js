// Presses on a pane in → measurements drawn, moved, named and deleted; stored by the server, undone by the journal.

import { api, emit, on } from '../bus.js';
import { axesOf, fromDisplayExact } from './geometry.js';
import { distance, drawMeasure, measure, MEASURES } from './lines.js';

const NEAR = 9; // CSS pixels at which a handle or a line is meant
const id = encodeURIComponent;

export class Annotations {
  constructor(viewer) {
    this.viewer = viewer;
    this.forget();
    this.stops = [
      on('annotation:label', ({ id: which, label }) => this.label(which, label)),
      on('annotation:delete', ({ id: which }) => this.remove(which)),
    ];
  }

  unmount() {
    for (const stop of this.stops) stop();
  }

  forget() {
    this.rows = []; // of the whole study
    this.refs = new Map(); // id → {id}, kept through delete and undo, which gives a new id
    this.selected = null;
    this.saving = new Set(); // drawn and on their way to the server; shown until its answer takes their place
    this.drawing = null; // {kind, plane, slice, pane, points, loose, waiting}: `loose`: the last point follows the pointer
    this.grab = null; // {row, n, points}: a point of a stored one being moved
  }

  /** The study's stored ones; asked for once when it opens. */
  async load(study) {
    const rows = await api('GET', `/api/studies/${id(study.id)}/annotations`);
    if (this.viewer.study === study) this.take(rows, null);
  }

  take(rows, selected) {
    this.rows = rows;
    this.selected = rows.some((row) => row.id === selected) ? selected : null;
    this.viewer.ticksChanged();
    emit('annotations:changed', { annotations: rows, active: this.selected });
    this.viewer.invalidate();
  }

  select(which) {
    this.take(this.rows, which);
  }

  get frozen() {
    return this.viewer.study?.state === 'signed';
  }

  // ---- what is stored ------------------------------------------------------------------------------------------------

  ref(which) {
    if (!this.refs.has(which)) this.refs.set(which, { id: which });
    return this.refs.get(which);
  }

  async send(method, path, body, selected) {
    const { study } = this.viewer;
    const answer = await api(method, path, body);
    if (this.viewer.study === study) {
      this.take(answer.annotations, answer.annotation ?? selected);
      emit('evidence:changed');
    }
    return answer.annotation;
  }

  async post(body, ref = null) {
    const { series, kind, plane, points, label } = body;
    const made = await this.send('POST', `/api/series/${id(series)}/annotations`, { kind, plane, points, label });
    if (!ref) return this.ref(made);
    ref.id = made;
    this.refs.set(made, ref);
    return ref;
  }

  patch(ref, body) {
    return this.send('PATCH', `/api/annotations/${id(ref.id)}`, body);
  }

  drop(ref) {
    return this.send('DELETE', `/api/annotations/${id(ref.id)}`, undefined, null);
  }

  add(body, drawn) {
    const { journal } = this.viewer;
    const { saving } = this;
    saving.add(drawn);
    return this.viewer.enqueue(async () => {
      const ref = await this.post(body);
      journal.push(() => this.drop(ref), () => this.post(body, ref));
    }).finally(() => {
      saving.delete(drawn);
      this.viewer.invalidate();
    });
  }

  change(row, before, after) {
    const ref = this.ref(row.id);
    return this.viewer.enqueue(async () => {
      await this.patch(ref, after);
      this.viewer.journal.push(() => this.patch(ref, before), () => this.patch(ref, after));
    });
  }

  label(which, label) {
    const row = this.rows.find((candidate) => candidate.id === which);
    return row && label !== row.label ? this.change(row, { label: row.label }, { label }) : undefined;
  }

  remove(which = this.selected) {
    const row = this.rows.find((candidate) => candidate.id === which);
    if (!row) return false;
    const ref = this.ref(row.id);
    this.viewer.enqueue(async () => {
      await this.drop(ref);
      this.viewer.journal.push(() => this.post(row, ref), () => this.drop(ref));
    });
    return true;
  }

  // ---- what is drawn -------------------------------------------------------------------------------------------------

  /** The stored ones on a pane's slice; a point being moved is where the pointer is. */
  on(pane) {
    const through = axesOf(pane.plane).w;
    return this.rows
      .filter((row) => row.series === this.viewer.series?.id && row.plane === pane.plane && Math.round(row.points[0][through]) === pane.slice)
      .map((row) => (this.grab?.row.id === row.id ? { ...row, points: this.grab.points, numbers: this.live(row, this.grab.points) } : row));
  }

  live(row, points) {
    return measure(this.viewer, row.kind, row.plane, points);
  }

  draw(pane, context, ratio) {
    const at = (points) => points.map((point) => pane.place(point));
    for (const row of this.on(pane)) {
      const chosen = row.id === this.selected;
      drawMeasure(context, { kind: row.kind, at: at(row.points), numbers: row.numbers, label: row.label, chosen }, ratio);
    }
    const { drawing } = this;
    if (drawing?.pane === pane && drawing.slice !== pane.slice) this.cancel();
    for (const own of [...this.saving, this.drawing]) {
      if (own?.pane !== pane || own.slice !== pane.slice) continue;
      drawMeasure(context, { kind: own.kind, at: at(own.points), numbers: this.live(own, own.points), label: '', chosen: true }, ratio);
    }
  }

  /** The slices on which a plane has any, and whether the selected one is there. */
  marks(plane) {
    const through = axesOf(plane).w;
    return this.rows
      .filter((row) => row.series === this.viewer.series?.id && row.plane === plane)
      .map((row) => ({ slice: Math.round(row.points[0][through]), chosen: row.id === this.selected }));
  }

  hint() {
    const { drawing } = this;
    if (!drawing) return this.viewer.tool === 'ratio' ? 'CTR: draw the heart’s greatest width' : '';
    if (drawing.kind === 'ratio') return drawing.points.length < 3 && !drawing.waiting ? 'CTR: draw the heart’s greatest width' : 'CTR: now the thorax’s greatest inner width';
    if (drawing.kind === 'angle' && drawing.points.length > 2) return 'Angle: set the end of the second leg';
    return '';
  }

  // ---- the pointer and the keyboard ------------------------------------------------------------------------------------

  /** A press with a measuring or the crosshair tool; answers whether it was meant for a measurement. */
  press(pane, event) {
    const { tool } = this.viewer;
    if (this.drawing && this.drawing.pane !== pane) this.cancel();
    if (!this.drawing && (tool in MEASURES || tool === 'navigate') && this.hold(pane, event)) return true;
    if (!(tool in MEASURES)) return false;
    if (this.frozen) {
      emit('toast', { level: 'info', text: 'This study is signed: nothing is measured on it any more.' });
      return true;
    }
    this.set(pane, fromDisplayExact(this.viewer.geometry, pane.plane, ...pane.pointAt(event), pane.slice));
    return true;
  }

  /** Take hold of a stored point under the pointer. */
  hold(pane, event) {
    const [x, y] = pane.canvasPoint(event);
    const near = NEAR * pane.ink;
    for (const row of this.on(pane).reverse()) {
      const n = row.points.findIndex((point) => Math.hypot(pane.place(point)[0] - x, pane.place(point)[1] - y) <= near);
      if (n < 0) continue;
      this.take(this.rows, row.id);
      if (!this.frozen) this.grab = { row, n, points: row.points.map((point) => [...point]), moved: false };
      return true;
    }
    return false;
  }

  /** A point is set where a drawing is, or begins one. */
  set(pane, point) {
    const { tool } = this.viewer;
    const { drawing } = this;
    if (!drawing) {
      this.take(this.rows, null);
      this.drawing = { kind: tool, plane: pane.plane, slice: pane.slice, pane, points: [point], loose: false, waiting: false };
      if (tool === 'probe') return this.finish();
      this.drawing.points.push([...point]);
      this.drawing.loose = true;
      this.drawing.again = false;
    } else if (drawing.waiting) {
      drawing.points.push(point, [...point]);
      Object.assign(drawing, { waiting: false, loose: true, again: false });
    } else if (drawing.loose) {
      drawing.points[drawing.points.length - 1] = point;
      drawing.again = true; // the second click of click and click: it settles the point on release
    }
    this.viewer.invalidate();
  }

  move(pane, event, pressed) {
    const point = fromDisplayExact(this.viewer.geometry, pane.plane, ...pane.pointAt(event), pane.slice);
    if (this.grab && pressed) {
      this.grab.points[this.grab.n] = point;
      this.grab.moved = true;
    } else if (this.drawing?.loose && this.drawing.pane === pane) this.drawing.points[this.drawing.points.length - 1] = point;
    else return;
    this.viewer.invalidate();
  }

  /** The keyboard's cursor moved: the loose end goes with it. */
  follow(pane, index) {
    if (!this.drawing?.loose || this.drawing.pane !== pane) return;
    this.drawing.points[this.drawing.points.length - 1] = index.map(Number);
  }

  release(pane, event, moved) {
    const { grab, drawing } = this;
    if (grab) {
      this.grab = null;
      if (grab.moved && moved) this.change(grab.row, { points: grab.row.points }, { points: grab.points });
      return this.viewer.invalidate();
    }
    if (drawing?.loose && (moved || drawing.again)) this.settle();
    else if (drawing && !moved && !drawing.again) {
      const hit = this.lineAt(pane, event);
      if (hit && drawing.points.length === 2) {
        this.cancel();
        this.select(hit);
      }
    }
  }

  /** The stored one whose line is under the pointer, or null. */
  lineAt(pane, event) {
    const [x, y] = pane.canvasPoint(event);
    const near = NEAR * 0.7 * pane.ink;
    return this.on(pane).find((row) => distance(row.kind, row.points.map((point) => pane.place(point)), x, y) <= near)?.id ?? null;
  }

  /** Enter: a point at the crosshair. */
  enter(pane, index) {
    const before = this.drawing;
    this.set(pane, index.map(Number));
    if (before && this.drawing === before && before.again) this.settle();
  }

  /** The loose point stays where it is; on to the next one, or done. */
  settle() {
    const { drawing } = this;
    drawing.loose = drawing.again = false;
    const need = MEASURES[drawing.kind].points;
    if (drawing.points.length === need) return this.finish();
    if (drawing.kind === 'ratio') drawing.waiting = true;
    else {
      drawing.points.push([...drawing.points[drawing.points.length - 1]]);
      drawing.loose = true;
    }
    this.viewer.invalidate();
  }

  finish() {
    const { drawing } = this;
    const { kind, plane, points } = drawing;
    this.drawing = null;
    this.add({ series: this.viewer.series.id, kind, plane, points, label: '' }, drawing);
  }

  cancel() {
    const had = Boolean(this.drawing);
    this.drawing = null;
    this.viewer.invalidate();
    return had;
  }
}
