// A plane's voxels in → regions of it, in display pixels: what a brush covers, what is connected within a range of values.
//
// Both are by the rules of the server (`core_models/segmentation/editing.py`), so that what is shown is what will be stored.

import { axesOf, planeSize } from './geometry.js';

const ROUNDING = 1 + 1e-6; // of a brush's radius

/** All voxels from one to the other, both ends included; [[column, row]]. */
export function line([x0, y0], [x1, y1]) {
  const out = [];
  const [dx, dy] = [Math.abs(x1 - x0), Math.abs(y1 - y0)];
  const [sx, sy] = [Math.sign(x1 - x0), Math.sign(y1 - y0)];
  let [x, y, error] = [x0, y0, dx - dy];
  for (;;) {
    out.push([x, y]);
    if (x === x1 && y === y1) return out;
    const twice = 2 * error;
    if (twice > -dy) [x, error] = [x + sx, error - dy];
    if (twice < dx) [y, error] = [y + sy, error + dx];
  }
}

/** A line of neighbouring voxels without those in the middle of a straight run: the same line, in fewer points. */
export function corners(points) {
  const step = (n) => points[n].map((value, axis) => value - points[n - 1][axis]).join();
  return points.filter((_, n) => n === 0 || n === points.length - 1 || step(n) !== step(n + 1));
}

/** A set of display pixels of one plane, and its picture. */
export class Region {
  constructor(geometry, plane) {
    this.plane = plane;
    [this.columns, this.rows] = planeSize(geometry, plane);
    this.spacing = [geometry.spacing[axesOf(plane).u], geometry.spacing[axesOf(plane).v]];
    this.voxels = new Uint8Array(this.columns * this.rows);
    this.box = null; // [p0, q0, p1, q1], the ends exclusive
    this.canvas = document.createElement('canvas');
    this.drawn = '';
    this.version = 0;
  }

  /** Everything within `radius` mm of a voxel's centre. */
  stamp([column, row], radius) {
    const [mmX, mmY] = this.spacing;
    const most = radius * ROUNDING;
    const [reachX, reachY] = [Math.floor(most / mmX), Math.floor(most / mmY)];
    for (let dy = -reachY; dy <= reachY; dy++) {
      const y = row + dy;
      if (y < 0 || y >= this.rows) continue;
      for (let dx = -reachX; dx <= reachX; dx++) {
        const x = column + dx;
        if (x < 0 || x >= this.columns || Math.hypot(dx * mmX, dy * mmY) > most) continue;
        this.voxels[y * this.columns + x] = 1;
      }
    }
    this.widen(column - reachX, row - reachY, column + reachX + 1, row + reachY + 1);
    this.version++;
  }

  widen(p0, q0, p1, q1) {
    const box = this.box ?? [Infinity, Infinity, -Infinity, -Infinity];
    this.box = [Math.max(0, Math.min(box[0], p0)), Math.max(0, Math.min(box[1], q0)), Math.min(this.columns, Math.max(box[2], p1)), Math.min(this.rows, Math.max(box[3], q1))];
  }

  /** What is connected to a pixel through neighbours with low <= value <= high, values by display pixel. */
  flood(values, [column, row], low, high) {
    const { columns, rows, voxels } = this;
    voxels.fill(0);
    this.box = null;
    this.version++;
    const inside = (at) => !voxels[at] && values[at] >= low && values[at] <= high;
    const seed = row * columns + column;
    if (!inside(seed)) return;
    const stack = new Int32Array(columns * rows);
    let top = 0;
    let [p0, q0, p1, q1] = [column, row, column, row];
    stack[top++] = seed;
    voxels[seed] = 1;
    const visit = (at) => {
      voxels[at] = 1;
      stack[top++] = at;
    };
    while (top) {
      const at = stack[--top];
      const x = at % columns;
      const y = (at - x) / columns;
      if (x < p0) p0 = x;
      if (x > p1) p1 = x;
      if (y < q0) q0 = y;
      if (y > q1) q1 = y;
      if (x > 0 && inside(at - 1)) visit(at - 1);
      if (x + 1 < columns && inside(at + 1)) visit(at + 1);
      if (y > 0 && inside(at - columns)) visit(at - columns);
      if (y + 1 < rows && inside(at + columns)) visit(at + columns);
    }
    this.widen(p0, q0, p1 + 1, q1 + 1);
  }

  draw(context, { sx, sy, ox, oy }, [red, green, blue], opacity) {
    if (!this.box) return;
    const [p0, q0, p1, q1] = this.box;
    const [width, height] = [p1 - p0, q1 - q0];
    const key = `${this.version}:${red}:${green}:${blue}`;
    if (key !== this.drawn) {
      this.drawn = key;
      this.canvas.width = width;
      this.canvas.height = height;
      const paint = this.canvas.getContext('2d');
      const image = paint.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      const word = (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) if (this.voxels[(q0 + y) * this.columns + p0 + x]) pixels[y * width + x] = word;
      }
      paint.putImageData(image, 0, 0);
    }
    context.save();
    context.imageSmoothingEnabled = false;
    context.globalAlpha = opacity;
    context.drawImage(this.canvas, p0 * sx + ox, q0 * sy + oy, width * sx, height * sy);
    context.restore();
  }
}

/** The values of one slice of a plane by display pixel, from what is stored (every `stride`-th voxel in plane). */
export function planeValues({ stored, header, geometry, filled, extra }, plane, slice) {
  const { u, v, w, flip } = axesOf(plane);
  const [columns, rows] = planeSize(geometry, plane);
  const steps = [1, stored.dims[0], stored.dims[0] * stored.dims[1]];
  const there = (index, axis) => (axis === 2 ? index : Math.floor(index / header.stride));
  const out = new Float32Array(columns * rows);
  const base = there(slice, w) * steps[w];
  for (let row = 0; row < rows; row++) {
    const along = base + there(flip ? rows - 1 - row : row, v) * steps[v];
    for (let column = 0; column < columns; column++) {
      const at = along + there(column, u) * steps[u];
      const here = (at + 1) * 2 <= filled || extra.has(Math.floor(at / steps[2]));
      out[row * columns + column] = here ? stored.raw[at] * header.slope + header.intercept : NaN; // NaN: still loading
    }
  }
  return out;
}
