// The reader's name, and for an addendum its text, asked for in a dialog → an answer, or null when it is closed.

import { h } from './dom.js';

const NAME = 'rr-reader';

/** `ask({title, text, button, long})` → {author, text} or null. The name is remembered in this browser tab only. */
export function ask({ title, words, button, long }) {
  const name = h('input', { type: 'text', required: true, maxlength: 200, autocomplete: 'off', value: sessionStorage.getItem(NAME) || '' });
  const text = h('textarea', { rows: 5, required: true, maxlength: 20000 });
  const form = h(
    'form',
    { method: 'dialog' },
    h('h2', {}, title),
    h('p', {}, words),
    h('label', {}, 'Reader', name),
    long ? h('label', {}, 'Addendum', text) : null,
    h(
      'div.rp-row',
      {},
      h('button', { type: 'button', onclick: () => dialog.close('') }, 'Cancel'),
      h('button.primary', { type: 'submit', value: 'yes' }, button),
    ),
  );
  const dialog = h('dialog.rp-dialog', { 'aria-label': title }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      const author = name.value.trim();
      if (dialog.returnValue !== 'yes' || !author) {
        resolve(null);
        return;
      }
      sessionStorage.setItem(NAME, author);
      resolve({ author, text: text.value });
    });
    dialog.showModal();
    (name.value && long ? text : name).focus();
  });
}
