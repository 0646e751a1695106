// Several slices of a plane in → one: the greatest, the mean or the least value of each line of voxels through them.

import { axesOf } from './geometry.js';

export const SLABS = { none: 'One slice', max: 'MIP', mean: 'Average', min: 'MinIP' };

/** How many slices a slab of `mm` has on a plane; of `mm` slices where millimetres are not known. At least one. */
export function slabSlices(geometry, header, plane, mm) {
  const through = axesOf(plane).w;
  const step = header.spacing_known ? geometry.spacing[through] : 1;
  return Math.max(1, Math.min(geometry.dims[through], Math.round(mm / step)));
}

/** First and last stored slice of a slab of `count` slices about `w`. */
export function slabRange(w, count, size) {
  const first = Math.max(0, Math.min(size - count, w - ((count - 1) >> 1)));
  return [first, Math.min(size - 1, first + count - 1)];
}

/** One plane's slab; computed when slice, thickness, kind or voxels changed, not when the window does. */
export class Slab {
  constructor() {
    this.key = '';
  }

  /** @returns {raw, dims} with a single slice through the plane, read as `stored` is at slice 0 */
  update(stored, plane, w, count, mode, version) {
    const key = `${version}:${plane}:${w}:${count}:${mode}`;
    if (key === this.key) return this.out;
    this.key = key;
    const through = axesOf(plane).w;
    const [first, last] = slabRange(w, count, stored.dims[through]);
    const dims = stored.dims.map((size, axis) => (axis === through ? 1 : size));
    const size = dims[0] * dims[1] * dims[2];
    if (this.out?.raw.length !== size) this.out = { raw: new Int16Array(size), dims };
    this.out.dims = dims;
    fill(stored, through, first, last, mode, this.out.raw);
    return this.out;
  }

  free() {
    this.key = '';
    this.out = null;
  }
}

function fill({ raw, dims: [X, Y, Z] }, through, first, last, mode, out) {
  const strides = [1, X, X * Y];
  const step = strides[through];
  const count = last - first + 1;
  const [n0, n1] = [0, 1, 2].filter((axis) => axis !== through); // the faster axis first
  const sizes = [X, Y, Z];
  let at = 0;
  for (let b = 0; b < sizes[n1]; b++) {
    const line = first * step + b * strides[n1];
    for (let a = 0; a < sizes[n0]; a++, at++) {
      let from = line + a * strides[n0];
      let value = raw[from];
      if (mode === 'mean') {
        for (let n = 1; n < count; n++) value += raw[(from += step)];
        value = Math.round(value / count);
      } else if (mode === 'max') {
        for (let n = 1; n < count; n++) if (raw[(from += step)] > value) value = raw[from];
      } else for (let n = 1; n < count; n++) if (raw[(from += step)] < value) value = raw[from];
      out[at] = value;
    }
  }
}
