// One statement of the report → its row: text, support, evidence, origin, reasoning; edits go out through `acts`.

import { fill, h } from './dom.js';
import { IDLE, effects } from './why.js';

const ORIGINS = { model: 'model', edited: 'edited', human: 'reader' };
const SUPPORT = {
  supported: 'Supported by its evidence',
  unsupported: 'No support was found in the evidence',
  contradicted: 'The evidence says otherwise',
};

/**
 * A row. `acts`: changed(), remove(row), agree(row), restore(row), select(row), card(id), explained(id).
 * `row.data` is the statement; `update()` shows it anew without touching a text that is being written.
 */
export class StatementRow {
  constructor(data, acts) {
    this.data = data;
    this.acts = acts;
    this.locked = false;
    this.text = h('textarea', {
      rows: 1,
      spellcheck: 'true',
      maxlength: 10000,
      oninput: () => {
        this.data.text = this.text.value;
        if (this.data.origin === 'model') {
          this.data.origin = 'edited'; // as the server will say once it is saved
          this.update();
        }
        this.fit();
        acts.changed();
      },
      onkeydown: (event) => {
        if (event.key === 'Enter' && !event.ctrlKey && !event.metaKey) {
          event.preventDefault(); // one statement is one line; Enter begins the next
          acts.next(this);
        }
      },
    });
    this.meta = h('div.rp-meta');
    this.why = h('span.rp-why');
    this.effects = h('div.rp-effects', { hidden: true, role: 'list', 'aria-label': 'What this statement rests on' });
    this.root = h(
      'div.rp-statement',
      { 'data-statement': data.id, onclick: (event) => !event.target.closest('button') && acts.select(this) },
      this.text,
      this.meta,
      this.effects,
    );
    this.update();
  }

  /** Take what the server knows; the text only where the reader has not gone on writing since it was sent. */
  take(statement, sent) {
    const text = sent === undefined || this.data.text === sent ? statement.text : this.data.text;
    this.data = { ...statement, text };
    this.update();
  }

  lock(locked) {
    this.locked = locked;
    this.update();
  }

  fit() {
    this.text.style.height = 'auto';
    if (this.text.scrollHeight) this.text.style.height = `${this.text.scrollHeight}px`;
  }

  update() {
    const s = this.data;
    if (this.text.value !== s.text) this.text.value = s.text;
    this.text.readOnly = this.locked;
    this.text.setAttribute('aria-label', `${s.section === 'impression' ? 'Impression' : 'Findings'} statement`);
    const mine = s.origin === 'human';
    const state = s.stale ? 'stale' : mine ? 'own' : s.support;
    const dropped = s.origin === 'model' && s.support === 'unsupported' && !s.restored;
    this.root.className = `rp-statement ${state}${dropped ? ' dropped' : ''}${this.locked ? ' locked' : ''}`;
    const found = s.origin === 'model' ? this.acts.explained(s.id) : null; // the reader's own words are not tested
    const because = s.note || (state === 'own' ? 'Written by the reader' : SUPPORT[s.support]);
    fill(
      this.meta,
      h(
        'div.rp-about',
        {},
        (s.evidence || []).map((id) => this.chip(id, found?.idle.includes(id))),
        h('span.rp-origin', { title: because }, ORIGINS[s.origin] || s.origin),
        s.stale ? h('span.rp-flag', {}, 'a number or card it rests on changed') : null,
        s.copied_from
          ? h('span.rp-flag.copied', { title: `This sentence stands word for word in the prior report ${s.copied_from}` }, `word for word from ${s.copied_from}`)
          : null,
        s.rewritten
          ? h('span.rp-flag.second', { title: `The check refused the model's first sentence: “${s.rewritten}”` }, 'second attempt')
          : null,
        !s.stale && s.support !== 'supported' && !mine ? h(`span.rp-flag.${s.support}`, { title: because }, because) : null,
        this.why,
      ),
      this.locked
        ? null
        : h(
            'div.rp-acts',
            {},
            s.stale ? this.button('agree / update', 'Fill in the numbers of today', () => this.acts.agree(this)) : null,
            dropped ? this.button('restore', 'Keep this statement all the same', () => this.acts.restore(this)) : null,
            this.button('×', 'Remove this statement', () => this.acts.remove(this)),
          ),
    );
    const step = s.step;
    this.why.hidden = !step;
    // The chips say what was considered; it is written out only where the statement cites something else.
    const same = step && step.considered.join() === (s.evidence || []).join();
    this.why.textContent = step ? `${same ? '' : `considered ${step.considered.join(', ') || 'nothing'} `}→ ${step.follows}` : '';
    this.why.title = step ? `Considered ${step.considered.join(', ') || 'nothing'}; what follows: ${step.follows}` : '';
    this.effects.hidden = !found;
    fill(this.effects, found ? effects(found, (id) => this.chip(id)) : null);
    requestAnimationFrame(() => this.fit());
  }

  /** A card's id; pointing at it lights the card up. */
  chip(id, idle = false) {
    return h(
      `button.rp-chip${idle ? '.idle' : ''}`,
      {
        type: 'button',
        'data-chip': id,
        title: idle ? `${id}: ${IDLE}` : `Show ${id}`,
        onmouseenter: () => this.acts.card(id, false),
        onfocus: () => this.acts.card(id, false),
        onclick: () => this.acts.card(id, true),
      },
      id,
    );
  }

  button(sign, title, onclick) {
    return h('button.quiet', { type: 'button', title, 'aria-label': title, onclick }, sign);
  }
}
