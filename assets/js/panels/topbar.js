// The open study in → the bar above: who it is, what arrived, why it was asked for, and draft, sign, export.

import { api, emit, on, state } from '/static/js/bus.js';
import { date, debounce, fill, h, person } from './dom.js';
import { closeStudy, complain, guarded, panelReady } from './page.js';

const SAVE_MS = 600;
const EXPORTS = [
  ['pdf', 'PDF report'],
  ['sr', 'DICOM SR'],
  ['seg', 'DICOM SEG'],
  ['rtstruct', 'DICOM RTSTRUCT'],
  ['nifti', 'NIfTI masks'],
  ['stl', 'STL surfaces'],
  ['fhir', 'FHIR'],
  ['json', 'JSON'],
  ['research', 'Images for research'],
];

export function mount(element) {
  const who = h('span.rp-who');
  const badge = h('button.rp-badge', { type: 'button', 'aria-haspopup': 'true', 'aria-expanded': 'false' });
  const receipt = h('div.rp-menu.rp-receipt', { hidden: true, role: 'region', 'aria-label': 'Receipt' });
  const indication = h('input.rp-indication', {
    type: 'text',
    placeholder: 'Indication: why was this scan asked for?',
    'aria-label': 'Indication',
    maxlength: 4000,
  });
  const draft = h('button.primary.rp-draft', { type: 'button', title: 'Draft the report (Ctrl+Enter)' }, 'Draft ▸');
  const stop = h('button.rp-stop', { type: 'button', hidden: true, title: 'Stop the draft' }, 'Stop');
  const sign = h('button', { type: 'button', title: 'Sign the report' }, 'Sign');
  const exporter = h('button', { type: 'button', 'aria-haspopup': 'menu', 'aria-expanded': 'false' }, 'Export ▾');
  const menu = h('div.rp-menu', { role: 'menu', hidden: true });
  const signed = h('span.rp-state.signed', { hidden: true }, 'signed');
  const reading = h(
    'div.rp-bar-reading',
    {},
    h('button.quiet', { type: 'button', title: 'Back to the worklist', onclick: closeStudy }, '☰ Worklist'),
    who,
    h('span.rp-anchor', {}, badge, receipt),
    indication,
    signed,
    draft,
    stop,
    sign,
    h('span.rp-anchor', {}, exporter, menu),
  );
  const marks = h('button.quiet.rp-marks-open', { type: 'button', title: 'How good the image models are', onclick: () => emit('evaluation:open') }, 'Evaluation');
  fill(element, h('header.rp-bar', {}, h('strong.rp-brand', {}, 'Reading Room'), reading, marks));

  let saved = Promise.resolve(); // the latest save, so that a draft begins with the words that stand there
  const save = debounce((id, text) => (saved = put(id, text)), SAVE_MS);
  const put = guarded(async (id, text) => {
    await api('PUT', `/api/studies/${encodeURIComponent(id)}/indication`, { text });
    if (state.study?.id === id) {
      state.study.indication = text;
      emit('evidence:changed');
    }
  });
  indication.addEventListener('input', () => state.study && save(state.study.id, indication.value));
  indication.addEventListener('blur', () => save.flush());

  on('study:open', (study) => {
    const p = study.patient || {};
    const about = [p.id, [p.sex, p.age].filter(Boolean).join(' ')].filter(Boolean).join(' · ');
    fill(
      who,
      h('b', {}, person(p.name) || 'No name'),
      h('span', {}, [about, study.description || study.modality, date(study.date)].filter(Boolean).join(' · ')),
    );
    who.title = who.textContent;
    indication.value = study.indication || '';
    showState(study.state);
    close();
  });
  let shownFor = null; // the study whose odd receipt was opened unasked, once
  on('series:open', (series) => {
    if (!series) return;
    showReceipt(series);
    if (badge.classList.contains('warned') && shownFor !== state.study?.id) {
      shownFor = state.study?.id;
      if (receipt.hidden) toggle(badge, receipt);
    }
  });
  on('study:closed', () => {
    save.flush();
    close();
  });

  function showState(now) {
    const frozen = now === 'signed';
    signed.hidden = !frozen;
    indication.disabled = frozen;
    draft.disabled = frozen;
    sign.textContent = frozen ? 'Addendum' : 'Sign';
    if (state.study) state.study.state = now;
  }
  on('report:state', ({ state: now }) => showState(now));

  function showReceipt(series) {
    const r = series.receipt;
    const notes = [...(r.notes || []), ...(state.study?.notes || [])];
    const warned = !r.measurable || r.loaded < r.expected || notes.some((n) => n.level === 'warning');
    badge.className = `rp-badge ${warned ? 'warned' : 'fine'}`;
    const missing = r.expected > r.loaded ? ` of ${r.expected}` : '';
    badge.textContent = warned ? `! ${r.loaded}${missing}` : `✓ ${r.loaded}`;
    badge.title = warned ? 'Something is odd with this series: open the receipt' : 'What arrived: open the receipt';
    badge.setAttribute('aria-label', badge.title);
    const line = (name, value) => [h('dt', {}, name), h('dd', {}, value)];
    const mm = r.spacing ? `${r.spacing.map((v) => v.toFixed(2)).join(' × ')} mm` : 'unknown';
    fill(
      receipt,
      h(
        'dl',
        {},
        line('Format', `${r.format}, ${r.modality}`),
        line('Size', r.dimensions.join(' × ')),
        line('Spacing', r.spacing_source ? `${mm} (${r.spacing_source})` : mm),
        line('Images', `${r.loaded} of ${r.expected} loaded`),
        line('Measuring', r.measurable ? 'lengths and volumes can be trusted' : 'lengths and volumes are not measured'),
      ),
      notes.map((n) => h(`p.rp-note.${n.level}`, {}, n.text)),
    );
  }

  function toggle(button, panel) {
    const open = panel.hidden;
    close();
    panel.hidden = !open;
    button.setAttribute('aria-expanded', String(open));
  }
  function close() {
    receipt.hidden = menu.hidden = true;
    badge.setAttribute('aria-expanded', 'false');
    exporter.setAttribute('aria-expanded', 'false');
  }
  badge.addEventListener('click', () => toggle(badge, receipt));
  exporter.addEventListener('click', () => {
    toggle(exporter, menu);
    if (!menu.hidden) menu.firstElementChild?.focus();
  });
  fill(
    menu,
    EXPORTS.map(([kind, name]) =>
      h('button', { type: 'button', role: 'menuitem', onclick: guarded(() => download(kind)) }, name),
    ),
  );
  menu.addEventListener('keydown', (event) => {
    const items = [...menu.children];
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    items[(at + step + items.length) % items.length].focus();
  });
  document.addEventListener('pointerdown', (event) => {
    if (!event.target.closest?.('.rp-anchor')) close();
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      if (!menu.hidden) exporter.focus();
      close();
      emit('drawers:close');
    }
    const covered = document.querySelector('[aria-modal=true]');
    if (event.key === 'Enter' && !covered && (event.ctrlKey || event.metaKey) && state.study && !draft.disabled && stop.hidden) {
      event.preventDefault();
      start();
    }
  });

  async function download(kind) {
    close();
    await emitAndWait('report:flush');
    const response = await fetch(`/api/studies/${encodeURIComponent(state.study.id)}/export/${kind}`);
    if (!response.ok) {
      const answer = await response.json().catch(() => ({}));
      throw new Error(answer.error || 'This export could not be made.');
    }
    const name = /filename="([^"]+)"/.exec(response.headers.get('content-disposition') || '')?.[1] || `export.${kind}`;
    const link = h('a', { href: URL.createObjectURL(await response.blob()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function start() {
    save.flush();
    await saved; // the click took the focus from the indication, so its save may be under way already
    emit('draft:start');
  }
  draft.addEventListener('click', () => start().catch(complain));
  stop.addEventListener('click', () => emit('draft:stop'));
  sign.addEventListener('click', () => emit('report:sign'));
  on('draft:running', ({ running }) => {
    draft.hidden = running;
    stop.hidden = !running;
    sign.disabled = running;
  });
  panelReady('topbar');
}

/** Let listeners add promises to `detail.waiting` and wait for them all. */
export async function emitAndWait(name) {
  const detail = { waiting: [] };
  emit(name, detail);
  await Promise.all(detail.waiting);
}
