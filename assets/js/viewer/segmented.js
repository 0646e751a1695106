// Segments of an open study and the requests that change them: prompts, edits, undo, deletion.
//
// What the reader does leaves as `segments:changed`, `evidence:changed` and `toast`.  A subclass says what is on screen:
// `annotations` and `drawing`, `metrics`, `focus`, `moveTo`, `setPositive`, `segmenting`, `invalidate` and `drawNow`.

import { api, emit } from '../bus.js';
import { Journal } from './journal.js';
import { Loaded } from './loaded.js';
import { Masks } from './masks.js';

const OVERTAKEN = 499; // the status of a request that a newer one took along
const APART_MS = 40;

/** A word of the page's own for a segment that has no id yet. */
const word = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');

export class Segmented extends Loaded {
  constructor() {
    super();
    this.masks = new Masks();
    this.allRows = []; // every segment of the study, all series
    this.active = null; // the id of the segment that prompts go to
    this.begins = null; // the page's own word for one that has none yet
    this.queue = Promise.resolve(); // what is undone, redone and measured goes to the server one after the other
    this.flying = new Set(); // prompts on their way: a newer one overtakes those of the same segment
    this.turning = null; // the other answer, while it is on its way
    this.answered = this.sentAt = 0;
    this.journal = new Journal();
    this.offers = new AbortController(); // ends what toasts offer to undo in this study
  }

  /** Nothing of a study that was closed can be undone any more. */
  forgetSegments() {
    this.allRows = [];
    this.masks.clear();
    this.journal.clear();
    this.offers.abort();
    this.offers = new AbortController();
  }

  get activeRow() {
    return this.masks.rows.find((row) => row.id === this.active);
  }

  select(id) {
    this.active = id;
    this.begins = null;
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
    if (this.segmenting && this.tool !== 'eraser') this.positive = true;
    else this.setPositive(true);
    this.begins = null;
    emit('segments:changed', { segments: this.allRows, active: null });
  }

  takeSegments(rows, active) {
    this.allRows = rows;
    this.active = active ?? null;
    if (this.active) this.begins = null;
    if (!this.series) return;
    const { series } = this;
    this.masksReady = this.masks
      .update(rows, series.id, this.loading?.signal)
      .catch((error) => {
        if (error.name !== 'AbortError') emit('toast', { level: 'error', text: error.message });
      })
      .finally(() => this.series === series && this.invalidate());
  }

  /** Add a click at a voxel. */
  click(pane, index, positive) {
    const done = pane.pending(index);
    this.moveTo(index);
    return this.send({ kind: 'click', index, positive }, done);
  }

  /**
   * Send a prompt or an edit of the active segment, or of one that begins with it; `done` when its answer is shown.
   * Quick ones do not wait for one another: the server takes what it has not answered along with the next.
   */
  send(prompt, done) {
    const { series } = this;
    const started = performance.now();
    const segment = this.active;
    const begins = segment ? '' : (this.begins ??= word());
    const post = async () => {
      await this.queue;
      if (this.series !== series) return;
      await this.apart();
      emit('segment:asked');
      const path = `/api/series/${encodeURIComponent(series.id)}/prompt`;
      await this.change(() => api('POST', path, { prompt, segment, begins }), () => (segment ? this.active === segment : this.begins === begins));
      this.metrics.clicks.push(performance.now() - started);
    };
    const flight = post()
      .catch((error) => {
        if (error.status !== OVERTAKEN) return emit('toast', { level: 'error', text: error.message });
        // Shown with the one that took it along. Only for later ones: two that waited for each other would wait for ever.
        const all = [...this.flying];
        return Promise.allSettled(all.slice(all.indexOf(flight) + 1));
      })
      .finally(() => {
        this.flying.delete(flight);
        done();
        this.drawNow();
      });
    this.flying.add(flight);
    return flight;
  }

  /** Requests that are sent at the same moment may arrive in any order: each leaves a little after the one before. */
  async apart() {
    const wait = this.sentAt + APART_MS - performance.now();
    this.sentAt = Math.max(performance.now(), this.sentAt + APART_MS);
    if (wait > 0) await new Promise((after) => setTimeout(after, wait));
  }

  /** Fill in between the slices that were painted last, on their plane. */
  interpolate() {
    const row = this.activeRow;
    const stroke = row?.steps.findLast((step) => step.kind === 'stroke');
    if (!stroke) return emit('toast', { level: 'info', text: 'Paint or erase on two slices of a plane first (Shift+B); what lies between them is filled in.' });
    return this.send({ kind: 'interpolation', axis: stroke.axis }, () => {});
  }

  /** The other of two answers to what the active segment's last prompts asked for; one at a time: two are none. */
  alternative() {
    if (this.turning) return this.turning;
    if (!this.activeRow) return emit('toast', { level: 'info', text: 'Click a structure first; then its other answer can be asked for.' });
    const last = this.activeRow.clicks.at(-1); // the first time, the network's part is loaded: seconds
    const done = last ? this.focus.pending(last.index) : () => {};
    return (this.turning = this.send({ kind: 'alternative' }, done).finally(() => (this.turning = null)));
  }

  /** A step can be undone while it is the segment's last one, and brought back while nothing came after it. */
  noteSteps(made, before) {
    const count = this.allRows.find((row) => row.id === made)?.steps.length ?? 0;
    const move = (way, expected) => async () => {
      const row = this.allRows.find((candidate) => candidate.id === made);
      if (!row || !row[`can_${way}`] || row.steps.length !== expected) return false;
      await this.change(() => api('POST', `/api/segments/${encodeURIComponent(made)}/${way}`));
      return true;
    };
    for (let n = before + 1; n <= count; n++) this.journal.push(move('undo', n), move('redo', n - 1));
  }

  undo() {
    if (this.annotations.cancel() || this.drawing.cancel()) return this.queue;
    return this.step('undo');
  }

  redo() {
    return this.step('redo');
  }

  /** The last thing done, of whatever kind; of what was done before this page was opened, the active segment's clicks. */
  step(which) {
    return this.enqueue(async () => {
      if (await this.journal[which]()) return;
      const row = this.activeRow;
      if (!row) return emit('toast', { level: 'info', text: `Choose a segment to ${which} its last click.` });
      if (!row[`can_${which}`]) return emit('toast', { level: 'info', text: `There is nothing to ${which}.` });
      await this.change(() => api('POST', `/api/segments/${encodeURIComponent(row.id)}/${which}`));
    });
  }

  enqueue(task) {
    const before = Promise.all([this.queue, ...this.flying]);
    const next = before.then(task).catch((error) => emit('toast', { level: 'error', text: error.message }));
    this.queue = next;
    return next;
  }

  /**
   * One request that changes segments: tell everyone, and wait for the overlay.
   * @param current where given: whether the reader is still at that segment, so that it becomes the active one; its new
   *   steps go into the journal then
   */
  async change(request, current = null) {
    const { study } = this;
    const answer = await request();
    if (this.study !== study) return;
    if (answer.order > this.answered) {
      // By the server's order: what left here first may arrive there last, and then its answer says more.
      this.answered = answer.order;
      const row = answer.segments.find((candidate) => candidate.id === answer.segment);
      const before = this.allRows.find((candidate) => candidate.id === answer.segment)?.steps.length ?? 0;
      emit('segments:changed', { segments: answer.segments, active: !current || current() ? answer.segment : this.active });
      if (row?.note) emit('toast', { level: 'info', text: row.note });
      if (current) this.noteSteps(answer.segment, before);
      await this.masksReady; // the overlay first, then the cards
      emit('evidence:changed');
    }
    await this.masksReady;
    return answer.segment;
  }

  /** Delete a segment at once; the journal and a toast bring it back. */
  removeSegment(id) {
    const { study } = this;
    return this.enqueue(async () => {
      const row = this.allRows.find((candidate) => candidate.id === id);
      if (!row || this.study !== study) return;
      await this.dropSegment(id);
      if (this.study !== study) return;
      const offer = new AbortController();
      const entry = this.journal.push(
        () => {
          offer.abort();
          return this.restoreSegment(id);
        },
        () => this.dropSegment(id),
      );
      this.offers.signal.addEventListener('abort', () => offer.abort());
      const run = () => this.enqueue(() => this.journal.take(entry));
      emit('toast', { text: `“${row.label || `Segment ${row.number}`}” is deleted.`, action: { label: 'Undo', key: 'Ctrl+Z', run, over: offer.signal } });
    });
  }

  /** Answers false where it is not there any more. */
  async dropSegment(id) {
    if (!this.allRows.some((row) => row.id === id)) return false;
    return this.change(() => api('DELETE', `/api/segments/${encodeURIComponent(id)}`), () => this.active === id);
  }

  /** Answers false where it is there already; one that the server has let go of is said to be gone, once. */
  async restoreSegment(id) {
    if (this.allRows.some((row) => row.id === id)) return false;
    return this.change(() => api('POST', `/api/segments/${encodeURIComponent(id)}/restore`)).catch((error) => {
      if (error.status !== 404) throw error;
      emit('toast', { level: 'warning', text: error.message });
    });
  }

  /** Outline instead of fill for the active segment, or back. */
  toggleOutline() {
    const row = this.activeRow;
    if (!row) return emit('toast', { level: 'info', text: 'Choose a segment to show it as an outline.' });
    return this.enqueue(async () => {
      const answer = await api('PATCH', `/api/segments/${encodeURIComponent(row.id)}`, { outline: !row.outline });
      emit('segments:changed', { segments: answer.segments, active: answer.segment });
    });
  }
}
