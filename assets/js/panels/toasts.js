// `toast` events in → sentences in a polite live region out; each leaves by itself or on a click.

import { on } from '/static/js/bus.js';
import { fill, h } from './dom.js';

const SHOWN_MS = { info: 4000, success: 4000, warning: 8000, error: 12000 };
const MOST = 4;

export function mount(element) {
  const area = h('div.rp-toasts', { role: 'status', 'aria-live': 'polite', 'aria-relevant': 'additions' });
  fill(element, area);
  on('toast', ({ level = 'info', text = '' }) => {
    const note = h(`button.rp-toast.${level in SHOWN_MS ? level : 'info'}`, { type: 'button', title: 'Dismiss' }, text);
    const leave = () => note.remove();
    note.addEventListener('click', leave);
    area.append(note);
    while (area.children.length > MOST) area.firstElementChild.remove();
    setTimeout(leave, SHOWN_MS[level] || SHOWN_MS.info);
  });
}
