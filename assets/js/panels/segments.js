// `segments:changed` in → the segment list with names, sizes, undo and redo; the 3D plot is asked for when it changed.

import { api, emit, on, state } from '/static/js/bus.js';
import { anatomyRow } from './anatomy.js';
import { debounce, fill, h, quantity } from './dom.js';
import { measurementList } from './measurements.js';
import { guarded, panelReady } from './page.js';

const PLOT_MS = 1500; // without a graphics card drawing it takes the processor from the next click's answer
const NAMES = [
  'liver', 'spleen', 'right kidney', 'left kidney', 'right lung', 'left lung', 'heart', 'aorta', 'trachea', 'stomach',
  'gallbladder', 'pancreas', 'bladder', 'nodule', 'mass', 'pleural effusion', 'lymph node', 'vertebra', 'rib',
  'right clavicle', 'left clavicle',
];

export function mount(element, { trigger }) {
  let segments = [];
  let active = null;
  const list = h('div.rp-segments', { role: 'list', 'aria-label': 'Segments' });
  const none = h('p.rp-none', {}, 'Click a structure in the image to segment it.');
  const names = h('datalist', { id: 'rp-organs' }, NAMES.map((value) => h('option', { value })));
  const ofSeries = () => segments.filter((s) => !state.series || s.series === state.series.id);
  const anatomy = anatomyRow(() => new Set(ofSeries().filter((s) => s.based).map((s) => s.label.toLowerCase())));
  fill(element, h('section.rp-panel', {}, h('h2', {}, 'Segments'), names, anatomy, none, list, measurementList()));

  on('study:open', (study) => {
    segments = study.segments || [];
    active = null;
    draw();
    plot();
  });
  on('study:closed', () => {
    segments = [];
    active = null;
    draw();
    plot.cancel();
    placePlot(false);
  });
  on('series:open', () => {
    draw();
    plot();
  });
  on('segments:changed', (detail) => {
    segments = detail.segments;
    if (detail.active !== undefined) active = detail.active;
    draw();
    plot();
  });
  on('segment:asked', () => plot.pending() && plot());
  on('segment:select', ({ id }) => {
    active = id;
    draw();
  });
  on('report:state', ({ state: now }) => {
    if (state.study) state.study.state = now;
    draw();
  });

  const change = (fn) =>
    guarded(async (...args) => {
      const answer = await fn(...args);
      emit('segments:changed', { segments: answer.segments, active: answer.segment ?? null });
      emit('evidence:changed');
    });
  const path = (segment) => `/api/segments/${encodeURIComponent(segment.id)}`;
  const patch = change((segment, values) => api('PATCH', path(segment), values));
  const step = change((segment, way) => api('POST', `${path(segment)}/${way}`));

  function other(segment) {
    if (segment.id !== active) emit('segment:select', { id: segment.id });
    emit('segment:alternative');
  }

  function draw() {
    const shown = ofSeries();
    none.hidden = shown.length > 0;
    const editing = list.contains(document.activeElement) && document.activeElement.matches('input[type=text]');
    if (editing) return; // redrawn when the name is left
    fill(list, shown.map(line));
  }

  function line(segment) {
    const m = segment.measurement || {};
    const size = m.volume_ml !== null && m.volume_ml !== undefined
      ? quantity(m.volume_ml, 'ml')
      : m.area_mm2 ? quantity(m.area_mm2 / 100, 'cm²') : '';
    const measured = [
      Number.isFinite(m.mean) && Number.isFinite(m.sd) ? `${m.mean.toFixed(m.unit === 'HU' ? 0 : 1)} ± ${quantity(m.sd, m.unit === 'HU' ? 'HU' : '')}` : '',
      Number.isFinite(m.longest_axial_diameter_mm) ? `⌀ ${quantity(m.longest_axial_diameter_mm, 'mm')}` : '',
    ].filter(Boolean);
    const frozen = state.study?.state === 'signed';
    // What a suggestion rests on, where the atlas gave it ("position, HU and shape, 83 %").
    const from = typeof segment.suggested === 'string' ? segment.suggested : '';
    const name = h('input.rp-name', {
      type: 'text',
      value: segment.label,
      list: 'rp-organs',
      maxlength: 200,
      disabled: frozen,
      'aria-label': `Name of segment ${segment.number}`,
      title: segment.suggested
        ? `${from ? `Suggested from ${from}` : 'A suggested name'}: type the right one, or Enter to confirm`
        : segment.label,
    });
    name.classList.toggle('suggested', Boolean(segment.suggested));
    const confirm = () => {
      const label = name.value.trim();
      if (label && (label !== segment.label || segment.suggested)) return patch(segment, { label });
      return undefined;
    };
    name.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') {
        const done = confirm();
        name.blur();
        return done;
      }
      if (event.key === 'Escape') {
        name.value = segment.label;
        name.blur();
      }
      return undefined;
    });
    name.addEventListener('change', () => name.value.trim() !== segment.label && confirm());
    name.addEventListener('blur', () => setTimeout(draw, 0));
    const icon = (sign, title, onclick, disabled = false) =>
      h('button.quiet', { type: 'button', title, 'aria-label': `${title}: ${segment.label}`, onclick, disabled }, sign);
    const row = h(
      'div.rp-segment',
      { role: 'listitem', 'aria-current': active === segment.id ? 'true' : null, 'data-segment': segment.id },
      h('input.rp-colour', {
        type: 'color',
        value: segment.colour,
        title: 'Colour',
        'aria-label': `Colour of ${segment.label}`,
        onchange: (event) => patch(segment, { colour: event.target.value }),
      }),
      name,
      h('span.rp-number', {}, size),
      h(
        'span.rp-tools',
        {},
        icon(segment.visible ? '◉' : '○', segment.visible ? 'Hide' : 'Show', () => patch(segment, { visible: !segment.visible })),
        icon(segment.outline ? '▢' : '▣', segment.outline ? 'Fill' : 'Outline only (O)', () => patch(segment, { outline: !segment.outline })),
        icon('⇥', 'Its largest slice (J)', () => emit('segment:largest', { id: segment.id })),
        segment.alternatives ? icon('⇄', 'The other answer to the same clicks (Shift+A)', () => other(segment), frozen) : null,
        icon('↶', 'Undo the last step', () => step(segment, 'undo'), frozen || !segment.can_undo),
        icon('↷', 'Redo', () => step(segment, 'redo'), frozen || !segment.can_redo),
        icon('×', 'Delete', () => emit('segment:delete', { id: segment.id }), frozen),
      ),
      measured.length ? h('p.rp-measured', { title: 'Mean ± SD inside the segment, and its longest axial diameter' }, measured.join(' · ')) : null,
      segment.note ? h('p.rp-note.warning', {}, segment.note) : null,
      active === segment.id ? history(segment) : null,
    );
    row.addEventListener('click', (event) => {
      if (event.target.closest('button, input, details')) return;
      emit('segment:select', { id: segment.id });
      if (m.centroid_lps) emit('viewer:goto', { lps: m.centroid_lps, segment: segment.id });
    });
    return row;
  }

  /** What was done to the active segment, the latest first: what each step cost and brought. */
  let unfolded = false;
  function history(segment) {
    const { steps } = segment;
    const settled = segment.settled ? h('p.rp-settled', { title: 'The last click changed at most 1 % of the segment, so the next one will hardly change more; a brush (Shift+B) will' }, 'Another click will hardly help.') : null;
    if (!steps.length) return settled;
    const lines = steps.map((step, n) => h('li', {}, h('span', {}, `${n + 1}  ${stepName(step)}`), h('span.rp-cost', {}, cost(step)), h('span.rp-gain', {}, gain(step)))).reverse();
    const last = steps[steps.length - 1];
    const summary = h('summary', {}, h('span', {}, `${steps.length} ${steps.length === 1 ? 'step' : 'steps'}`), h('span.rp-cost', {}, cost(last)), h('span.rp-gain', {}, gain(last)));
    const fold = h('details.rp-history', { open: unfolded }, summary, h('ol', { 'aria-label': `Steps of ${segment.label}, the latest first` }, lines));
    fold.addEventListener('toggle', () => (unfolded = fold.open));
    return [settled, fold];
  }

  // What the plot shows last, so that an unchanged picture is not asked for again.
  let drawn = '';
  const plot = debounce(() => {
    const series = state.series?.id;
    const flat = state.series?.shape?.[0] === 1; // a radiograph has no surfaces
    const visible = segments.filter((s) => !flat && s.series === series && s.visible && s.box.slice(3).every(Boolean));
    const key = JSON.stringify([series, visible.map((s) => [s.id, s.colour, s.version])]);
    placePlot(visible.length > 0);
    if (key === drawn) return;
    drawn = key;
    if (visible.length) trigger('surfaces', { series });
  }, PLOT_MS);
  panelReady('segments');
}

const STEPS = { click: 'click', scribble: 'scribble', box: 'box', lasso: 'lasso', interpolation: 'between slices', alternative: 'other', grow: 'grow' };

function stepName({ kind, positive = true, radius_mm: radius }) {
  if (kind === 'stroke') return positive ? `brush ${radius} mm` : `eraser ${radius} mm`;
  return kind === 'alternative' ? STEPS[kind] : `${positive ? '+' : '−'} ${STEPS[kind] ?? kind}`;
}

const cost = ({ ms }) => (Number.isFinite(ms) ? (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`) : 'with the next');

/** What the mask gained and lost; a step of an older version does not know. */
function gain({ added, removed, unit }) {
  if (!Number.isFinite(added)) return '';
  const parts = [added > 0 ? `+${quantity(added, '')}` : '', removed > 0 ? `−${quantity(removed, '')}` : ''].filter(Boolean);
  return parts.length ? `${parts.join(' ')} ${unit}` : 'no change';
}

/** The plot stands in the viewer's fourth cell while there is something to show, else nowhere. */
function placePlot(shown) {
  const plot = document.getElementById('rr-surface');
  const slot = document.querySelector('#rr-viewer .rr-slot-3d');
  if (!plot || !slot) return;
  const home = document.getElementById('rr-reading');
  if (shown && plot.parentElement !== slot) {
    slot.append(plot);
    window.dispatchEvent(new Event('resize'));
  } else if (!shown && plot.parentElement === slot) home.append(plot);
  plot.classList.toggle('shown', shown);
}
