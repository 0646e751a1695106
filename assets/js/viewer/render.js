// Stored int16 voxels + window/level in → one plane's pixels, through a lookup table of all 65,536 stored values.

import { axesOf } from './geometry.js';

/**
 * Stored value (as uint16 bit pattern) → opaque grey as a little-endian ABGR word.
 * The window is DICOM's linear one up to half a grey level: centre and width in value units, value = raw * slope + intercept.
 */
export function makeLut(slope, intercept, centre, width, inverted, lut = new Uint32Array(65536)) {
  const low = centre - width / 2;
  const gain = 255 / Math.max(width, 1e-9);
  for (let raw = -32768; raw < 32768; raw++) {
    let grey = (raw * slope + intercept - low) * gain;
    grey = grey < 0 ? 0 : grey > 255 ? 255 : Math.round(grey);
    if (inverted) grey = 255 - grey;
    lut[raw & 0xffff] = (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;
  }
  return lut;
}

/** [columns, rows] of the stored voxels in a plane (in-plane axes may be stored with a stride). */
export function storedSize(stored, plane) {
  const { u, v } = axesOf(plane);
  return [stored.dims[u], stored.dims[v]];
}

/**
 * Fill `pixels` (Uint32Array, rows × columns) with part of slice `w` (a stored index) of a plane.
 * @param stored {raw: Int16Array (z, y, x), dims: [X, Y, Z]}
 * @param part {c0, r0, columns, rows, factor}: display columns and rows from (c0, r0); where `factor` > 1 each pixel is
 *   the mean of factor × factor stored values (fewer at the far edges)
 */
export function fillSlice(stored, plane, w, lut, pixels, part) {
  const { raw, dims } = stored;
  const strides = [1, dims[0], dims[0] * dims[1]];
  const { u, v, w: through, flip } = axesOf(plane);
  const [width, height] = [dims[u], dims[v]];
  const { c0, r0, columns, rows, factor } = part;
  const across = strides[u];
  const down = flip ? -strides[v] : strides[v];
  const corner = w * strides[through] + (flip ? (height - 1) * strides[v] : 0) + r0 * down + c0 * across;
  let out = 0;
  if (factor === 1) {
    for (let row = 0; row < rows; row++) {
      let at = corner + row * down;
      for (let column = 0; column < columns; column++, at += across) pixels[out++] = lut[raw[at] & 0xffff];
    }
    return;
  }
  const sums = new Int32Array(columns);
  for (let row = 0; row < rows; row++) {
    const high = Math.min(factor, height - r0 - row * factor);
    const wide = Math.min(columns * factor, width - c0);
    sums.fill(0);
    for (let y = 0; y < high; y++) {
      let at = corner + (row * factor + y) * down;
      for (let column = 0, x = 0; x < wide; column++) {
        const end = Math.min(wide, x + factor);
        let sum = 0;
        for (; x < end; x++, at += across) sum += raw[at];
        sums[column] += sum;
      }
    }
    for (let column = 0; column < columns; column++) {
      const count = high * Math.min(factor, width - c0 - column * factor);
      pixels[out++] = lut[Math.round(sums[column] / count) & 0xffff];
    }
  }
}

const WHOLE_UP_TO = 1 << 20; // stored pixels; larger images are drawn only where and as finely as the screen shows them

/** What of an image the screen shows, in display pixels: `scale` = screen pixels per image pixel, `seen` = [c0, r0, c1, r1]. */
export function visiblePart(width, height, scale, seen) {
  if (width * height <= WHOLE_UP_TO) return { c0: 0, r0: 0, columns: width, rows: height, factor: 1 };
  const factor = Math.max(1, Math.floor(1 / scale));
  // Blocks begin at whole multiples of the factor, so that panning does not make the image shimmer.
  const first = (value) => Math.floor(Math.max(0, value) / factor) * factor;
  const [c0, r0] = [Math.min(first(seen[0]), width - 1), Math.min(first(seen[1]), height - 1)];
  const count = (from, to, size) => Math.max(1, Math.ceil((Math.min(size, to) - from) / factor));
  return { c0, r0, columns: count(c0, seen[2], width), rows: count(r0, seen[3], height), factor };
}

/** One reusable image of a plane: redrawn only when slice, window, voxels or the part in sight changed. */
export class SliceImage {
  constructor() {
    this.canvas = document.createElement('canvas');
    this.context = this.canvas.getContext('2d', { alpha: false });
    this.key = '';
  }

  update(stored, plane, w, lut, part, version) {
    const key = `${version}:${plane}:${w}:${Object.values(part).join()}`;
    if (this.key === key) return this.canvas;
    const { columns, rows } = part;
    if (!this.image || this.canvas.width !== columns || this.canvas.height !== rows) {
      this.canvas.width = columns;
      this.canvas.height = rows;
      this.image = this.context.createImageData(columns, rows);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    fillSlice(stored, plane, w, lut, this.pixels, part);
    this.context.putImageData(this.image, 0, 0);
    this.key = key;
    return this.canvas;
  }

  free() {
    this.canvas.width = this.canvas.height = 1;
    this.image = this.pixels = null;
    this.key = '';
  }
}
