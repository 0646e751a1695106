// `annotations:changed` in → the list of what was measured by hand: to name, go to and delete.  The viewer stores it.

import { emit, on, state } from '/static/js/bus.js';
import { fill, h } from './dom.js';
import { words } from '/static/js/viewer/lines.js';

const KINDS = { length: 'Length', angle: 'Angle', ellipse: 'Ellipse', probe: 'Value', ratio: 'CTR' };

/** The list; hidden while there is nothing in it. */
export function measurementList() {
  let rows = [];
  let active = null;
  const list = h('div.rp-measures', { role: 'list', 'aria-label': 'Measurements' });
  const box = h('div.rp-measured-box', { hidden: true }, h('h2', {}, 'Measurements'), list);

  const draw = () => {
    const editing = list.contains(document.activeElement) && document.activeElement.matches('input');
    if (editing) return; // redrawn when the name is left
    box.hidden = !rows.length;
    fill(list, rows.map(line));
  };
  on('annotations:changed', (detail) => {
    rows = detail.annotations;
    active = detail.active;
    draw();
  });
  on('study:closed', () => {
    rows = [];
    draw();
  });
  on('report:state', draw);

  function line(row) {
    const frozen = state.study?.state === 'signed';
    const [told, ...more] = words(row.numbers);
    const all = [told, ...more].join(', ');
    const what = `${KINDS[row.kind] || row.kind} ${row.number}`;
    const name = h('input.rp-name', {
      type: 'text',
      value: row.label,
      placeholder: what,
      list: 'rp-organs',
      maxlength: 200,
      disabled: frozen,
      'aria-label': `Name of ${what}`,
      title: 'What was measured: the card and the report say it',
    });
    const rename = () => name.value.trim() !== row.label && emit('annotation:label', { id: row.id, label: name.value.trim() });
    name.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') name.value = row.label;
      if (event.key === 'Enter' || event.key === 'Escape') name.blur();
    });
    name.addEventListener('change', rename);
    name.addEventListener('blur', () => setTimeout(draw, 0));
    const go = () => emit('viewer:goto', { lps: null, annotation: row.id });
    const item = h(
      'div.rp-measure',
      { role: 'listitem', tabindex: 0, 'aria-current': active === row.id ? 'true' : null, 'data-annotation': row.id, 'aria-label': `${row.label || what}: ${all}`, title: all },
      name,
      h('span.rp-number', {}, told),
      h('button.quiet', { type: 'button', title: 'Delete (Delete)', 'aria-label': `Delete ${what}`, disabled: frozen, onclick: () => emit('annotation:delete', { id: row.id }) }, '×'),
    );
    item.addEventListener('click', (event) => !event.target.closest('button, input') && go());
    item.addEventListener('keydown', (event) => {
      if (event.target !== item) return;
      if (event.key === 'Enter') go();
      else if (event.key === 'Delete' && !frozen) emit('annotation:delete', { id: row.id });
      else return;
      event.preventDefault();
    });
    return item;
  }
  return box;
}
