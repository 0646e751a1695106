// A study's id in → the reports of it that came from elsewhere, to read beside its own, take over or remove.

import { api } from '/static/js/bus.js';
import { fill, h } from './dom.js';
import { guarded } from './page.js';

const SECTIONS = [['findings', 'Findings'], ['impression', 'Impression'], ['measured', 'Measurements']];
const day = (date) => (/^\d{8}$/.test(date) ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}` : '');

/**
 * Fill `box`; hidden while there is none.
 * @param report {frozen, settle(), show(report)}: the working report; `show` gets it when sentences were taken over
 */
export async function showReceived(box, study, report) {
  const path = `/api/studies/${encodeURIComponent(study)}/received`;
  const draw = (rows) => {
    box.hidden = !rows.length;
    fill(box, rows.map(one));
  };

  function one(row) {
    const signed = row.final ? `signed${row.author ? `, ${row.author}` : ''}` : 'not signed';
    const own = `${path}/${encodeURIComponent(row.id)}`;
    const part = ([key, title]) => (row[key].length ? [h('h4', {}, title), row[key].map((text) => h('p', {}, text))] : null);
    const button = (words, title, act) => h('button', { type: 'button', title, disabled: report.frozen, onclick: guarded(act) }, words);
    return h(
      'details.rp-received',
      { 'data-received': row.id },
      h('summary', {}, 'Report from elsewhere ', h('span.rp-dim', {}, [day(row.date), signed].filter(Boolean).join(' · '))),
      SECTIONS.map(part),
      row.text ? [h('h4', {}, 'Free text'), h('p.rp-lines', {}, row.text)] : null,
      h(
        'div.rp-row',
        {},
        button('Take its sentences over', 'They become your own sentences of this report, to change or remove', async () => {
          await report.settle();
          report.show(await api('POST', `${own}/take`));
        }),
        button('Remove', 'Take this report off the study', async () => draw(await api('DELETE', own))),
      ),
    );
  }

  draw(await api('GET', path));
}
