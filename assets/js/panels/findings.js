// The image models' answer in → the board's line about it, what was looked for and not proposed, and a finding's bar.

import { emit, on, state } from '/static/js/bus.js';
import { fill, h } from './dom.js';
import { currentReading, isRadiograph } from './reading.js';

const percent = (value) => `${(Math.max(0, Math.min(1, value)) * 100).toFixed(1)}%`;
const words = (finding) => `${finding.calibrated ? 'p' : 'score'} ${finding.probability.toFixed(2)}`;

/** "p 0.91" with a thin bar and the tick of the threshold that makes it a proposal. */
export function bar(finding) {
  const title = `${finding.calibrated ? 'Calibrated probability' : 'Uncalibrated score'} ${finding.probability.toFixed(2)}; proposed from ${finding.threshold.toFixed(2)}`;
  const track = h('span.rp-track', { 'aria-hidden': 'true' }, h('i.rp-fill'), h('i.rp-tick'));
  track.children[0].style.width = percent(finding.probability);
  track.children[1].style.left = percent(finding.threshold);
  return h('span.rp-probability', { title }, h('b', {}, words(finding)), track);
}

/** Open the finding's series, outline its box, and move there; null takes the outline away. */
export function show(found, lps = null) {
  if (!found) {
    emit('finding:show', null);
    return;
  }
  const { image, finding } = found;
  if (state.series?.id !== image.series) {
    const series = state.study?.series.find((candidate) => candidate.id === image.series);
    if (series) emit('series:open', series);
  }
  emit('finding:show', { series: image.series, term: finding.term, box: finding.box, heat: finding.heat });
  if (lps) emit('viewer:goto', { lps, segment: null });
}

/** The board's reserved lines: who read the image from what, what is odd with it, and what was not proposed. */
export function readingLines() {
  const element = h('div.rp-looked', { 'aria-live': 'polite' });
  let open = false;
  let carded = new Set(); // terms that have a card on the board

  function draw() {
    const study = state.study;
    const reading = currentReading();
    const expected = (study?.series || []).some(isRadiograph);
    element.hidden = !study;
    if (!study) return;
    element.style.setProperty('--images', Math.min(3, Math.max(1, study.series.filter(isRadiograph).length)));
    if (!reading) {
      fill(element, h('p.rp-looked-line', {}, expected ? 'Reading the image …' : ''));
      return;
    }
    const many = reading.images.length > 1;
    fill(element, reading.images.map((image) => one(image, many)), reading.sentence ? h('p.rp-looked-line', {}, reading.sentence) : null);
  }

  function one(image, many) {
    const series = state.study.series.find((candidate) => candidate.id === image.series);
    const name = many ? `${series?.description || `Series ${series?.number}`}: ` : '';
    if (image.state === 'waiting' || image.state === 'reading') return h('p.rp-looked-line', {}, `${name}Reading the image …`);
    if (image.state !== 'done') return h(`p.rp-looked-line.${image.state}`, {}, name + image.sentence);
    const { quality } = image;
    const sorted = [...(image.findings || [])].sort((a, b) => b.probability - a.probability);
    const rest = sorted.filter((f) => !f.present);
    // A signed board stays as it was, and the reader's own card may say it already: nothing found is left unsaid.
    const apart = sorted.filter((f) => f.present && !carded.has(f.term.toLowerCase()));
    const notes = [...quality.notes, ...(image.notes || [])];
    return [
      // What is odd with the image stands before anything that was found on it.
      notes.map((text) => h('p.rp-looked-line.odd', {}, name + text)),
      quality.usable || notes.length ? null : h('p.rp-looked-line.odd', {}, `${name}No findings are shown for this image.`),
      h(
        'p.rp-looked-line',
        { title: `Licence: ${image.licence}\nInputs: ${image.inputs.join(', ')}\n${image.missing.join('\n')}` },
        `${name}read by ${image.model}; inputs: ${image.inputs.join(', ')}`,
      ),
      apart.length
        ? h('p.rp-looked-line', {}, `above its threshold, with no card of its own: ${apart.map((f) => `${f.term} ${words(f)}`).join(', ')}`)
        : null,
      rest.length ? lookedFor(image, rest) : null,
    ];
  }

  function lookedFor(image, rest) {
    const details = h(
      'details.rp-rest',
      { open },
      h('summary', {}, `looked for, not proposed (${rest.length})`),
      h(
        'ul',
        {},
        rest.map((finding) =>
          h(
            'li',
            {},
            finding.box || finding.heat
              ? h('button.quiet', { type: 'button', title: 'Show where', onclick: () => show({ image, finding }) }, finding.term)
              : h('span', {}, finding.term),
            bar(finding),
          ),
        ),
      ),
      image.missing.map((text) => h('p.rp-dim', {}, text)),
    );
    details.addEventListener('toggle', () => {
      open = details.open;
    });
    return details;
  }

  on('study:open', () => {
    open = false;
    carded = new Set();
    draw();
  });
  on('study:closed', draw);
  on('reading:changed', draw);
  on('evidence:shown', ({ cards }) => {
    carded = new Set(cards.filter((card) => card.kind === 'finding').map((card) => card.statement.toLowerCase()));
    draw();
  });
  draw();
  return element;
}
