// What readers signed of what was drafted here → the section "Adapters and acceptance" of the evaluation page.

import { api, emit } from '/static/js/bus.js';
import { fill, h } from './dom.js';
import { guarded } from './page.js';
import { interval } from './plots.js';

const percent = (share) => `${(100 * share).toFixed(0)} %`;
const range = (ends) => ends.map((end) => (100 * end).toFixed(0)).join(' – ');
const day = (time) => (time ? new Date(time).toLocaleDateString() : '');
const plot = (row) => interval(row.rate, row.ci95, { from: 0, reference: null, width: 120 });

/** An element that fills itself; a refusal stands in it as a sentence, and the page around it stays. */
export function learning() {
  const section = h('section.rp-mark.learning', { 'aria-label': 'Adapters and acceptance', tabindex: -1 });
  const rates = h('div', { 'aria-live': 'polite' });

  const load = async () => {
    try {
      show(await api('GET', '/api/learning'));
    } catch (error) {
      fill(section, title(), h('p.rp-dim', {}, error.message));
    }
  };
  const narrow = guarded(async (adapter) => {
    const query = adapter ? `?adapter=${encodeURIComponent(adapter)}` : '';
    showRates((await api('GET', `/api/learning${query}`)).acceptance);
  });
  const goBack = guarded(async () => {
    emit('toast', { level: 'success', text: (await api('POST', '/api/learning/return')).sentence });
    await load();
    section.focus(); // the button is gone
  });

  function show(found) {
    const current = found.adapters.find((adapter) => adapter.current);
    const latest = current?.promotions.findLast((promotion) => !promotion.left_at);
    fill(
      section,
      title(),
      h('p.rp-dim', {}, 'Accepted: signed word for word. 95 % intervals (Wilson). A new adapter is used only when it is better on signed cases and forgot nothing on held-out ones.'),
      [found.sentence, current?.problem].filter(Boolean).map((sentence) => h('p', {}, sentence)),
      h(
        'div.rp-column',
        {},
        adapters(found),
        latest || found.before
          ? h(
              'div',
              {},
              (latest?.reasons || []).map((reason) => h('p.rp-dim', {}, `${current.name}: ${reason}`)),
              found.before ? h('button', { type: 'button', onclick: goBack }, `Return to ${found.before}`) : null,
            )
          : null,
        found.signed_cases
          ? h(
              'div',
              {},
              h('div.rp-row', {}, h('p.rp-dim.rp-grow', {}, `By finding, over ${found.signed_cases} signed ${found.signed_cases === 1 ? 'report' : 'reports'}.`), choice(found.writers)),
              rates,
            )
          : h('p.rp-none', {}, 'No report drafted here has been signed yet.'),
      ),
    );
    showRates(found.acceptance);
  }

  function choice(writers) {
    if (writers.length < 2) return null;
    return h(
      'select',
      { 'aria-label': 'Drafted with', onchange: (event) => narrow(event.target.value) },
      h('option', { value: '' }, 'all adapters'),
      writers.map((writer) => h('option', { value: writer.adapter }, writer.adapter)),
    );
  }

  function showRates(rows) {
    fill(
      rates,
      rows.length
        ? table(
            ['Finding', 'drafted', 'kept', 'edited', 'removed', 'struck', 'accepted', '95 %', ''],
            rows.map((row) => [row.finding, row.drafted, row.kept, row.edited, row.removed, row.struck, percent(row.rate), range(row.ci95), plot(row)]),
            'Acceptance by finding',
          )
        : h('p.rp-dim', {}, 'No sentence on a finding was drafted.'),
    );
  }

  load();
  return section;
}

const title = () => h('h3', {}, 'Adapters and acceptance');

function adapters(found) {
  const written = new Map(found.writers.map((writer) => [writer.adapter, writer]));
  const known = found.adapters.map((adapter) => {
    const writer = written.get(adapter.label);
    written.delete(adapter.label);
    const last = adapter.promotions.at(-1);
    const words = h('span', { title: adapter.problem || null }, state(adapter, last));
    return [h('span', { title: adapter.label }, adapter.name), words, day(last?.promoted_at), ...marks(writer)];
  });
  const others = [...written.values()].map((writer) => [writer.adapter || writer.model, 'not here', '', ...marks(writer)]);
  return table(['Adapter', 'state', 'promoted', 'reports', 'drafted', 'accepted', '95 %', ''], [...known, ...others], 'Adapters');
}

function state(adapter, last) {
  if (adapter.problem) return 'not usable';
  if (adapter.current) return 'in use';
  if (last) return last.left_at ? 'returned from' : 'promoted before';
  return adapter.name === 'shipped' ? '' : 'candidate';
}

const marks = (writer) => (writer ? [writer.studies, writer.drafted, percent(writer.rate), range(writer.ci95), plot(writer)] : ['0', '0', '–', '', '']);

function table(head, rows, label) {
  return h(
    'table',
    { 'aria-label': label },
    h('thead', {}, h('tr', {}, head.map((text) => h('th', { scope: 'col' }, text)))),
    h('tbody', {}, rows.map((cells) => h('tr', {}, cells.map((cell, n) => (n ? h('td', {}, cell) : h('th', { scope: 'row' }, cell)))))),
  );
}
