// Names and text in → elements out.  Everything that comes from a study, a report or a model goes in as text, never markup.

/** `h('button.primary', {title: 'x', onclick: fn}, 'text', child)` → element. Strings become text nodes. */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name || 'div');
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'value' || key === 'checked' || key === 'disabled') element[key] = value;
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replace all children. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** Call `fn` once, `ms` after the last call; `.flush()` runs a waiting call now, `.cancel()` drops it. */
export function debounce(fn, ms) {
  let timer = 0;
  let waiting = null;
  const run = () => {
    const args = waiting;
    timer = 0;
    waiting = null;
    return args && fn(...args);
  };
  const later = (...args) => {
    clearTimeout(timer);
    waiting = args;
    timer = setTimeout(run, ms);
  };
  later.flush = () => {
    clearTimeout(timer);
    return run();
  };
  later.cancel = () => {
    clearTimeout(timer);
    waiting = null;
  };
  later.pending = () => waiting !== null;
  return later;
}

/** "20261124" → "2026-11-24"; anything else unchanged. */
export function date(text) {
  return /^\d{8}$/.test(text || '') ? `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}` : text || '';
}

/** A DICOM person name as people write it: "Doe^Jane" → "Doe, Jane". */
export function person(name) {
  return (name || '').split('=')[0].split('^').filter(Boolean).join(', ');
}

/** A number with its unit, as tables show it. */
export function quantity(value, unit) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '';
  const size = Math.abs(value);
  const digits = size >= 100 || unit === 'HU' ? 0 : size >= 1 ? 1 : 2;
  return `${value.toFixed(digits)} ${unit}`.trim();
}
