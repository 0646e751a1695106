// Index (i, j, k), patient millimetres (LPS) and a plane's display pixels (p, q), each into the others.
//
// A volume is canonical: i runs to the patient's Left, j to Posterior, k to Superior.  Display pixels have their origin
// at the image's top left and whole numbers at pixel edges, so a voxel's centre lies at +0.5.

export const PLANES = ['axial', 'coronal', 'sagittal'];

// u runs across the image, v down it, w through it; `flip` draws v upwards, so that Superior is at the top.
const AXES = {
  axial: { u: 0, v: 1, w: 2, flip: false },
  coronal: { u: 0, v: 2, w: 1, flip: true },
  sagittal: { u: 1, v: 2, w: 0, flip: true },
};

export const axesOf = (plane) => AXES[plane];

/** Affine (4 rows of 4) and dims [X, Y, Z] → the object every other function here takes. */
export function makeGeometry(affine, dims) {
  const column = (c) => [affine[0][c], affine[1][c], affine[2][c]];
  const axes = [0, 1, 2].map(column);
  const spacing = axes.map((a) => Math.hypot(...a));
  return { affine, dims, axes, spacing, inverse: invert3(axes), origin: column(3) };
}

function invert3([a, b, c]) {
  // columns a, b, c; the rows of the inverse are the cross products over the determinant
  const cross = (p, q) => [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
  const bc = cross(b, c);
  const det = a[0] * bc[0] + a[1] * bc[1] + a[2] * bc[2];
  return [bc, cross(c, a), cross(a, b)].map((row) => row.map((value) => value / det));
}

/** Index (i, j, k) → LPS mm. */
export function toWorld(geometry, ijk) {
  const { axes, origin } = geometry;
  return [0, 1, 2].map((r) => origin[r] + axes[0][r] * ijk[0] + axes[1][r] * ijk[1] + axes[2][r] * ijk[2]);
}

/** LPS mm → nearest index inside the volume. */
export function toIndex(geometry, lps) {
  const d = lps.map((value, r) => value - geometry.origin[r]);
  return geometry.inverse.map((row, a) => clamp(Math.round(row[0] * d[0] + row[1] * d[1] + row[2] * d[2]), geometry.dims[a]));
}

export function clamp(value, size) {
  return Math.max(0, Math.min(size - 1, value));
}

/** [columns, rows] of the plane's image, in voxels. */
export function planeSize(geometry, plane) {
  const { u, v } = AXES[plane];
  return [geometry.dims[u], geometry.dims[v]];
}

/** Index → display pixel of the voxel's centre. */
export function toDisplay(geometry, plane, ijk) {
  const { u, v, flip } = AXES[plane];
  return [ijk[u] + 0.5, flip ? geometry.dims[v] - 0.5 - ijk[v] : ijk[v] + 0.5];
}

/** Display pixel on slice `w` → the voxel under it, or null outside the image. */
export function fromDisplay(geometry, plane, p, q, w) {
  const axes = AXES[plane];
  const column = Math.floor(p);
  const row = Math.floor(q);
  const [columns, rows] = planeSize(geometry, plane);
  if (column < 0 || row < 0 || column >= columns || row >= rows) return null;
  const ijk = [0, 0, 0];
  ijk[axes.u] = column;
  ijk[axes.v] = axes.flip ? rows - 1 - row : row;
  ijk[axes.w] = w;
  return ijk;
}

/** Display pixel on slice `w` → fractional index, whole numbers at voxel centres; held inside the image. */
export function fromDisplayExact(geometry, plane, p, q, w) {
  const { u, v, w: through, flip } = AXES[plane];
  const inside = (value, size) => Math.max(-0.5, Math.min(size - 0.5, value));
  const ijk = [0, 0, 0];
  ijk[u] = inside(p - 0.5, geometry.dims[u]);
  ijk[v] = inside(flip ? geometry.dims[v] - 0.5 - q : q - 0.5, geometry.dims[v]);
  ijk[through] = w;
  return ijk;
}

const LETTERS = [['R', 'L'], ['A', 'P'], ['F', 'H']]; // toward minus and plus of x (Left), y (Posterior), z (Superior)

/** The patient direction of a vector: one letter, and a second where the scan is oblique by more than 20 degrees. */
export function letters(vector) {
  const length = Math.hypot(...vector) || 1;
  return vector
    .map((value, axis) => [Math.abs(value) / length, LETTERS[axis][value > 0 ? 1 : 0]])
    .filter(([size]) => size > 0.342)
    .sort((a, b) => b[0] - a[0])
    .slice(0, 2)
    .map(([, letter]) => letter)
    .join('');
}

/** Letters at the image's edges, from the affine alone: {left, right, top, bottom}. */
export function edgeLetters(geometry, plane) {
  const { u, v, flip } = AXES[plane];
  const across = geometry.axes[u];
  const down = geometry.axes[v].map((value) => (flip ? -value : value));
  const minus = (vector) => vector.map((value) => -value);
  return { left: letters(minus(across)), right: letters(across), top: letters(minus(down)), bottom: letters(down) };
}

/** The plane a volume opens in: the one that is an image when an axis has a single voxel. */
export function mainPlane(geometry) {
  const [x, y, z] = geometry.dims;
  if (z > 1 && y === 1) return 'coronal';
  if (z > 1 && x === 1) return 'sagittal';
  return 'axial';
}

/** Is there more than one image to see in more than one plane? */
export function isVolume(geometry) {
  return geometry.dims.every((size) => size > 1);
}
