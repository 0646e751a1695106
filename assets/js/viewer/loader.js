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

/** A segment's mask: {box: [x0, y0, z0, dx, dy, dz], voxels: Uint8Array (dz, dy, dx)}. */
export async function fetchMask(id, signal) {
  const response = await get(`/api/segments/${encodeURIComponent(id)}/mask`, signal);
  const box = JSON.parse(response.headers.get('x-box'));
  return { box, voxels: new Uint8Array(await response.arrayBuffer()) };
}
