// A series in → its voxels, geometry, window and place, for whoever draws it: the viewer itself, or what it is compared with.

import { clamp, makeGeometry, toWorld } from './geometry.js';
import { fetchSlice, fetchVolume } from './loader.js';
import { recall, remember } from './memory.js';
import { presetsFor } from './presets.js';
import { makeLut } from './render.js';

const DRAW_MS = 120; // between two drawings while voxels arrive
const REMEMBER_MS = 300;
const REST_MS = 60; // a slice that is passed by faster is not fetched with every voxel
const DETAILS = 16; // slices kept with every voxel: 8 MB of a 512² scan

export class Loaded {
  constructor() {
    this.lut = new Uint32Array(65536);
    this.lutVersion = 0;
    this.inverted = false;
    this.forgetVoxels();
  }

  /** Back to nothing open; voxels are let go. */
  forgetVoxels() {
    this.loading?.abort();
    this.loading = null;
    this.series = this.header = this.geometry = this.stored = null;
    this.filled = 0;
    this.extra = new Set(); // slices fetched alone before the stream reached them
    this.details = new Map(); // slice → {raw, dims} with every voxel, of a volume that came thinned
    clearTimeout(this.resting);
    this.position = [0, 0, 0];
    this.window = [40, 400];
    this.presets = [];
    this.smallestWidth = 1;
    this.problem = '';
  }

  /** One slice, then every voxel; `first` is called between the two. Throws what the server says. */
  async read(series, signal, first) {
    const { header, raw } = await fetchSlice(series.id, 'mid', signal);
    header.letters_known = header.letters_known !== false;
    const [columns, rows, slices] = header.stored;
    const all = new Int16Array(columns * rows * slices);
    all.set(raw, header.index * columns * rows);
    this.header = header;
    this.geometry = makeGeometry(header.affine, header.dims);
    this.stored = { raw: all, dims: header.stored };
    this.position = header.dims.map((size, axis) => (axis === 2 ? header.index : size >> 1));
    this.extra.add(header.index);
    this.presets = presetsFor(header, raw);
    this.smallestWidth = Math.abs(header.slope);
    const kept = recall(series.id);
    this.inverted = Boolean(kept?.inverted);
    this.setWindow(...(kept?.window ?? header.window));
    first();
    if (slices > 1) {
      let drawn = performance.now();
      await fetchVolume(series.id, all, signal, (bytes) => {
        this.filled = bytes;
        if (performance.now() - drawn < DRAW_MS) return;
        drawn = performance.now();
        this.invalidate();
      });
    }
    this.filled = all.byteLength;
    if (header.modality !== 'CT') this.presets = presetsFor(header, all);
  }

  /** Bytes of voxels there are, as a part of the whole: 0 to 1. */
  loadedPart() {
    return this.stored ? this.filled / this.stored.raw.byteLength : this.series && !this.problem ? 0.02 : 1;
  }

  /** Changes whenever the voxels that a plane shows may have changed. */
  dataVersion(plane) {
    if (plane !== 'axial') return this.filled;
    const bytes = this.stored.dims[0] * this.stored.dims[1] * 2;
    const k = this.position[2];
    return (k + 1) * bytes <= this.filled ? 'whole' : this.extra.has(k) ? 'alone' : 'none';
  }

  /** A slice that the stream has not reached is fetched alone. */
  async ensureSlice(k) {
    const { stored, series, loading } = this;
    const size = stored.dims[0] * stored.dims[1];
    if ((k + 1) * size * 2 <= this.filled || this.extra.has(k) || this.fetching) return;
    this.fetching = true;
    try {
      const { raw } = await fetchSlice(series.id, k, loading.signal);
      if (this.stored !== stored) return;
      stored.raw.set(raw, k * size);
      this.extra.add(k);
      this.invalidate();
    } catch {
      // The stream brings this slice too, and reports its own failure.
    } finally {
      this.fetching = false;
    }
    if (this.stored === stored && this.position[2] !== k) this.ensureSlice(this.position[2]);
  }

  /** An axial slice with every voxel, of a volume that came thinned; undefined until it is here, which is asked for. */
  detailOf(k) {
    const found = this.details.get(k);
    if (!found && this.wanted !== k) {
      this.wanted = k;
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.fetchDetail(k), REST_MS);
    }
    return found;
  }

  async fetchDetail(k) {
    const { series, loading, details } = this;
    try {
      const { header, raw } = await fetchSlice(series.id, k, loading.signal, true);
      if (this.details !== details) return;
      details.set(k, { raw, dims: [header.dims[0], header.dims[1], 1] });
      for (const old of [...details.keys()].slice(0, Math.max(0, details.size - DETAILS))) details.delete(old);
      this.invalidate();
    } catch {
      // The thinned slice stays; moving on and back asks again.
    } finally {
      if (this.wanted === k) this.wanted = null;
    }
  }

  /** Value and place of a voxel, on two lines; of a slab the value that is drawn there. */
  readout(index, pane = null) {
    const { header, geometry, stored } = this;
    const [i, j] = [Math.floor(index[0] / header.stride), Math.floor(index[1] / header.stride)];
    const at = (index[2] * stored.dims[1] + j) * stored.dims[0] + i;
    if ((at + 1) * 2 > this.filled && !this.extra.has(index[2])) return 'loading'; // a voxel that is not here has no value
    const whole = this.details.get(index[2]);
    const raw = pane?.slabValue(i, j, index[2]) ?? (whole ? whole.raw[index[1] * whole.dims[0] + index[0]] : stored.raw[at]);
    const value = raw * header.slope + header.intercept;
    const digits = Number.isInteger(header.slope) && Number.isInteger(header.intercept) ? 0 : 2;
    const unit = header.unit === '1' ? '' : ` ${header.unit}`;
    if (!header.letters_known || !header.spacing_known) return `${value.toFixed(digits).replace('-', '−')}${unit}\n(${index[0]}, ${index[1]})`;
    const [x, y, z] = toWorld(geometry, index).map((mm) => mm.toFixed(1).replace('-', '−'));
    return `${value.toFixed(digits).replace('-', '−')}${unit}\nL ${x}  P ${y}  S ${z} mm`;
  }

  placeAt(index) {
    this.position = index.map((value, axis) => clamp(Math.round(value), this.geometry.dims[axis]));
    this.ensureSlice(this.position[2]);
    this.invalidate();
  }

  // ---- window ------------------------------------------------------------------------------------------------------

  setWindow(centre, width) {
    this.window = [centre, Math.max(width, this.smallestWidth)];
    this.applyWindow();
  }

  applyWindow() {
    if (!this.header) return;
    makeLut(this.header.slope, this.header.intercept, ...this.window, this.inverted, this.lut);
    this.lutVersion++;
    this.keepWindow();
    this.invalidate();
  }

  /** The series' own window is not worth keeping; any other is, until it is reset. */
  keepWindow() {
    const { series, window: levels, inverted, header } = this;
    clearTimeout(this.keeping);
    this.keeping = setTimeout(() => {
      const own = !inverted && levels[0] === header.window[0] && levels[1] === Math.max(header.window[1], Math.abs(header.slope));
      remember(series.id, own ? null : { window: levels, inverted });
    }, REMEMBER_MS);
  }

  setPreset(n) {
    const preset = n < 0 ? { centre: this.header.window[0], width: this.header.window[1] } : this.presets[n];
    if (preset) this.setWindow(preset.centre, preset.width);
  }

  /** Which preset the window is at, or −1. */
  currentPreset() {
    const [centre, width] = this.window;
    return this.presets.findIndex((preset) => Math.abs(preset.centre - centre) < 1e-6 && Math.abs(preset.width - width) < 1e-6);
  }

  toggleInvert() {
    this.inverted = !this.inverted;
    this.applyWindow();
  }
}
