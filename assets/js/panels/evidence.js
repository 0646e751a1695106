// `evidence:changed` in → the board: cards to accept or reject, finding chips to add, similar reports to look into.

import { api, emit, on, state } from '/static/js/bus.js';
import { debounce, fill, h } from './dom.js';
import { bar, readingLines, show as showFinding } from './findings.js';
import { guarded, panelReady } from './page.js';
import { behind, followReading, isRadiograph } from './reading.js';

const LOOKUP_MS = 120;
const QUOTED = 90; // characters of a prior's sentence on its card; pointing at it shows the whole
const INSTRUCTION = 'instruction-like text';
const KINDS = { finding: 'Finding', measurement: 'Measurement', clinical: 'Clinical text', prior: 'Prior report', comparison: 'Comparison' };

/** What a measured number is, for whoever points at it. */
function measuredBy(card) {
  if (card.annotation_id) return 'Measured by hand in the image; a click shows where';
  const from = `Measured on what ${card.source} drew`;
  if (card.statement === 'lungs: right to left ratio') return `${from}. Projected area of the right lung over that of the left; 1 is symmetric.`;
  if (!card.statement.endsWith('cardiothoracic ratio')) return from;
  return `${from}. Greatest width of the heart over the greatest inner width of the thorax (Danzer 1919); an AP film shows the heart larger.`;
}

/** A card's words; of what was measured by hand and not named, the quantity before the place. */
function spoken(card) {
  const [, place, quantity] = (card.annotation_id && /^((?:axial|coronal|sagittal) slice \d+|image): (.+)$/.exec(card.statement)) || [];
  if (!place) return card.statement;
  const first = `${quantity[0].toUpperCase()}${quantity.slice(1)}`;
  return place === 'image' ? first : `${first}, ${place}`;
}

export function mount(element) {
  const search = h('input', {
    type: 'search',
    placeholder: 'Add a finding  ( / )',
    'aria-label': 'Add a finding',
    role: 'combobox',
    'aria-expanded': 'false',
    'aria-controls': 'rp-findings',
    autocomplete: 'off',
  });
  const options = h('div.rp-options', { id: 'rp-findings', role: 'listbox', hidden: true });
  const similar = h('button', { type: 'button' }, 'Find similar reports');
  const note = h('p.rp-note.info', { hidden: true, 'aria-live': 'polite' });
  const list = h('div.rp-cards', { role: 'list', 'aria-label': 'Evidence' });
  const count = h('span.rp-dim');
  fill(
    element,
    h(
      'section.rp-panel.rp-evidence',
      {},
      h('h2', {}, 'Evidence ', count),
      h('div.rp-row.rp-tools-row', {}, h('div.rp-anchor.rp-grow', {}, search, options), similar),
      note,
      h('div.rp-scroll', {}, readingLines(), list),
    ),
  );

  let cards = [];
  const opened = new Set();

  const refresh = guarded(async () => {
    const study = state.study;
    if (!study) return;
    const answer = await api('GET', `/api/studies/${encodeURIComponent(study.id)}/evidence`);
    if (state.study?.id !== study.id) return;
    cards = answer;
    draw();
    emit('evidence:shown', { cards });
    const shown = cards.find((card) => card.id === measured);
    if (shown) showCalipers(shown, true);
    else if (measured) showFinding(null);
  });
  const soon = debounce(refresh, 30);

  on('study:open', (study) => {
    cards = [];
    measured = '';
    opened.clear();
    note.hidden = true;
    const frozen = study.state === 'signed';
    search.disabled = similar.disabled = frozen;
    draw();
    refresh();
  });
  on('study:closed', () => {
    cards = [];
    measured = '';
    draw();
  });
  on('report:state', ({ state: now }) => {
    search.disabled = similar.disabled = now === 'signed';
    draw();
  });
  on('evidence:changed', () => soon());
  on('finding:show', (detail) => {
    if (!detail?.lines) measured = ''; // something else is pointed at
  });
  on('reading:changed', () => draw()); // a card's threshold comes with the reading

  let measured = ''; // the card whose calipers are shown
  /** Where a card's number was measured, on the masks as they are now. */
  const showCalipers = guarded(async (card, again = false) => {
    measured = card.id;
    const found = await api('GET', `${at(card.id)}/calipers`);
    if (measured !== card.id || !found.lines.length) return;
    emit('finding:show', { series: found.series, term: card.statement, box: null, heat: null, lines: found.lines, again });
  });

  const at = (id) => `/api/studies/${encodeURIComponent(state.study.id)}/evidence/${encodeURIComponent(id)}`;
  const decide = guarded(async (card, status) => {
    await api('PATCH', at(card.id), { status: card.status === status ? 'proposed' : status });
    emit('evidence:changed');
  });
  const drop = guarded(async (card) => {
    await api('DELETE', at(card.id));
    emit('evidence:changed');
  });

  function draw() {
    count.textContent = cards.length ? String(cards.length) : '';
    if (!cards.length) {
      fill(list, h('p.rp-none', {}, 'No evidence yet. Segment a structure, add a finding, or write the indication.'));
      return;
    }
    const order = (card) => (card.kind === 'prior' ? 1 : 0);
    fill(list, [...cards].sort((a, b) => order(a) - order(b)).map(line));
  }

  function line(card) {
    const frozen = state.study?.state === 'signed';
    const prior = card.kind === 'prior' && card.report;
    const own = card.kind === 'finding' && card.source === 'reader';
    const found = card.kind === 'finding' && !own ? behind(card) : null;
    const select = () => {
      emit('cards:highlight', { ids: [card.id] });
      emit('statements:of', { card: card.id });
      showFinding(found, card.location);
      measured = '';
      if (found) return;
      if (card.kind === 'measurement' && state.study?.series.some(isRadiograph)) showCalipers(card);
      if (card.location) emit('viewer:goto', { lps: card.location, segment: card.segment_id, annotation: card.annotation_id });
      else if (card.segment_id) emit('segment:select', { id: card.segment_id });
    };
    const row = h(
      `div.rp-card.${card.status}.${card.kind}${card.kind === 'finding' && !own ? '.model' : ''}`,
      {
        role: 'listitem',
        tabindex: 0,
        'data-card': card.id,
        title: card.kind === 'measurement' ? measuredBy(card) : card.kind === 'finding' && !own ? `Proposed by ${card.source}` : null,
        'aria-label': [card.id, card.text, card.status, prior && says(card)].filter(Boolean).join(', '),
        onclick: (event) => !event.target.closest('button, details') && select(),
        onkeydown: (event) => {
          if (event.target !== row) return;
          if (event.key === 'Enter') select();
          if (event.key === 'ArrowDown') row.nextElementSibling?.focus();
          if (event.key === 'ArrowUp') row.previousElementSibling?.focus();
        },
      },
      h('span.rp-id', { title: KINDS[card.kind] || card.kind }, card.id),
      h(
        'div.rp-body',
        {},
        h(
          'div.rp-text',
          {},
          prior ? h('q', {}, card.statement) : h('span', {}, spoken(card)),
          card.value_text ? h('b', {}, card.value_text) : null,
          found ? bar(found.finding) : null,
          !found && Number.isFinite(card.probability) ? h('b', {}, `p ${card.probability.toFixed(2)}`) : null,
        ),
        h(
          'div.rp-source',
          {},
          h('span', {}, prior ? `${prior.source} ${prior.id}` : card.source),
          prior && Number.isFinite(card.score) ? h('span', { title: card.found ? `Found by ${card.found}` : null }, `similarity ${card.score.toFixed(2)}`) : null,
          prior ? tags(card, prior) : null,
          prior ? prior.terms.slice(0, 4).map((t) => h('span.rp-term', {}, t)) : null,
        ),
        prior ? details(card, prior) : null,
      ),
      h(
        'span.rp-decide',
        {},
        button('✓', 'Accept', card.status === 'accepted', () => decide(card, 'accepted'), frozen),
        button('✗', 'Reject', card.status === 'rejected', () => decide(card, 'rejected'), frozen),
        own ? button('×', 'Remove', false, () => drop(card), frozen) : null,
      ),
    );
    return row;

    function button(sign, title, pressed, onclick, disabled) {
      const attributes = { type: 'button', title, 'aria-label': `${title} ${card.id}`, 'aria-pressed': String(pressed), onclick, disabled };
      return h('button.quiet', attributes, sign);
    }
  }

  /** The sentences of a prior about cards that are still on the board: [card, sentence] pairs. */
  const about = (card) => (card.stance ? card.said.filter(([id]) => cards.some((c) => c.id === id && c.status !== 'rejected')) : []);
  const says = (card) => (about(card).length ? `${card.stance} ${about(card).map(([id]) => id).join(', ')}` : '');

  /** What a reader must know of a prior before reading it. */
  function tags(card, report) {
    const said = about(card);
    const short = (text) => (text.length > QUOTED ? `${text.slice(0, QUOTED - 1)}…` : text);
    // The card shows the first of these sentences, cut where it is long; while that card stands, a name is enough.
    const stands = (sentence) => sentence.startsWith(card.statement.replace(/…$/, ''));
    const quote = said.length && !stands(said[0][1]) ? `: “${short(said[0][1])}”` : '';
    const whole = said.map(([id, sentence]) => `${id}: “${sentence}”`).join('\n');
    return [
      card.close === false ? h('span.rp-flag', { title: 'No precedent is close. This is the nearest report; the draft does not read it.' }, 'not close') : null,
      card.same_patient ? h('span.rp-flag', {}, 'earlier report of this patient') : null,
      said.length ? h(`span.rp-flag.${card.stance === 'contradicts' ? 'contradicted' : 'supported'}`, { title: whole }, `${says(card)}${quote}`) : null,
      report.flags?.includes(INSTRUCTION) ? h('span.rp-flag.warning', { title: 'It is quoted as data and never followed.' }, 'talks to a model: quoted, not followed') : null,
    ];
  }

  function details(card, report) {
    const part = (title, text) => (text ? [h('h4', {}, title), h('p', {}, text)] : null);
    const box = h(
      'details',
      { open: opened.has(card.id) },
      h('summary', {}, 'Report'),
      card.matched?.length ? [h('h4', {}, 'Nearest sentences'), h('ul', {}, card.matched.map((m) => h('li', {}, m)))] : null,
      part('Indication', report.indication),
      part('Findings', report.findings),
      part('Impression', report.impression),
      card.found ? h('p.rp-dim', {}, `Found by ${card.found}`) : null,
      report.flags?.length ? h('p.rp-note.warning', {}, `Cleaned: ${report.flags.join(', ')}`) : null,
    );
    box.addEventListener('toggle', () => (box.open ? opened.add(card.id) : opened.delete(card.id)));
    return box;
  }

  on('cards:highlight', ({ ids, scroll = false }) => {
    let first = true;
    for (const row of list.children) {
      const on_ = ids.includes(row.dataset.card);
      row.classList.toggle('lit', on_);
      if (on_ && scroll && first) {
        row.scrollIntoView({ block: 'nearest' });
        first = false;
      }
    }
  });

  // ---- the finding search ---------------------------------------------------------------------------------------

  let terms = [];
  let chosen = -1;
  const show = () => {
    options.hidden = terms.length === 0;
    search.setAttribute('aria-expanded', String(!options.hidden));
    fill(
      options,
      terms.map((term, n) =>
        h(
          'div',
          {
            role: 'option',
            id: `rp-finding-${n}`,
            'aria-selected': String(n === chosen),
            onpointerdown: (event) => {
              event.preventDefault();
              add(term);
            },
          },
          term,
        ),
      ),
    );
    if (chosen >= 0) {
      search.setAttribute('aria-activedescendant', `rp-finding-${chosen}`);
      options.children[chosen]?.scrollIntoView({ block: 'nearest' });
    } else search.removeAttribute('aria-activedescendant');
  };
  const hide = () => {
    terms = [];
    chosen = -1;
    show();
  };
  let asked = 0;
  const lookup = debounce(
    guarded(async () => {
      const turn = (asked += 1);
      const found = await api('GET', `/api/findings?q=${encodeURIComponent(search.value)}`);
      if (turn !== asked || document.activeElement !== search) return;
      terms = found;
      chosen = -1;
      show();
    }),
    LOOKUP_MS,
  );
  const add = guarded(async (term) => {
    hide();
    search.value = '';
    await api('POST', `/api/studies/${encodeURIComponent(state.study.id)}/evidence`, { term });
    emit('evidence:changed');
  });
  search.addEventListener('input', () => lookup());
  search.addEventListener('focus', () => lookup());
  search.addEventListener('blur', hide);
  search.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && terms.length) {
      event.preventDefault();
      chosen = (chosen + step + terms.length) % terms.length;
      show();
    } else if (event.key === 'Enter' && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      const term = chosen >= 0 ? terms[chosen] : search.value.trim();
      if (term) add(term);
    } else if (event.key === 'Escape') hide();
    else if (event.key === '/' && !search.value) event.preventDefault(); // pressed to get here, where one is already
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || !state.study) return;
    if (document.querySelector('[aria-modal=true]')) return;
    if (event.target.closest?.('input, textarea, select, [contenteditable]')) return;
    event.preventDefault();
    search.focus();
  });

  similar.addEventListener(
    'click',
    guarded(async () => {
      similar.disabled = true;
      similar.textContent = 'Searching …';
      try {
        const found = await api('POST', `/api/studies/${encodeURIComponent(state.study.id)}/priors`);
        note.textContent = found.sentence;
        note.hidden = !found.sentence;
        emit('evidence:changed');
      } finally {
        similar.disabled = state.study?.state === 'signed';
        similar.textContent = 'Find similar reports';
      }
    }),
  );
  on('priors:sentence', ({ text }) => {
    note.textContent = text;
    note.hidden = !text;
  });
  followReading();
  panelReady('evidence');
}
