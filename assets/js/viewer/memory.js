// A series' id and its window in → the same when it is opened again, on this machine; no names, only numbers.

const KEY = 'rr-windows';
const KEPT = 200;

function all() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) || {};
  } catch {
    return {}; // no storage, or not ours
  }
}

/** {window: [centre, width], inverted} as it was left, or null. */
export function recall(series) {
  const found = all()[series];
  return found && found.window?.length === 2 && found.window.every(Number.isFinite) ? found : null;
}

/** Keep it; null lets it go. */
export function remember(series, value) {
  const kept = all();
  delete kept[series];
  if (value) kept[series] = value; // the latest last
  const names = Object.keys(kept);
  for (const name of names.slice(0, Math.max(0, names.length - KEPT))) delete kept[name];
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // A private window has no storage: the window is then not kept.
  }
}
