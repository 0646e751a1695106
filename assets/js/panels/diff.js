// Two texts, or steps from the server → spans that show what went and what came.

import { h } from './dom.js';

const WORDS = /\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const MOST = 4_000_000; // cells of the table; past it the texts are shown whole, one after the other

/** [{op: same/delete/insert, text}] → spans. */
export function spans(steps) {
  const tags = { same: 'span', delete: 'del', insert: 'ins' };
  return steps.map(({ op, text }) => h(tags[op] || 'span', {}, text));
}

/** Word-level steps from `a` to `b` by their longest common subsequence. */
export function steps(a, b) {
  const left = a.match(WORDS) || [];
  const right = b.match(WORDS) || [];
  const width = right.length + 1;
  if ((left.length + 1) * width > MOST) return [{ op: 'delete', text: a }, { op: 'insert', text: b }];
  const table = new Uint16Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      const down = table[(i + 1) * width + j];
      const across = table[i * width + j + 1];
      table[i * width + j] = left[i] === right[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(down, across);
    }
  }
  const out = [];
  const push = (op, text) => {
    const last = out.at(-1);
    if (last?.op === op) last.text += text;
    else out.push({ op, text });
  };
  let i = 0;
  let j = 0;
  while (i < left.length || j < right.length) {
    if (i < left.length && j < right.length && left[i] === right[j]) {
      push('same', left[i]);
      i += 1;
      j += 1;
    } else if (j >= right.length || (i < left.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) {
      push('delete', left[i]);
      i += 1;
    } else {
      push('insert', right[j]);
      j += 1;
    }
  }
  return out;
}

/** A report as plain text, as the server's versions have it. */
export function reportText(report) {
  const parts = [];
  for (const [section, title] of [['findings', 'FINDINGS'], ['impression', 'IMPRESSION']]) {
    const lines = report.statements.filter((s) => s.section === section && s.text.trim()).map((s) => s.text.trim());
    if (lines.length) parts.push([title, ...lines].join('\n'));
  }
  if (report.free_text?.trim()) parts.push(report.free_text.trim());
  return parts.join('\n\n');
}
