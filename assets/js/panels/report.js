// The working report in → an editor whose every row saves itself; drafts stream in below what the reader wrote.

import { api, emit, on, state } from '/static/js/bus.js';
import { reportText, spans, steps } from './diff.js';
import { debounce, fill, h } from './dom.js';
import { stop, stream } from './draft.js';
import { complain, guarded, panelReady } from './page.js';
import { showReceived } from './received.js';
import { onTop, put, taken } from './saving.js';
import { ask } from './signing.js';
import { StatementRow } from './statement.js';
import { showVersions } from './versions.js';
import { Why } from './why.js';

const SAVE_MS = 600;
const SECTIONS = [['findings', 'Findings'], ['impression', 'Impression']];

export function mount(element) {
  new Report(element).listen();
  panelReady('report');
}

class Report {
  constructor(element) {
    this.id = null; // of the study whose report this is; the page may have gone on to another one
    this.rows = [];
    this.revision = 0;
    this.cards = new Map();
    this.conflict = null;
    this.kept = new Map(); // study → the reader's side of a conflict that they left open
    this.loading = null; // the stored report, while it is on its way; what is written meanwhile is saved on top of it
    this.saving = null;
    this.dirty = false;
    this.run = null;
    this.frozen = false;
    this.save = debounce(() => this.store(), SAVE_MS);
    this.lists = {};
    this.streams = {};
    this.status = h('span.rp-dim', { role: 'status' });
    this.free = h('textarea.rp-free', {
      rows: 2,
      placeholder: 'Free text: comparison, technique, recommendations',
      'aria-label': 'Free text',
      maxlength: 50000,
      oninput: () => this.changed(),
    });
    this.unseen = h('details.rp-unseen', { hidden: true });
    this.addenda = h('div.rp-addenda');
    this.received = h('div', { hidden: true });
    this.why = new Why({
      study: () => this.id,
      settle: () => this.settle(),
      asked: () => (this.rows.find((r) => r.root.classList.contains('lit')) || this.rows.find((r) => r.data.origin === 'model'))?.data.id || '',
      show: () => this.rows.forEach((r) => r.update()),
      say: (text) => {
        this.status.textContent = text;
      },
    });
    this.drawer = h('div.rp-drawer', { hidden: true, role: 'dialog', 'aria-label': 'Versions' });
    this.clash = h('div.rp-conflict', { hidden: true, role: 'alert' });
    const sections = SECTIONS.map(([name, title]) => {
      this.lists[name] = h('div.rp-statements', { role: 'list', 'aria-label': title });
      this.streams[name] = h('div.rp-stream');
      const add = h('button.quiet.rp-add-statement', { type: 'button', onclick: () => this.add(name) }, '+ statement');
      return h('section', { 'data-section': name }, h('h3', {}, title), this.lists[name], this.streams[name], add);
    });
    this.versions = h('button.quiet', { type: 'button', onclick: guarded(() => this.openVersions()) }, 'Versions');
    fill(
      element,
      h(
        'section.rp-panel.rp-report',
        {},
        h('h2', {}, 'Report ', this.status, h('span.rp-grow'), this.why.button, this.versions),
        this.clash,
        h('div.rp-scroll', {}, this.received, sections, this.free, this.addenda, this.unseen),
        this.why.foot,
        this.drawer,
      ),
    );
  }

  get path() {
    return `/api/studies/${encodeURIComponent(this.id)}`;
  }

  listen() {
    on('study:open', (study) => this.open(study).catch(complain));
    on('study:closed', () => this.close());
    on('evidence:shown', ({ cards }) => {
      this.cards = new Map(cards.map((c) => [c.id, c]));
      this.rebind().catch(complain);
    });
    on('statements:of', ({ card }) => this.highlight((s) => s.evidence?.includes(card), true));
    on('draft:start', () => this.draft().catch(complain));
    on('draft:stop', () => this.run && stop(this.run.study).catch(complain));
    on('report:sign', guarded(() => (this.frozen ? this.addendum() : this.sign())));
    on('report:flush', ({ waiting }) => waiting.push(this.settle()));
    on('drawers:close', () => this.closeVersions());
    window.addEventListener('beforeunload', (event) => {
      if (this.dirty) event.preventDefault();
    });
  }

  // ---- what is shown ---------------------------------------------------------------------------------------------

  async open(study) {
    this.close();
    this.id = study.id;
    this.free.readOnly = true; // until what is stored of it is here
    const loading = api('GET', `${this.path}/report`)
      .then((report) => {
        if (this.loading !== loading) return report;
        this.loading = null;
        this.adopt(report);
        this.takeUp(report);
        return report;
      })
      .catch((error) => {
        if (this.loading === loading) {
          this.loading = null;
          if (this.dirty) this.save();
        }
        throw error;
      });
    this.loading = loading;
    const report = await loading;
    if (this.id !== study.id) return;
    if (report.state === 'signed') await this.showAddenda();
    await this.showReceived();
  }

  /** Reports from elsewhere; what is taken over of them joins what is written here. */
  showReceived() {
    const { id } = this;
    const settle = async () => {
      if (this.run) throw new Error('Wait until the draft is written, or stop it, and then take the sentences over.');
      await this.settle();
    };
    return showReceived(this.received, id, { frozen: this.frozen, settle, show: (report) => this.id === id && this.show(report) });
  }

  close() {
    this.why.hide();
    this.leave();
    this.id = null;
    this.loading = null;
    this.run?.abort.abort();
    this.run = null;
    emit('draft:running', { running: false });
    this.rows = [];
    this.revision = 0;
    this.dirty = false;
    this.frozen = false;
    this.conflict = null;
    this.clash.hidden = true;
    this.closeVersions();
    this.free.value = '';
    this.status.textContent = '';
    this.unseen.hidden = this.received.hidden = true;
    fill(this.addenda);
    for (const [name] of SECTIONS) {
      fill(this.lists[name]);
      fill(this.streams[name]);
    }
  }

  /**
   * @param mine rows of the reader's that stay the same elements, so that whoever writes in one is not thrown out of it
   * @param newer whether their words count and not the report's
   */
  show(report, mine = [], newer = false) {
    this.revision = report.revision;
    this.frozen = report.state === 'signed';
    const there = new Map(mine.map((row) => [row.data.id, row]));
    this.rows = report.statements.map((s) => {
      const row = there.get(s.id);
      if (!row) return this.row(s);
      row.take(newer ? { ...s, text: row.data.text } : s);
      return row;
    });
    this.rows.push(...mine.filter((row) => !this.rows.includes(row) && (newer || row.data.fresh) && (!this.frozen || row.data.text.trim())));
    for (const row of mine) row.lock(this.frozen);
    this.free.value = report.free_text;
    this.free.readOnly = this.frozen;
    this.element().classList.toggle('frozen', this.frozen);
    this.place();
    this.showUnseen(report.unseen, report.model);
    emit('report:state', { state: report.state });
  }

  element() {
    return this.free.closest('.rp-report');
  }

  row(statement) {
    const row = new StatementRow(statement, {
      changed: () => this.changed(),
      remove: (r) => this.remove(r),
      agree: (r) => this.decide(r, 'agree'),
      restore: (r) => this.decide(r, 'restored'),
      next: (r) => this.add(r.data.section, r),
      select: (r) => this.select(r),
      card: (id, go) => this.showCard(id, go),
      explained: (id) => this.why.of(id),
    });
    if (this.frozen) row.lock(true);
    return row;
  }

  place() {
    for (const [name] of SECTIONS) {
      const here = this.rows.filter((r) => r.data.section === name).map((r) => r.root);
      const list = this.lists[name];
      for (const root of [...list.children].filter((child) => !here.includes(child))) root.remove();
      here.forEach((root, n) => list.children[n] === root || list.insertBefore(root, list.children[n] ?? null)); // the focus stays
    }
    for (const row of this.rows) row.fit();
  }

  showUnseen(unseen, model) {
    this.unseen.hidden = !unseen.length;
    if (!unseen.length) return;
    const index = model?.index_digest ? `, index ${model.index_digest.slice(0, 12)}` : '';
    const by = model ? `${model.name}${model.adapter ? `, adapter ${model.adapter}` : ''}${index}, seed ${model.seed}` : '';
    fill(
      this.unseen,
      h('summary', {}, 'What the model did not see'),
      h('ul', {}, unseen.map((u) => h('li', {}, u))),
      by ? h('p.rp-dim', {}, `Drafted by ${by}.`) : null,
    );
  }

  // ---- editing ---------------------------------------------------------------------------------------------------

  changed() {
    if (this.frozen) return;
    this.dirty = true;
    this.status.textContent = 'editing';
    this.save();
  }

  add(section, after = null) {
    if (this.frozen) return;
    const id = `h${crypto.getRandomValues(new Uint32Array(2)).join('')}`.slice(0, 24);
    const row = this.row({ id, section, text: '', evidence: [], support: 'supported', origin: 'human', fresh: true });
    const at = after ? this.rows.indexOf(after) + 1 : this.rows.length;
    this.rows.splice(at, 0, row);
    this.place();
    row.text.focus();
  }

  remove(row) {
    this.rows = this.rows.filter((r) => r !== row);
    row.root.remove();
    if (!row.data.fresh || row.data.text.trim()) this.changed();
  }

  decide(row, what) {
    row.data[what] = true;
    this.changed();
    this.save.flush();
  }

  /** What the reader has, as the server takes it. */
  body() {
    const rows = this.rows.filter((r) => !r.data.fresh || r.data.text.trim());
    return {
      revision: this.revision,
      free_text: this.free.value,
      statements: rows.map((row) => taken(row.data)),
    };
  }

  /** Send what waits before this study's rows are cleared from the page. */
  leave() {
    this.save.cancel();
    if (this.id && this.conflict) {
      this.kept.set(this.id, { statements: this.rows.map((r) => r.data), free_text: this.free.value });
    }
    if (!this.dirty || !this.id || this.conflict) return;
    const path = this.path;
    const body = this.body();
    const after = this.loading
      ? this.loading.then((stored) => onTop(stored, body))
      : Promise.resolve(this.saving).then((revision) => ({ ...body, revision: revision ?? body.revision }));
    after
      .then((whole) => put(path, whole))
      .then(({ ok, answer }) => ok || complain(new Error(answer.error)))
      .catch(complain);
  }

  /** Send what the reader has; one request at a time, the newest state last. */
  store() {
    if (this.saving) {
      this.again = true;
      return this.saving;
    }
    if (!this.dirty || !this.id || this.conflict || this.loading) return Promise.resolve();
    const study = this.id;
    const path = this.path;
    const body = this.body();
    const sent = new Map(body.statements.map((r) => [r.id, r.text]));
    const base = this.revision;
    this.dirty = false;
    this.status.textContent = 'saving';
    this.saving = put(path, body)
      .then(({ ok, answer }) => {
        if (this.id !== study) {
          if (!ok) complain(new Error(answer.error));
          return answer.revision;
        }
        if (this.revision !== base) this.changed(); // a draft was adopted meanwhile, with what was sent in it
        else if (ok) this.saved(answer, sent);
        else {
          this.dirty = true;
          this.status.textContent = 'not saved';
          if (answer.report) this.clashWith(answer);
          else complain(new Error(answer.error));
        }
        return answer.revision;
      })
      .finally(() => {
        this.saving = null;
        if (this.again) {
          this.again = false;
          this.store();
        }
      });
    return this.saving;
  }

  saved(report, sent) {
    this.revision = report.revision;
    const known = new Map(report.statements.map((s) => [s.id, s]));
    for (const row of this.rows) {
      const s = known.get(row.data.id);
      if (s) row.take(s, sent.get(s.id));
    }
    this.status.textContent = this.dirty ? 'editing' : 'saved';
    emit('report:state', { state: report.state });
  }

  /** Save now what waits. */
  async flush() {
    while (this.loading) await this.loading;
    this.save.cancel();
    while (this.saving) await this.saving;
    if (this.dirty && !this.conflict) await this.store();
  }

  /** Save now what waits; throws where that failed, so that nothing is signed or exported without the latest words. */
  async settle() {
    await this.flush();
    if (this.conflict) throw new Error('Settle the conflict in the report first.');
    if (this.dirty) throw new Error('The report is not saved, so this was not done. Your text is still here: try again.');
  }

  /** The board changed: show which statements are stale now. */
  async rebind() {
    const study = this.id;
    if (!study || this.loading || this.run || this.dirty || this.saving || this.conflict || !this.rows.length) return;
    const report = await api('GET', `${this.path}/report`);
    if (this.id !== study || this.run || this.dirty || this.saving) return;
    if (report.revision === this.revision) this.saved(report, new Map(this.rows.map((r) => [r.data.id, r.data.text])));
    else this.show(report);
  }

  // ---- two editors -----------------------------------------------------------------------------------------------

  /** A conflict that was left open is shown again, with the reader's words. */
  takeUp(report) {
    const mine = this.kept.get(this.id);
    if (!mine) return;
    this.kept.delete(this.id);
    this.rows = [...mine.statements.map((s) => this.row(s)), ...this.rows.filter((r) => r.data.fresh)];
    this.free.value = mine.free_text;
    this.place();
    this.clashWith({ error: 'Your words differ from the stored report and are not saved yet.', report });
  }

  clashWith(answer) {
    const theirs = answer.report;
    this.conflict = theirs;
    const mine = { statements: this.rows.map((r) => r.data), free_text: this.free.value };
    const signed = theirs.state === 'signed';
    const keep = () => {
      this.conflict = null;
      this.clash.hidden = true;
      this.revision = theirs.revision;
      this.dirty = true;
      this.store();
    };
    const take = () => {
      this.conflict = null;
      this.clash.hidden = true;
      this.dirty = false;
      this.show(theirs);
    };
    fill(
      this.clash,
      h('p', {}, answer.error),
      h('p.rp-dim', {}, 'From the stored report to yours:'),
      h('div.rp-diff', {}, spans(steps(reportText(theirs), reportText(mine)))),
      h(
        'div.rp-row',
        {},
        signed ? null : h('button.primary', { type: 'button', onclick: keep }, 'Keep mine'),
        h('button', { type: 'button', onclick: take }, signed ? 'Show the signed report' : 'Take the stored one'),
      ),
    );
    this.clash.hidden = false;
  }

  // ---- links to the board and the image --------------------------------------------------------------------------

  select(row) {
    const ids = row.data.evidence || [];
    this.highlight((s) => s.id === row.data.id);
    emit('cards:highlight', { ids, scroll: true });
    const place = ids.map((id) => this.cards.get(id)).find((card) => card?.location);
    if (place) emit('viewer:goto', { lps: place.location, segment: place.segment_id, annotation: place.annotation_id });
  }

  showCard(id, go) {
    emit('cards:highlight', { ids: [id], scroll: go });
    const card = this.cards.get(id);
    if (go && card?.location) emit('viewer:goto', { lps: card.location, segment: card.segment_id, annotation: card.annotation_id });
  }

  highlight(test, scroll = false) {
    let first = scroll;
    for (const row of this.rows) {
      const lit = Boolean(test(row.data));
      row.root.classList.toggle('lit', lit);
      if (lit && first) {
        row.root.scrollIntoView({ block: 'nearest' });
        first = false;
      }
    }
  }

  // ---- drafting --------------------------------------------------------------------------------------------------

  async draft() {
    const { id } = this;
    if (this.run || this.frozen || !id) return;
    await this.flush();
    if (this.run || this.frozen || this.id !== id) return;
    if (this.conflict) throw new Error('Settle the conflict in the report first.');
    const run = { study: this.id, abort: new AbortController(), rows: new Map(), ended: false };
    this.run = run;
    emit('draft:running', { running: true });
    const replaced = this.rows.filter((r) => r.data.origin === 'model' && !r.data.restored);
    for (const row of replaced) {
      row.lock(true);
      row.root.classList.add('leaving');
    }
    for (const [name] of SECTIONS) this.streams[name].classList.add('open');
    try {
      await stream(run.study, (name, data) => this.run === run && this.heard(run, name, data), run.abort.signal);
      if (!run.ended && this.run === run) throw new Error('The draft ended before it was complete; what was saved is shown.');
    } finally {
      if (this.run === run) {
        this.run = null;
        emit('draft:running', { running: false });
        for (const [name] of SECTIONS) {
          fill(this.streams[name]);
          this.streams[name].classList.remove('open');
        }
        if (!run.report) await this.afterFailure();
      }
    }
  }

  heard(run, name, data) {
    if (name === 'status') this.status.textContent = data.text;
    else if (name === 'warning') emit('priors:sentence', { text: data.text });
    else if (name === 'evidence') emit('evidence:changed');
    else if (name === 'start') this.showUnseen(data.unseen, data.model);
    else if (name === 'statement') this.writing(run, data);
    else if (name === 'step') run.step = data;
    else if (name === 'finished') this.writing(run, data, true);
    else if (name === 'error') {
      run.ended = true;
      this.status.textContent = '';
      emit('toast', { level: 'error', text: data.error });
    } else if (name === 'done') this.finish(run, data);
  }

  writing(run, data, whole = false) {
    let row = run.rows.get(data.id);
    if (!row) {
      row = this.row({ evidence: [], support: 'supported', origin: 'model', ...data, id: `draft-${data.id}` });
      row.lock(true);
      run.rows.set(data.id, row);
      this.streams[data.section]?.append(row.root);
    }
    const step = run.step?.id === data.id ? run.step : null;
    row.data = whole ? { ...data, id: row.data.id } : { ...row.data, text: data.text, evidence: data.evidence, step: step || row.data.step };
    row.update();
    if (!whole) row.root.classList.add('writing');
  }

  finish(run, data) {
    run.ended = true;
    run.report = data.report;
    this.status.textContent = data.complete ? 'draft saved' : data.report ? 'incomplete; what was finished is saved' : 'stopped';
    if (!data.report) return;
    this.adopt(data.report);
    this.showUnseen([...data.report.unseen, ...(data.warnings || [])], data.report.model);
  }

  /** The server's report; what the reader wrote meanwhile stays, in the rows it stands in, and is saved on top. */
  adopt(report) {
    const mine = this.rows.filter((r) => r.data.origin !== 'model' || r.data.restored);
    const dirty = this.dirty || Boolean(this.saving); // what is on its way may have come too late for this report
    const free = this.free.readOnly ? report.free_text : this.free.value;
    this.save.cancel();
    this.show(report, mine, dirty);
    if (!dirty) return;
    this.free.value = free;
    if (this.frozen) this.clashWith({ error: 'The report is signed; what you wrote is not part of it.', report });
    else this.changed();
  }

  async afterFailure() {
    if (!this.id) return;
    const report = await api('GET', `${this.path}/report`);
    if (report.revision !== this.revision) this.adopt(report);
    else {
      for (const row of this.rows) {
        row.root.classList.remove('leaving');
        row.lock(this.frozen);
      }
    }
  }

  // ---- signing and versions --------------------------------------------------------------------------------------

  async sign() {
    this.rows.filter((r) => !r.data.text.trim()).forEach((r) => this.remove(r));
    await this.settle();
    const words = 'Signing freezes this report: it can only be added to. Statements that stand struck out are left out.';
    const cards = Object.fromEntries([...this.cards.values()].map((card) => [card.id, card.status])); // what was seen
    const answer = await ask({ title: 'Sign the report', words, button: 'Sign' });
    if (!answer) return;
    emit('evidence:changed'); // whatever came meanwhile is shown, should the server say so
    const report = await api('POST', `${this.path}/sign`, { author: answer.author, revision: this.revision, cards });
    this.show(report);
    await this.showAddenda();
    emit('evidence:changed');
    emit('toast', { level: 'success', text: 'Signed.' });
  }

  async addendum() {
    const answer = await ask({ title: 'Addendum', words: 'The signed report stays as it is; this is added to it.', button: 'Add', long: true });
    if (!answer) return;
    await api('POST', `${this.path}/addendum`, answer);
    await this.showAddenda();
    emit('toast', { level: 'success', text: 'The addendum was added.' });
  }

  async showAddenda() {
    const versions = await api('GET', `${this.path}/versions`);
    const signed = versions.find((v) => v.kind === 'signed');
    const addenda = versions.at(-1)?.addenda || [];
    const when = (t) => new Date(t).toLocaleString();
    const late = (state.study?.series || []).filter((series) => series.after_signing).length;
    const arrived = late === 1 ? '1 series arrived after signing: this report says nothing of it.' : `${late} series arrived after signing: this report says nothing of them.`;
    fill(
      this.addenda,
      signed ? h('p.rp-signed', {}, `Signed by ${signed.author}, ${when(signed.created_at)}`) : null,
      signed && late ? h('p.rp-note.warning', {}, arrived) : null,
      addenda.map((a) => h('div.rp-addendum', {}, h('h4', {}, `Addendum, ${a.author}, ${when(a.created_at)}`), h('p', {}, a.text))),
    );
  }

  async openVersions() {
    await this.flush();
    await showVersions(this.drawer, this.id, () => this.closeVersions());
  }

  closeVersions() {
    if (this.drawer.hidden) return;
    this.drawer.hidden = true;
    this.versions.focus();
  }
}
