// "Why?" of the draft → what each sentence reads like without the image, the priors and each card; a score below.

import { api, on, state } from '/static/js/bus.js';
import { fill, h } from './dom.js';
import { complain } from './page.js';

const POLL_MS = 300;
const KEY = 'y';
export const IDLE = 'cited, but without it the sentence says the same';
const ALONE = { image: 'the image', priors: 'the priors' };

/**
 * The button, the foot with the score, and what is known of each statement (`of(id)`).
 * `report`: study() → id, settle() → promise once all is saved, asked() → id of the statement in question or '',
 * show() draws the statements anew, say(text).
 */
export class Why {
  constructor(report) {
    this.report = report;
    this.found = null;
    this.job = null;
    this.stopped = false;
    this.cards = '';
    this.button = h('button.quiet.rp-ask', {
      type: 'button',
      title: 'What each sentence rests on: the draft is written again without each card, the priors and the image (Y)',
      'aria-pressed': 'false',
      onclick: () => this.press(),
    });
    this.foot = h('div.rp-faith', { hidden: true, role: 'region', 'aria-label': 'Faithfulness of the draft' });
    this.label('Why?');
    on('evidence:shown', ({ cards }) => this.board(cards));
    on('draft:running', ({ running }) => {
      this.button.disabled = running;
      if (running) this.hide();
    });
    document.addEventListener('keydown', (event) => {
      if (event.key.toLowerCase() !== KEY || event.ctrlKey || event.metaKey || event.altKey || !state.study) return;
      if (document.querySelector('[aria-modal=true], dialog[open]')) return;
      if (event.target.closest?.('input, textarea, select, [contenteditable]')) return;
      event.preventDefault();
      if (!this.button.disabled) this.press();
    });
  }

  label(text) {
    this.button.textContent = text;
    this.button.setAttribute('aria-pressed', String(Boolean(this.found)));
  }

  /** What is known of a statement: {idle, lines}, or {missing} where the model would write it otherwise now. */
  of(id) {
    if (!this.found) return null;
    return this.found.statements[id] || (this.found.missing.includes(id) ? { missing: true, idle: [], lines: [] } : null);
  }

  press() {
    if (this.job) this.stop();
    else if (this.found) this.hide();
    else this.ask({ statement: this.report.asked() }).catch(complain);
  }

  /** Another study, another draft: nothing of the old one stays. */
  hide() {
    this.stop();
    if (!this.found) return;
    this.found = null;
    this.foot.hidden = true;
    this.label('Why?');
    this.report.show();
  }

  /** Wait no longer; what the model has begun it ends and keeps, so that asking again is quick. */
  stop() {
    if (!this.job) return;
    if (this.job.id) api('DELETE', `/api/jobs/${encodeURIComponent(this.job.id)}`).catch(() => {});
    this.job = null;
    this.stopped = true;
    this.report.say('');
    this.label('Why?');
  }

  /** All that a large board left untried, a few cards at a time, until it is stopped. */
  async goOn() {
    while (this.found?.untried.length && !this.job) {
      await this.ask({ more: true });
      if (this.stopped) return;
    }
  }

  async ask(question) {
    const study = this.report.study();
    if (!study || this.job) return;
    const turn = (this.job = { id: null });
    this.stopped = false;
    const began = Date.now();
    this.label('Stop');
    try {
      await this.report.settle();
      const { job } = await api('POST', `/api/studies/${encodeURIComponent(study)}/why`, question);
      turn.id = job;
      let now = { state: 'running' };
      while (this.job === turn && now.state === 'running') {
        now = await api('GET', `/api/jobs/${encodeURIComponent(job)}`);
        if (this.job !== turn || now.state !== 'running') break;
        const seconds = Math.round((Date.now() - began) / 1000);
        this.report.say(seconds ? `${now.text}, ${seconds} s` : now.text);
        await new Promise((done) => setTimeout(done, POLL_MS));
      }
      if (this.job !== turn) return;
      if (now.state !== 'done') throw new Error(now.error || 'Asking why was stopped.');
      this.found = now.result;
      this.tested = this.cards;
    } finally {
      if (this.job === turn) {
        this.job = null;
        this.report.say('');
        this.label('Why?');
        if (this.found) {
          this.score();
          this.report.show();
        }
      }
    }
  }

  /** The board as it is shown; a score of another board says so. */
  board(cards) {
    this.cards = JSON.stringify(cards.map((c) => [c.id, c.text, c.status]));
    if (this.found) this.score();
  }

  score() {
    const { faithfulness, elsewhere, image, priors, untried, missing, appeared } = this.found;
    const part = (name, share) => (share.of ? `${name} ${share.changed} of ${share.of}` : null);
    const stale = this.tested !== this.cards;
    const many = untried.length === 1 ? '1 more' : `${untried.length} more`;
    const notes = [
      stale ? 'The board has changed since: ask again.' : null,
      missing.length ? `${missing.length === 1 ? '1 sentence reads' : `${missing.length} sentences read`} otherwise when the draft is written again now.` : null,
      untried.length ? `Not tried yet: ${untried.map(without).join(', ')}.` : null,
    ];
    fill(
      this.foot,
      h(
        'div.rp-row',
        {},
        h('b', { title: WHAT }, faithfulness.of ? `Faithfulness ${faithfulness.changed} of ${faithfulness.of}` : 'Nothing to count'),
        h('span.rp-dim.rp-grow', {}, [part('not cited', elsewhere), part('image', image), part('priors', priors)].filter(Boolean).join(' · ')),
        untried.length && !stale ? h('button.quiet', { type: 'button', onclick: () => this.goOn().catch(complain) }, `try ${many}`) : null,
        h('button.quiet', { type: 'button', 'aria-label': 'Close', title: 'Close (Y)', onclick: () => this.press() }, '×'),
      ),
      h('p', {}, 'Of the cards that a sentence cites, those without which it says something else or goes; beside it, the same of cards it does not cite.'),
      notes.filter(Boolean).map((text) => h('p.rp-note.warning', {}, text)),
      appeared.length
        ? h(
            'details',
            {},
            h('summary', {}, 'Sentences that come instead'),
            h('ul', {}, appeared.map((a) => h('li', {}, `Without ${without(a.without)}: `, a.texts.map((t) => h('q', {}, t))))),
          )
        : null,
    );
    this.foot.hidden = false;
  }
}

const WHAT =
  'The draft was written again without each card. Only supported sentences of the model count, and other words for the same do not. ' +
  'The score shows that what is said follows the cards, not that a card is right; ' +
  'it means something where it is well above that of cards not cited.';

function without(omission) {
  return ALONE[omission.kind] || omission.id;
}

/** The lines below a statement: equal outcomes share one. `chip(id)` → a button that lights the card up. */
export function effects(found, chip) {
  if (found.missing) return [h('div.rp-effect.same', { role: 'listitem' }, 'The model writes this otherwise now, so it was not tested.')];
  const groups = new Map();
  for (const line of found.lines) {
    const idle = line.without.kind === 'card' && found.idle.includes(line.without.id);
    const key = JSON.stringify(idle ? [true] : [line.outcome, line.text]);
    if (!groups.has(key)) groups.set(key, { ...line, idle, things: [] });
    groups.get(key).things.push(line.without);
  }
  const rank = { gone: 0, changed: 1, reworded: 2, same: 2 };
  const words = {
    gone: () => 'it is gone',
    changed: (text) => ['it reads ', h('q', {}, text)],
    reworded: (text) => ['it says the same: ', h('q', {}, text)],
    same: () => 'it reads the same',
  };
  const names = (things) => [
    things.filter((o) => o.kind === 'card').map((o) => chip(o.id)),
    h('span', {}, things.filter((o) => o.kind !== 'card').map((o) => ALONE[o.kind]).join(', ')),
  ];
  const lines = [...groups.values()].sort((a, b) => rank[a.outcome] - rank[b.outcome] || b.idle - a.idle);
  return lines.map(({ outcome, text, idle, things }) =>
    h(
      `div.rp-effect.${outcome}${idle ? '.idle' : ''}`,
      { role: 'listitem' },
      idle ? null : h('span', {}, 'without'),
      names(things),
      idle ? IDLE : words[outcome](text),
    ),
  );
}
