// A radiograph in → a row of buttons, one for each structure that the model drew; a press makes it a named segment.

import { api, emit, on, state } from '/static/js/bus.js';
import { fill, h } from './dom.js';
import { guarded } from './page.js';
import { imageOf, isRadiograph } from './reading.js';

const STRUCTURES = ['right lung', 'left lung', 'heart', 'right clavicle', 'left clavicle'];

/** @param drawn () → the labels that are segments of the open series already */
export function anatomyRow(drawn) {
  const buttons = h('div.rp-structures');
  const row = h('div.rp-anatomy', { hidden: true, role: 'group', 'aria-label': 'Anatomy' }, buttons);
  let busy = false;

  const structures = () => (imageOf(state.series?.id)?.structures || []).map((s) => s.label);
  const possible = (label) => !busy && state.study?.state !== 'signed' && (label === null ? structures().length > 0 : structures().includes(label));

  const add = guarded(async (label) => {
    if (!possible(label)) return;
    busy = true;
    draw();
    try {
      const answer = await api('POST', `/api/series/${encodeURIComponent(state.series.id)}/anatomy`, { label });
      // After all of them the next click begins a new segment; after one of them it corrects that one.
      emit('segments:changed', { segments: answer.segments, active: label === null ? null : answer.segment });
      emit('evidence:changed');
    } finally {
      busy = false;
      draw();
    }
  });

  function draw() {
    row.hidden = !isRadiograph(state.series);
    if (row.hidden) return;
    const image = imageOf(state.series.id);
    const over = image && !['waiting', 'reading'].includes(image.state);
    const why = !over ? 'The image is being read' : structures().length ? null : image.sentence || 'The model drew no anatomy on this image';
    const have = drawn();
    const button = (label, text, title) =>
      h(
        'button',
        {
          type: 'button',
          disabled: !possible(label),
          title: why || title,
          'aria-pressed': String(label !== null && have.has(label)),
          'data-structure': label ?? 'all',
          onclick: () => add(label),
        },
        text,
      );
    const focused = buttons.contains(document.activeElement) ? document.activeElement.dataset.structure : null;
    fill(
      buttons,
      button(null, 'All anatomy', 'Draw every structure (A)'),
      STRUCTURES.map((label) => button(label, label, `Draw the ${label}`)),
    );
    if (focused) buttons.querySelector(`[data-structure='${focused}']`)?.focus();
  }

  on('reading:changed', draw);
  on('series:open', draw);
  on('study:closed', draw);
  on('segments:changed', () => queueMicrotask(draw)); // after the list itself has heard of it
  on('report:state', draw);
  on('anatomy:draw', ({ label }) => add(label));
  return row;
}
