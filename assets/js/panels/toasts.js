// `toast` events in → sentences in a polite live region out; each leaves by itself or on a click.
//
// One with an `action` {label, key, run, over} has a button beside its sentence: it stays longer, and for as long as
// the pointer or the focus is on it, and leaves when `over` (an AbortSignal) says that there is nothing to act on.

import { on } from '/static/js/bus.js';
import { fill, h } from './dom.js';

const SHOWN_MS = { info: 4000, success: 4000, warning: 8000, error: 12000 };
const ACTION_MS = 8000;
const MOST = 4;

export function mount(element) {
  const area = h('div.rp-toasts', { role: 'status', 'aria-live': 'polite', 'aria-relevant': 'additions' });
  fill(element, area);
  on('toast', ({ level = 'info', text = '', action = null }) => {
    const kind = level in SHOWN_MS ? level : 'info';
    const note = action ? withAction(kind, text, action) : h(`button.rp-toast.${kind}`, { type: 'button', title: 'Dismiss' }, text);
    note.addEventListener('click', () => note.remove());
    area.append(note);
    while (area.children.length > MOST) area.firstElementChild.remove();
    leaveLater(note, action ? Math.max(ACTION_MS, SHOWN_MS[kind]) : SHOWN_MS[kind]);
  });
}

function withAction(kind, text, { label, key = '', run, over = null }) {
  const note = h(
    `div.rp-toast.${kind}`,
    {},
    h('button.rp-said', { type: 'button', title: 'Dismiss' }, text),
    h('button.rp-act', { type: 'button', onclick: () => run() }, label, key ? h('kbd', {}, key) : null),
  );
  over?.addEventListener('abort', () => note.remove(), { once: true });
  return note;
}

/** Gone after `ms`, counted anew when pointer and focus have left it. */
function leaveLater(note, ms) {
  let timer = 0;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => note.remove(), ms);
  };
  const hold = () => clearTimeout(timer);
  const left = () => !note.matches(':hover, :focus-within') && wait();
  for (const name of ['pointerenter', 'focusin']) note.addEventListener(name, hold);
  note.addEventListener('pointerleave', left);
  note.addEventListener('focusout', () => setTimeout(left, 0)); // the focus is where it goes only then
  wait();
}
