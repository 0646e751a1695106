// A study's id in → a drawer with its versions and the difference of any one to the working report or another.

import { api } from '/static/js/bus.js';
import { spans } from './diff.js';
import { fill, h } from './dom.js';
import { guarded } from './page.js';

const KIND = { draft: 'draft', signed: 'signed', addendum: 'addendum' };

/** Fill `drawer` with the versions; `close` hides it. */
export async function showVersions(drawer, study, close) {
  const path = `/api/studies/${encodeURIComponent(study)}`;
  const versions = await api('GET', `${path}/versions`);
  const text = h('div.rp-diff', { 'aria-live': 'polite' });
  const choose = (label, extra) =>
    h('select', { 'aria-label': label }, extra, versions.map((v) => h('option', { value: v.number }, `version ${v.number}`)).reverse());
  const older = choose('From');
  const newer = choose('To', h('option', { value: 0 }, 'working report'));
  const compare = guarded(async () => {
    if (!versions.length) return;
    const steps = await api('GET', `${path}/diff?a=${older.value}&b=${newer.value}`);
    const same = steps.every((s) => s.op === 'same');
    fill(text, same ? h('p.rp-dim', {}, 'No difference.') : null, spans(steps));
  });
  older.addEventListener('change', compare);
  newer.addEventListener('change', compare);
  fill(
    drawer,
    h('div.rp-row', {}, h('h3.rp-grow', {}, 'Versions'), h('button.quiet', { type: 'button', 'aria-label': 'Close versions', onclick: close }, '×')),
    versions.length
      ? [
          h(
            'div.rp-versions',
            {},
            [...versions].reverse().map((v) =>
              h(
                'button.rp-line',
                {
                  type: 'button',
                  onclick: () => {
                    older.value = v.number;
                    compare();
                  },
                },
                h('b', {}, String(v.number)),
                h(`span.rp-state.${v.kind}`, {}, KIND[v.kind] || v.kind),
                h(
                  'span.rp-grow',
                  {},
                  v.author,
                  v.model
                    ? h('small.rp-dim', {}, ` ${v.model.adapter || v.model.name}, index ${(v.model.index_digest || 'none').slice(0, 12)}`)
                    : null,
                ),
                h('span.rp-dim', {}, new Date(v.created_at).toLocaleString()),
              ),
            ),
          ),
          h('div.rp-row', {}, older, h('span.rp-dim', {}, '→'), newer),
          text,
        ]
      : h('p.rp-none', {}, 'No version yet: one is kept with each draft, at the first edit after it, and at signing.'),
  );
  drawer.hidden = false;
  drawer.querySelector('button, select')?.focus();
  await compare();
}
