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
    h('header', {}, h('h2', {}, 'Evaluation of the models'), h('span.rp-dim', {}, 'Measured on patients (on images or studies, where no patient is known) who were held out of training.'), close),
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
    if (found.missing) fill(body, column(clicks(found.clicks), drafts(found.drafting), learning()), column(h('p.rp-none', {}, found.missing)));
    else {
      fill(
        body,
        column(findings(found.findings), calibration(found.findings), gate(found.gate), clicks(found.clicks), drafts(found.drafting), learning()),
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

function clicks(c) {
  if (!Array.isArray(c?.rows)) return section('clicks', 'Click segmentation', 'Not evaluated yet: run `python app.py evaluate segmentation --record` once.');
  const until = (one) => (known(one?.median) ? one.median : `> ${c.clicks}`);
  const rows = c.rows.map((row) => [
    row.trains ? `${row.data} *` : row.data, row.taken ? h('b', {}, row.engine) : row.engine, row.n, show(row.dice?.['1']), show(row.dice?.['3']),
    interval(row.dice?.['3'], row.dice_ci?.['3'], { from: 0, reference: null, width: 80 }), show(row.dice?.['5']), show(row.hausdorff95?.['5'], 1), until(row.clicks_to?.['0.80']),
    show(row.click_s?.median),
  ]);
  const targets = entries(c.targets).map(([name, one]) => [
    name, show(one['1']), show(one['3']), show(one['5']), show(one.hausdorff95?.['5'], 1), known(one.clicks_to?.['0.80']) ? one.clicks_to['0.80'] : `> ${c.clicks}`,
  ]);
  return section(
    'clicks',
    'Click segmentation',
    `Dice after 1, 3 and 5 simulated clicks, each on the deepest point of the largest error; the line is the 95 % interval at 3. HD95: 95% Hausdorff distance at 5 clicks, in mm (pixels for ACDC and JSRT). In bold the engine that the page takes. Seconds: a click's median on ${c.threads ?? '–'} threads.`,
    table(['Data', 'engine', 'n', '1', '3', '', '5', 'HD95', 'to .80', 's'], rows, 'Click segmentation'),
    c.rows.some((row) => row.engine.endsWith('+ other answer')) ? h('p.rp-dim', {}, '+ other answer: read by someone who also looks at the other answer (Shift+A) after each click and keeps the better one.') : null,
    c.rows.some((row) => row.trains) ? h('p.rp-dim', {}, '* The engines with weights were trained on this scan; it judges the others.') : null,
    h('p.rp-dim', {}, `${c.default} on the demo CT:`),
    table(['Target', '1', '3', '5', 'HD95', 'to .80'], targets, 'Click segmentation by target'),
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

const SYSTEMS = {
  model: 'the model',
  without_priors: 'without priors',
  without_steps: 'without reasoning',
  nearest_label: 'report with the nearest findings',
  nearest_text: 'report with the nearest text',
  constant_normal: 'always the same normal report',
  templates: 'templates filled from the cards',
  reference: 'what the radiologist wrote',
};
const ON_PICTURES = {
  draft: 'draft, with the picture',
  draft_without_picture: 'draft, without it',
  head: 'the findings model itself',
  always_normal: 'always normal',
  always_every_finding: 'always every finding',
};
const percent = (share) => (known(share) ? `${(100 * share).toFixed(1)} %` : '–');
const line = (one, measure) => interval(one[measure], one.ci95?.[measure], { from: 0, reference: null, width: 96 });

function drafts(d) {
  if (!d) return section('drafts', 'Drafts', 'Not evaluated yet: run `python app.py evaluate drafting --record` once.');
  const named = entries(d.systems).filter(([name]) => SYSTEMS[name]);
  const compared = named
    .map(([name, groups]) => [name, groups.non_normal || {}])
    .filter(([, one]) => one.studies)
    .map(([name, one]) => [
      SYSTEMS[name], one.studies, show(one.finding_recall), line(one, 'finding_recall'), show(one.text_f1), line(one, 'text_f1'), show(one.rouge_l), line(one, 'rouge_l'),
    ]);
  const all = named
    .map(([name, groups]) => [name, groups.all || {}])
    .map(([name, one]) => [
      SYSTEMS[name], one.studies ?? '–', show(one.finding_recall), range(one.ci95?.finding_recall), show(one.finding_precision), percent(one.unsupported_rate), percent(one.contradicted_rate),
      show(one.bleu4, 3), show(one.rouge_l, 3),
    ]);
  return section(
    'drafts',
    'Drafts',
    `${d.studies ?? '–'} held-out reports that stand in no training report, written from their own finding headings by ${d.adapter || 'the adapter'}. Recall: given findings that a supported sentence states; struck: what the check found unsupported or contradicted.`,
    table(['System', 'studies', 'recall', '95 %', 'precision', 'unsupported', 'contradicted', 'BLEU-4', 'ROUGE-L'], all, 'Drafts'),
    h('p.rp-dim', {}, "Studies with findings, 95 % intervals; F1 is of the findings that the radiologist's own text states."),
    table(['System', 'studies', 'recall', '', 'F1 of the text', '', 'ROUGE-L', ''], compared, 'Drafts of studies with findings'),
    h(
      'p.rp-dim',
      {},
      'Findings are counted by the table that also checks each sentence: what it does not know, these figures do not see. The cards were given, so this says how drafts are written, not how images are read.',
    ),
    pictures(d.pictures),
  );
}

function pictures(p) {
  if (!p?.systems) return null;
  const rows = entries(p.systems)
    .filter(([name]) => ON_PICTURES[name])
    .map(([name, one]) => [ON_PICTURES[name], show(one.f1), line(one, 'f1'), show(one.precision), show(one.recall), show(one.accuracy)]);
  return h(
    'div',
    {},
    h('p.rp-dim', {}, `From the image alone: ${p.images ?? '–'} radiographs of ${p.patients ?? '–'} patients, proposed findings left open, against ${p.labels?.length ?? '–'} labels. Where nothing was proposed (${p.without_card ?? '–'}) there is no draft. Accuracy flatters whoever always says normal.`),
    table(['From the image alone', 'F1', '', 'precision', 'recall', 'accuracy'], rows, 'Drafts from the image alone'),
  );
}
