// Segment rows in → their masks, fetched when a version changed; one plane's part of a mask as display pixels.

import { axesOf } from './geometry.js';
import { fetchMask } from './loader.js';

const versionOf = (row) => row.version;

export class Masks {
  constructor() {
    this.rows = []; // of the open series, in list order
    this.byId = new Map(); // id → {version, box, voxels}
    this.outlines = new Map(); // 'id:version:plane:slice' → Path2D
    this.generation = 0; // changes whenever an overlay must be redrawn
  }

  /** Take new rows of one series and fetch what changed. Answers when all masks are there. */
  async update(rows, series, signal) {
    this.rows = rows.filter((row) => row.series === series);
    this.generation++;
    const kept = new Set(this.rows.map((row) => row.id));
    for (const id of [...this.byId.keys()]) if (!kept.has(id)) this.byId.delete(id);
    const stale = this.rows.filter((row) => this.byId.get(row.id)?.version !== versionOf(row));
    await Promise.all(
      stale.map(async (row) => {
        const version = versionOf(row);
        const mask = await fetchMask(row.id, signal, this.byId.get(row.id));
        // A newer answer may have overtaken this one: keep what the latest rows ask for.
        const now = this.rows.find((candidate) => candidate.id === row.id);
        if (now && versionOf(now) === version) this.byId.set(row.id, mask);
        this.generation++;
      }),
    );
  }

  clear() {
    this.rows = [];
    this.byId.clear();
    this.outlines.clear();
    this.generation++;
  }

  /** Does the segment have a voxel set at this index? */
  has(id, [i, j, k]) {
    const mask = this.byId.get(id);
    if (!mask) return false;
    const [x0, y0, z0, dx, dy, dz] = mask.box;
    const [x, y, z] = [i - x0, j - y0, k - z0];
    if (x < 0 || y < 0 || z < 0 || x >= dx || y >= dy || z >= dz) return false;
    return mask.voxels[(z * dy + y) * dx + x] > 0;
  }

  /** The slice of a plane on which the segment has most voxels, or −1 for an empty one. */
  largestSlice(id, plane) {
    const mask = this.byId.get(id);
    if (!mask || !mask.voxels.length) return -1;
    const through = axesOf(plane).w;
    const [dx, dy] = mask.box.slice(3);
    const counts = new Uint32Array(mask.box[through + 3]);
    for (let at = 0; at < mask.voxels.length; at++) {
      if (mask.voxels[at]) counts[through === 0 ? at % dx : through === 1 ? Math.floor(at / dx) % dy : Math.floor(at / (dx * dy))]++;
    }
    return mask.box[through] + counts.indexOf(Math.max(...counts));
  }

  /** Centre of the segment's box as an index, or null for an empty one. */
  centre(id) {
    const mask = this.byId.get(id);
    if (!mask || !mask.voxels.length) return null;
    return [0, 1, 2].map((a) => Math.floor(mask.box[a] + (mask.box[a + 3] - 1) / 2));
  }

  /**
   * The mask on slice `w` of a plane in display pixels, or null where it does not reach.
   * @returns {p, q, columns, rows, at(column, row)}: the box's top left and a reader of its voxels
   */
  slice(id, plane, w, dims) {
    const mask = this.byId.get(id);
    if (!mask || !mask.voxels.length) return null;
    const { u, v, w: through, flip } = axesOf(plane);
    const size = mask.box.slice(3);
    const inside = w - mask.box[through];
    if (inside < 0 || inside >= size[through]) return null;
    const strides = [1, size[0], size[0] * size[1]];
    const [columns, rows] = [size[u], size[v]];
    const base = inside * strides[through];
    const { voxels } = mask;
    return {
      p: mask.box[u],
      q: flip ? dims[v] - mask.box[v] - rows : mask.box[v],
      columns,
      rows,
      at: (column, row) => voxels[base + column * strides[u] + (flip ? rows - 1 - row : row) * strides[v]],
    };
  }

  /** The outline of a slice as a path along voxel edges, in display pixels; null where there is none. */
  outline(id, plane, w, dims) {
    const key = `${id}:${this.byId.get(id)?.version}:${plane}:${w}`;
    if (!this.outlines.has(key)) {
      if (this.outlines.size > 400) this.outlines.clear();
      this.outlines.set(key, outlinePath(this.slice(id, plane, w, dims)));
    }
    return this.outlines.get(key);
  }
}

/** Edges between set and unset voxels, runs joined so that a path stays short. */
export function outlinePath(slice) {
  if (!slice) return null;
  const { p, q, columns, rows, at } = slice;
  const path = new Path2D();
  const set = (column, row) => column >= 0 && row >= 0 && column < columns && row < rows && at(column, row) > 0;
  for (let row = 0; row <= rows; row++) {
    let from = -1;
    for (let column = 0; column <= columns; column++) {
      const edge = column < columns && set(column, row - 1) !== set(column, row);
      if (edge && from < 0) from = column;
      if (!edge && from >= 0) {
        path.moveTo(p + from, q + row);
        path.lineTo(p + column, q + row);
        from = -1;
      }
    }
  }
  for (let column = 0; column <= columns; column++) {
    let from = -1;
    for (let row = 0; row <= rows; row++) {
      const edge = row < rows && set(column - 1, row) !== set(column, row);
      if (edge && from < 0) from = row;
      if (!edge && from >= 0) {
        path.moveTo(p + column, q + from);
        path.lineTo(p + column, q + row);
        from = -1;
      }
    }
  }
  return path;
}
