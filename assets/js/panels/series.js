// The open study's series in → a list to choose from; the chosen one goes out as `series:open`.

import { emit, on, state } from '/static/js/bus.js';
import { fill, h } from './dom.js';
import { panelReady } from './page.js';

export function mount(element) {
  const list = h('div.rp-series', { role: 'listbox', 'aria-label': 'Series' });
  fill(element, h('section.rp-panel', {}, h('h2', {}, 'Series'), list));

  const draw = () => {
    const study = state.study;
    if (!study) {
      fill(list);
      return;
    }
    fill(
      list,
      study.series.map((series) => {
        const r = series.receipt;
        const chosen = state.series?.id === series.id;
        const warned = !r.measurable || r.loaded < r.expected || (r.notes || []).some((n) => n.level === 'warning');
        return h(
          'button.rp-line',
          {
            type: 'button',
            role: 'option',
            'aria-selected': String(chosen),
            title: (r.notes || []).map((n) => n.text).join('\n') || null,
            onclick: () => emit('series:open', series),
          },
          h('span.rp-tag', {}, series.modality),
          h('span.rp-grow', {}, series.description || `Series ${series.number}`),
          h(warned ? 'span.rp-warn' : 'span.rp-dim', {}, warned ? `! ${r.loaded}/${r.expected}` : String(r.loaded)),
        );
      }),
    );
  };
  on('study:open', draw);
  on('series:open', draw);
  on('study:closed', draw);
  panelReady('series');
}
