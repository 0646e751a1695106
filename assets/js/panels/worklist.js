// GET /api/studies → the landing table; files, folders and demo scans → jobs with progress, then the study opens.

import { api, emit, on, refusal } from '/static/js/bus.js';
import { date, debounce, fill, h, person } from './dom.js';
import { complain, guarded, openStudy, panelReady } from './page.js';

const POLL_MS = 300;
const STATES = ['', 'new', 'drafted', 'signed'];

export function mount(element) {
  const text = h('input', { type: 'search', placeholder: 'Filter by patient, description, id', 'aria-label': 'Filter' });
  const modality = h('select', { 'aria-label': 'Modality' }, h('option', { value: '' }, 'All modalities'));
  const workState = h(
    'select',
    { 'aria-label': 'State' },
    STATES.map((s) => h('option', { value: s }, s || 'All states')),
  );
  const body = h('tbody');
  const empty = h('p.rp-none', {}, 'No study here yet. Drop a scan on this page, choose files, or open a demo scan.');
  const table = h(
    'table.rp-table',
    {},
    h('thead', {}, h('tr', {}, ['Patient', 'Study date', 'Modality', 'Description', 'State', ''].map((t) => h('th', { scope: 'col' }, t)))),
    body,
  );
  const files = h('input', { type: 'file', multiple: true, hidden: true, 'aria-label': 'Scan files' });
  const folder = h('input', { type: 'file', webkitdirectory: true, multiple: true, hidden: true, 'aria-label': 'Scan folder' });
  const demos = h('div.rp-demos');
  const progress = h('div.rp-upload', { hidden: true });
  const drop = h(
    'div.rp-drop',
    {},
    h('strong', {}, 'Drop a scan here'),
    h('span', {}, 'DICOM files, a folder or a ZIP; NIfTI; PNG or JPEG radiographs'),
    h(
      'div.rp-row',
      {},
      h('button.primary', { type: 'button', onclick: () => files.click() }, 'Choose files'),
      h('button', { type: 'button', onclick: () => folder.click() }, 'Choose folder'),
    ),
    files,
    folder,
  );
  const start = h(
    'aside.rp-start',
    {},
    drop,
    progress,
    h('h3', {}, 'Demo scans'),
    demos,
  );
  fill(
    element,
    h(
      'div.rp-worklist',
      {},
      h('main.rp-list', {}, h('div.rp-filters', {}, text, modality, workState), h('div.rp-scroll', {}, table, empty)),
      start,
      h('footer.rp-footer', {}, 'Research use only, not a medical device.'),
    ),
  );

  const refresh = guarded(async () => {
    const query = new URLSearchParams({ text: text.value, modality: modality.value, state: workState.value });
    const answer = await api('GET', `/api/studies?${query}`);
    const studies = answer.studies ?? answer;
    const filtered = text.value || modality.value || workState.value;
    empty.hidden = studies.length > 0;
    table.hidden = studies.length === 0;
    empty.textContent = filtered
      ? 'No study matches the filter.'
      : 'No study here yet. Drop a scan on this page, choose files, or open a demo scan.';
    known(studies);
    fill(body, studies.map(row));
  });

  function known(studies) {
    const have = new Set([...modality.options].map((o) => o.value));
    for (const study of studies) {
      if (study.modality && !have.has(study.modality)) {
        have.add(study.modality);
        modality.append(h('option', { value: study.modality }, study.modality));
      }
    }
  }

  function row(study) {
    const patient = person(study.patient?.name) || study.patient?.id || 'No name';
    const open = guarded(() => openStudy(study.id));
    const remove = guarded(async (event) => {
      event.stopPropagation();
      if (!window.confirm('Remove this study, its segments and its report from this machine?')) return;
      await api('DELETE', `/api/studies/${encodeURIComponent(study.id)}`);
      await refresh();
    });
    const line = h(
      'tr',
      {
        tabindex: 0,
        'data-study': study.id,
        'aria-label': `Open ${patient}`,
        onclick: open,
        onkeydown: (event) => {
          if (event.target !== line) return;
          if (event.key === 'Enter') open();
          if (event.key === 'ArrowDown') line.nextElementSibling?.focus();
          if (event.key === 'ArrowUp') line.previousElementSibling?.focus();
        },
      },
      h('td.name', {}, patient, study.patient?.id ? h('small', {}, study.patient.id) : null),
      h('td', {}, date(study.date) || '–'),
      h('td', {}, study.modality),
      h('td.wide', {}, study.description || '–'),
      h('td', {}, h(`span.rp-state.${study.state}`, {}, study.state)),
      h('td', {}, h('button.quiet', { type: 'button', title: 'Remove', 'aria-label': `Remove ${patient}`, onclick: remove }, '×')),
    );
    return line;
  }

  // One upload at a time: the second would only fight the first for the line.
  let busy = false;

  async function run(begin) {
    if (busy) throw new Error('A scan is being read already: wait for it or cancel it.');
    busy = true;
    const bar = h('progress', { max: 1, value: 0, 'aria-label': 'Progress' });
    const label = h('span', { 'aria-live': 'polite' }, 'Sending');
    const control = { abort: null, job: null, stopped: false };
    const halt = () => {
      control.stopped = true;
      label.textContent = 'Stopping';
      // kept alive, so that the request outlives a page that is being left
      if (control.job) return api('DELETE', `/api/jobs/${control.job}`, undefined, { keepalive: true });
      control.abort?.();
      return Promise.resolve();
    };
    const cancel = h('button', { type: 'button', onclick: guarded(halt) }, 'Cancel');
    const leave = () => halt().catch(() => {}); // there is nobody left to tell
    window.addEventListener('pagehide', leave);
    fill(progress, bar, h('div.rp-row', {}, label, cancel));
    progress.hidden = false;
    const show = (done, total, words) => {
      if (total > 0) bar.value = done / total;
      else bar.removeAttribute('value');
      if (words && !control.stopped) label.textContent = words;
    };
    try {
      const { job } = await begin(show, control);
      control.job = job;
      if (control.stopped) await api('DELETE', `/api/jobs/${job}`);
      const result = await follow(job, show);
      await refresh();
      if (result?.sentence) emit('toast', { level: 'warning', text: result.sentence });
      if (result?.studies?.length === 1) await openStudy(result.studies[0]);
      else if (result?.studies?.length) emit('toast', { level: 'success', text: `${result.studies.length} studies were added.` });
    } finally {
      window.removeEventListener('pagehide', leave);
      busy = false;
      progress.hidden = true;
      files.value = '';
      folder.value = '';
    }
  }

  async function follow(job, show) {
    for (;;) {
      const now = await api('GET', `/api/jobs/${job}`);
      if (now.state === 'done') return now.result;
      if (now.state === 'cancelled') {
        emit('toast', { level: 'info', text: 'Stopped; nothing was stored.' });
        return null;
      }
      if (now.state === 'failed') throw new Error(now.error);
      show(now.done, now.total, now.text);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  const upload = (list) => {
    const chosen = [...list];
    if (!chosen.length) return Promise.resolve();
    return run((show, control) => send(chosen, show, control));
  };
  files.addEventListener('change', guarded(() => upload(files.files)));
  folder.addEventListener('change', guarded(() => upload(folder.files)));

  for (const name of ['dragover', 'dragenter']) {
    document.addEventListener(name, (event) => {
      if (!event.dataTransfer?.types?.includes('Files')) return;
      event.preventDefault();
      drop.classList.add('over');
    });
  }
  document.addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) drop.classList.remove('over');
  });
  document.addEventListener(
    'drop',
    guarded(async (event) => {
      if (!event.dataTransfer?.types?.includes('Files')) return;
      event.preventDefault();
      drop.classList.remove('over');
      if (document.body.classList.contains('rr-reading-open')) {
        throw new Error('Go back to the worklist to add a scan.');
      }
      await upload(await dropped(event.dataTransfer));
    }),
  );

  api('GET', '/api/demo')
    .then((answer) => fill(demos, (answer.demos ?? answer).map(demo)))
    .catch(complain);

  function demo(scan) {
    const name = scan.name ?? scan;
    const open = guarded(() => run(() => api('POST', `/api/demo/${encodeURIComponent(name)}`)));
    const ready = scan.ready !== false;
    return h(
      'button.rp-demo',
      { type: 'button', onclick: open, disabled: !ready, title: ready ? scan.description : 'Not on this machine yet: make run fetches it' },
      h('span', {}, scan.title || name),
      scan.description ? h('small', {}, scan.description) : null,
    );
  }

  const slowly = debounce(refresh, 150);
  text.addEventListener('input', slowly);
  modality.addEventListener('change', refresh);
  workState.addEventListener('change', refresh);
  on('worklist:show', refresh);
  refresh();
  panelReady('worklist');
}

/** Send files with upload progress, which fetch does not report. */
function send(chosen, show, control) {
  const form = new FormData();
  for (const file of chosen) form.append('files', file, 'scan');
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    control.abort = () => request.abort();
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) show(event.loaded, event.total, `Sending ${chosen.length} file${chosen.length > 1 ? 's' : ''}`);
    };
    request.onload = async () => {
      control.abort = null;
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(await refusal(new Response(request.responseText, { status: request.status })));
    };
    request.onerror = () => reject(new Error('The upload was cut off: the server closed the connection.'));
    request.onabort = () => reject(new Error('Stopped; nothing was stored.'));
    request.open('POST', '/api/upload');
    request.setRequestHeader('accept', 'application/json');
    request.send(form);
  });
}

/** Files of a drop, folders walked. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const out = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      out.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!batch.length) return;
      for (const child of batch) await walk(child);
    }
  };
  for (const entry of entries) await walk(entry);
  return out;
}
