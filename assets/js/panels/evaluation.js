// `evaluation:open` in → a page over the reading: how good the image models are, on whom, and how well calibrated.

import { api, emit, on } from '/static/js/bus.js';
import { fill, h } from './dom.js';
import { learning } from './learning.js';
import { guarded } from './page.js';
import { interval, reliability } from './plots.js';

const known = (value) => typeof value === 'number' && Number.isFinite(value);
const show = (value, digits = 2) => (known(value) ? value.toFixed(digits) : '–');
const range = (ends) => (Array.isArray(ends) && ends.every(known) ? `${ends[0].toFixed(2)} – ${ends[1].toFixed(2)}` : '');
const plain = (name) => name.replaceAll('_', ' ');
const entries = (value) => (value && typeof value === 'object' && !Array.isArray(value) ? Object.entries(value) : []);

export function mount(element) {
  const body = h('div.rp-marks');
  const close = h('button', { type: 'button', onclick: () => hide() }, 'Close');
  const page = h(
    'section.rp-evaluation',
    { hidden: true, role: 'dialog', 'aria-label': 'Evaluation' },
    h('header', {}, h('h2', {}, 'Evaluation of the image models'), h('span.rp-dim', {}, 'Measured on patients (on images, where no patient is known) who were held out of training.'), close),
    body,
  );
  fill(element, page);
  let before = null;

  const openPage = guarded(async () => {
    if (!page.hidden) {
      hide();
      return;
    }
    before = document.activeElement;
    page.hidden = false;
    page.setAttribute('aria-modal', 'true'); // the viewer's keys rest while it is
    close.focus();
    fill(body, h('p.rp-dim', {}, 'Loading …'));
    const found = await api('GET', '/api/evaluation');
    const column = (...sections) => h('div.rp-column', {}, sections);
    if (found.missing) fill(body, column(learning()), column(h('p.rp-none', {}, found.missing)));
    else {
      fill(
        body,
        column(findings(found.findings), calibration(found.findings), gate(found.gate), learning()),
        column(subgroups(found.findings), anatomy(found.anatomy), retrieval(found.retrieval)),
      );
    }
  });
  function hide() {
    if (page.hidden) return;
    page.hidden = true;
    page.removeAttribute('aria-modal');
    before?.focus?.();
  }
  on('evaluation:open', openPage);
  on('drawers:close', hide);
  on('study:open', hide);
  on('worklist:show', hide);
}

function table(head, rows, label) {
  return h(
    'table',
    { 'aria-label': label },
    h('thead', {}, h('tr', {}, head.map((text) => h('th', { scope: 'col' }, text)))),
    h('tbody', {}, rows.map((cells) => h('tr', {}, cells.map((cell, n) => (n ? h('td', {}, cell) : h('th', { scope: 'row' }, cell)))))),
  );
}

function section(name, title, about, ...children) {
  return h(`section.rp-mark.${name}`, {}, h('h3', {}, title), about ? h('p.rp-dim', {}, about) : null, children);
}

const absent = (name, title) => section(name, title, 'Not evaluated yet.');

function findings(f) {
  if (!f) return absent('findings', 'Findings');
  const within = entries(f.macro_auroc_within);
  const big = (value, words, small) => h('div.rp-big', {}, h('b', {}, value), h('span', {}, words), h('small', {}, small || ' '));
  return section(
    'findings',
    'Findings',
    `${f.test_patients ?? '–'} patients, ${f.test_images ?? '–'} images${f.data ? ` (${f.data})` : ''}. The dot is the area under the ROC curve, the line its 95 % interval; the thin mark is chance.`,
    h(
      'div.rp-bigs',
      {},
      big(show(f.macro_auroc, 3), 'macro AUROC', range(f.macro_auroc_ci)),
      within.map(([view, value]) => big(show(value, 3), `within ${view}`, 'the view itself tells nothing here')),
      known(f.baselines?.view_alone) ? big(show(f.baselines.view_alone, 3), 'the view alone', 'a baseline that sees no image') : null,
      big(show(f.ece, 3), 'calibration error', known(f.ece_of_a_perfect_model) ? `a perfect model: ${show(f.ece_of_a_perfect_model, 3)}` : 'expected; lower is better'),
    ),
    table(
      ['Finding', 'AUROC', '95 %', '', 'positive', 'ECE', 'threshold', 'sensitivity', 'specificity'],
      entries(f.per_finding).map(([name, m]) => [
        plain(name), show(m.auroc), range(m.auroc_ci), interval(m.auroc, m.auroc_ci), known(m.positives) ? m.positives : '–', show(m.ece, 3), show(m.threshold),
        show(m.sensitivity), show(m.specificity),
      ]),
      'Findings',
    ),
  );
}

function calibration(f) {
  const plots = entries(f?.reliability).filter(([, points]) => Array.isArray(points) && points.length);
  if (!plots.length) return absent('calibration', 'Reliability');
  return section(
    'calibration',
    'Reliability',
    'Stated probability across, observed share up; on the diagonal 0.30 means three in ten. Larger dots hold more images.',
    h('div.rp-plots', {}, plots.map(([name, points]) => h('figure', {}, reliability(points), h('figcaption', {}, plain(name))))),
  );
}

function subgroups(f) {
  const groups = entries(f?.subgroups);
  if (!groups.length) return absent('subgroups', 'Subgroups');
  const rows = groups.flatMap(([group, parts]) =>
    entries(parts).map(([name, m]) => [`${group} ${name}`, known(m.n) ? m.n : '–', show(m.macro_auroc), range(m.ci), interval(m.macro_auroc, m.ci)]),
  );
  return section(
    'subgroups',
    'Subgroups',
    'Macro AUROC in each; where intervals are wide, a difference may be chance.',
    table(['Group', 'n', 'AUROC', '95 %', ''], rows, 'Subgroups'),
  );
}

function anatomy(a) {
  if (!a?.dice) return absent('anatomy', 'Anatomy');
  const lazy = a.baselines?.mean_mask;
  const rows = entries(a.dice).map(([name, value]) => [
    name, show(value, 3), range(a.dice_ci?.[name]), interval(value, a.dice_ci?.[name], { from: 0.5, reference: null }), show(lazy?.[name], 3),
  ]);
  const ratio = a.cardiothoracic_ratio;
  const error = known(ratio?.mean_absolute_error) ? ` The cardiothoracic ratio is off by ${show(ratio.mean_absolute_error, 3)} on average.` : '';
  return section(
    'anatomy',
    'Anatomy',
    `Dice overlap with drawings by hand, ${a.cases ?? '–'} images.${error}`,
    table(['Structure', 'Dice', '95 %', '', 'mean mask'], rows, 'Anatomy'),
  );
}

function gate(g) {
  if (!g?.questions) return absent('gate', 'Quality gate');
  const rows = entries(g.questions).map(([name, m]) => [
    `is it ${name}?`, known(m.yes) ? `${m.yes} / ${m.no}` : '–', show(m.auroc, 3), show(m.sensitivity, 3), show(m.specificity, 3),
  ]);
  const through = known(g.plain_frontal_let_through) ? ` Of ${g.plain_frontal} plain frontal radiographs ${show(g.plain_frontal_let_through * 100, 1)} % were let through.` : '';
  return section(
    'gate',
    'Quality gate',
    `${g.pictures ?? '–'} pictures, all slightly altered, a third inverted too and a third turned.${through}`,
    table(['Question', 'yes / no', 'AUROC', 'sensitivity', 'specificity'], rows, 'Quality gate'),
  );
}

/** Every object that holds recalls, with the path of names that leads to it. */
function recalls(value, path = []) {
  const here = entries(value).filter(([key, v]) => key.startsWith('recall@') && known(v));
  const below = entries(value).flatMap(([key, v]) => recalls(v, [...path, key]));
  return here.length ? [[path, Object.fromEntries(here)], ...below] : below;
}

function retrieval(r) {
  if (!r) return absent('retrieval', 'Retrieval');
  const found = recalls(r);
  const ranks = [...new Set(found.flatMap(([, m]) => Object.keys(m)))].sort((a, b) => Number(a.split('@')[1]) - Number(b.split('@')[1]));
  const words = (path) => path.map(plain).join(': ');
  return section(
    'retrieval',
    'Retrieval',
    `The right text among ${r.pool ?? '–'}${known(r.clinical_notes?.pool) ? ` (clinical notes: among ${r.clinical_notes.pool})` : ''}, and what lazy baselines reach.`,
    table(['Search', ...ranks], found.map(([path, m]) => [words(path), ...ranks.map((rank) => show(m[rank], 3))]), 'Retrieval'),
  );
}
