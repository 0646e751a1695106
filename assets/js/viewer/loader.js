// A series id in → its geometry, one slice at once, then every voxel as a stream.

import { refusal } from '../bus.js';

const url = (id, query = '') => `/api/series/${encodeURIComponent(id)}/volume${query}`;

async function get(address, signal) {
  const response = await fetch(address, { signal, credentials: 'same-origin' });
  if (!response.ok) throw await refusal(response);
  return response;
}

function headerOf(response) {
  const header = JSON.parse(response.headers.get('x-geometry'));
  header.slope = Number(response.headers.get('x-slope'));
  header.intercept = Number(response.headers.get('x-intercept'));
  header.stride = Number(response.headers.get('x-stride'));
  const { stride } = header;
  header.stored = [Math.ceil(header.dims[0] / stride), Math.ceil(header.dims[1] / stride), header.dims[2]];
  return header;
}

/**
 * One axial slice, uncompressed. `z` is a slice index or 'mid'; `full`: with every voxel, also where the volume is thinned.
 * @returns {header: {dims, affine, modality, unit, spacing_known, window, slope, intercept, stride, stored, index}, raw}
 */
export async function fetchSlice(id, z, signal, full = false) {
  const response = await get(url(id, `?z=${z}${full ? '&full=1' : ''}`), signal);
  const header = headerOf(response);
  const raw = new Int16Array(await response.arrayBuffer());
  if (raw.length !== header.stored[0] * header.stored[1]) throw new Error('The slice arrived incomplete. Open the series again.');
  return { header, raw };
}

/**
 * Every voxel into `raw` (Int16Array (z, y, x)), in order; `progress(bytes)` as they come.
 * Where the body is short or long the series is not shown as if it were whole: an Error is thrown.
 */
export async function fetchVolume(id, raw, signal, progress) {
  // On the reader's own machine packing and unpacking costs more than it saves.
  const local = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
  const response = await get(url(id, local ? '?raw=1' : ''), signal);
  const bytes = new Uint8Array(raw.buffer);
  const reader = response.body.getReader();
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > bytes.length) throw new Error('The scan sent more data than it declared. Open the series again.');
    bytes.set(value, filled);
    filled += value.length;
    progress(filled);
  }
  if (filled !== bytes.length) throw new Error('The scan arrived incomplete. Open the series again.');
}

/**
 * A segment's mask: {version, box: [x0, y0, z0, dx, dy, dz], voxels: Uint8Array (dz, dy, dx)}.
 * Of one that is `held` in an earlier version only the box that changed is sent, where that is smaller.
 */
export async function fetchMask(id, signal, held = null) {
  const query = held ? `?since=${encodeURIComponent(held.version)}` : '';
  const response = await get(`/api/segments/${encodeURIComponent(id)}/mask${query}`, signal);
  const box = JSON.parse(response.headers.get('x-box'));
  const version = response.headers.get('x-version');
  const voxels = new Uint8Array(await response.arrayBuffer());
  if (!response.headers.has('x-since')) return { version, box, voxels };
  const whole = JSON.parse(response.headers.get('x-whole'));
  const all = new Uint8Array(whole[3] * whole[4] * whole[5]);
  paste(held, whole, all);
  paste({ box, voxels }, whole, all);
  return { version, box: whole, voxels: all };
}

/** Copy the part of one box of voxels that lies in another. */
function paste({ box: [x0, y0, z0, dx, dy, dz], voxels }, [X, Y, Z, width, height, depth], into) {
  const [left, right] = [Math.max(x0, X), Math.min(x0 + dx, X + width)];
  if (right <= left) return;
  for (let z = Math.max(z0, Z); z < Math.min(z0 + dz, Z + depth); z++) {
    for (let y = Math.max(y0, Y); y < Math.min(y0 + dy, Y + height); y++) {
      const from = ((z - z0) * dy + y - y0) * dx - x0;
      into.set(voxels.subarray(from + left, from + right), ((z - Z) * height + y - Y) * width + left - X);
    }
  }
}
