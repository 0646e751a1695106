// Numbers in → small SVG plots: an interval on a line, a reliability diagram, a bar.  Drawn here, nothing is fetched.

const SVG = 'http://www.w3.org/2000/svg';

function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  for (const child of children) element.append(child);
  return element;
}

function picture(width, height, label, ...children) {
  const title = s('title');
  title.textContent = label;
  return s('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', class: 'rp-plot' }, title, ...children);
}

const number = (value) => typeof value === 'number' && Number.isFinite(value);

/** A value with its 95 % interval on the axis `from` to `to`; a thin line marks `reference` (0.5: no better than chance). */
export function interval(value, ends, { from = 0.4, to = 1, reference = 0.5, width = 150 } = {}) {
  const x = (v) => 4 + ((Math.max(from, Math.min(to, v)) - from) / (to - from)) * (width - 8);
  const parts = [s('line', { x1: 4, x2: width - 4, y1: 8, y2: 8, class: 'axis' })];
  if (reference !== null) parts.push(s('line', { x1: x(reference), x2: x(reference), y1: 2, y2: 14, class: 'reference' }));
  if (Array.isArray(ends) && ends.every(number)) parts.push(s('line', { x1: x(ends[0]), x2: x(ends[1]), y1: 8, y2: 8, class: 'interval' }));
  if (number(value)) parts.push(s('circle', { cx: x(value), cy: 8, r: 3.2, class: 'value' }));
  return picture(width, 16, number(value) ? value.toFixed(3) : 'no value', ...parts);
}

/** Points {p, observed, n}: stated probability across, observed share up; the diagonal is perfect calibration. */
export function reliability(points, { side = 128 } = {}) {
  const pad = 16;
  const at = (v) => pad + Math.max(0, Math.min(1, v)) * (side - pad - 4);
  const up = (v) => side - pad - Math.max(0, Math.min(1, v)) * (side - pad - 4);
  const sound = points.filter((point) => number(point.p) && number(point.observed));
  const most = Math.max(1, ...sound.map((point) => point.n || 1));
  const label = (x, y, text, anchor = 'middle') => {
    const node = s('text', { x, y, 'text-anchor': anchor });
    node.textContent = text;
    return node;
  };
  return picture(
    side,
    side,
    sound.map((point) => `stated ${point.p.toFixed(2)}, observed ${point.observed.toFixed(2)} (n ${point.n})`).join('; '),
    s('rect', { x: at(0), y: up(1), width: at(1) - at(0), height: up(0) - up(1), class: 'frame' }),
    s('line', { x1: at(0), y1: up(0), x2: at(1), y2: up(1), class: 'reference' }),
    s('polyline', { points: sound.map((point) => `${at(point.p)},${up(point.observed)}`).join(' '), class: 'curve' }),
    ...sound.map((point) => s('circle', { cx: at(point.p), cy: up(point.observed), r: 1.5 + 3 * Math.sqrt((point.n || 1) / most), class: 'value' })),
    label(at(0), side - 4, '0', 'start'),
    label(at(1), side - 4, '1', 'end'),
    label(pad - 4, up(1) + 8, '1', 'end'),
  );
}
