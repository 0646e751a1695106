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
 * Fill `pixels` (Uint32Array, rows × columns) with slice `w` (a stored index) of a plane.
 * @param stored {raw: Int16Array (z, y, x), dims: [X, Y, Z]}
 */
export function fillSlice(stored, plane, w, lut, pixels) {
  const { raw, dims } = stored;
  const strides = [1, dims[0], dims[0] * dims[1]];
  const { u, v, w: through, flip } = axesOf(plane);
  const [columns, rows] = [dims[u], dims[v]];
  const [du, dv] = [strides[u], strides[v]];
  const base = w * strides[through];
  let out = 0;
  for (let row = 0; row < rows; row++) {
    let at = base + (flip ? rows - 1 - row : row) * dv;
    if (du === 1) for (const end = at + columns; at < end; at++) pixels[out++] = lut[raw[at] & 0xffff];
    else for (let column = 0; column < columns; column++, at += du) pixels[out++] = lut[raw[at] & 0xffff];
  }
}

/** One reusable image of a plane: redrawn only when slice, window or voxels changed. */
export class SliceImage {
  constructor() {
    this.canvas = document.createElement('canvas');
    this.context = this.canvas.getContext('2d', { alpha: false });
    this.key = '';
  }

  update(stored, plane, w, lut, key) {
    if (this.key === key) return this.canvas;
    const [columns, rows] = storedSize(stored, plane);
    if (!this.image || this.canvas.width !== columns || this.canvas.height !== rows) {
      this.canvas.width = columns;
      this.canvas.height = rows;
      this.image = this.context.createImageData(columns, rows);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    fillSlice(stored, plane, w, lut, this.pixels);
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
