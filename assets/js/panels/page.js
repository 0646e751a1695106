// A study's id in → the study open in every panel; the address bar's #study=… follows, so that a reload reopens it.

import { api, emit, state } from '/static/js/bus.js';

const READING = 'rr-reading-open';

/** Tell the reader about a failure in the server's own sentence. */
export function complain(error) {
  if (error && error.name === 'AbortError') return;
  emit('toast', { level: 'error', text: error?.message || String(error) });
}

/** Wrap an async handler so that its failure becomes a toast. */
export function guarded(fn) {
  return async (...args) => {
    try {
      return await fn(...args);
    } catch (error) {
      complain(error);
      return undefined;
    }
  };
}

let opening = 0;

/** Open the study in the reading view. */
export async function openStudy(id) {
  const turn = (opening += 1);
  const study = await api('GET', `/api/studies/${encodeURIComponent(id)}`);
  if (turn !== opening) return; // another one was asked for meanwhile
  if (state.study) emit('study:closed');
  document.body.classList.add(READING);
  const hash = `#study=${encodeURIComponent(id)}`;
  if (location.hash !== hash) history.pushState(null, '', hash);
  emit('study:open', study);
  const first = [...study.series].sort((a, b) => voxels(b) - voxels(a))[0];
  if (first) emit('series:open', first);
}

function voxels(series) {
  const shape = series.shape || series.receipt?.dimensions || [];
  return shape.reduce((product, n) => product * n, 1);
}

/** Back to the worklist. */
export function closeStudy() {
  opening += 1;
  document.body.classList.remove(READING);
  if (location.hash) history.pushState(null, '', location.pathname);
  if (state.study) emit('study:closed');
  emit('worklist:show');
}

/** Follow the address: on load and on back/forward. */
export function followAddress() {
  const match = /^#study=(.+)$/.exec(location.hash);
  if (!match) {
    if (document.body.classList.contains(READING)) closeStudy();
    return;
  }
  const id = decodeURIComponent(match[1]);
  if (state.study?.id === id) return;
  openStudy(id).catch((error) => {
    complain(error);
    closeStudy();
  });
}

/** Every panel's module says so when it listens; the address is followed once all do. */
const PANELS = ['topbar', 'worklist', 'series', 'segments', 'evidence', 'report'];
const ready = new Set();

export function panelReady(name) {
  ready.add(name);
  if (PANELS.every((panel) => ready.has(panel)) && !panelReady.done) {
    panelReady.done = true;
    window.addEventListener('popstate', followAddress);
    window.addEventListener('hashchange', followAddress);
    // The viewer mounts by itself; its element is marked once it listens.
    whenViewerListens().then(followAddress);
  }
}

async function whenViewerListens() {
  for (let tries = 0; tries < 100; tries += 1) {
    if (document.querySelector('#rr-viewer [data-ready], #rr-viewer canvas')) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
