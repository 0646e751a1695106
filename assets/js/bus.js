// Events and JSON requests, shared by every module of the page: names in → handlers called, paths in → values out.

export const bus = new EventTarget();

/** What is open now; written by whoever sends `study:open` / `series:open`, read by anyone. */
export const state = { study: null, series: null };

/** Send `name` with `detail` to every listener, at once. Keeps `state` in step with what is open. */
export function emit(name, detail = null) {
  if (name === 'study:open') state.study = detail;
  if (name === 'series:open') state.series = detail;
  if (name === 'study:closed') {
    state.study = null;
    state.series = null;
  }
  bus.dispatchEvent(new CustomEvent(name, { detail }));
}

/** Call `handler(detail)` on every `name`; answers a function that stops it. */
export function on(name, handler) {
  const listener = (event) => handler(event.detail);
  bus.addEventListener(name, listener);
  return () => bus.removeEventListener(name, listener);
}

/** The server's one sentence for a refused request, or a plain one where it sent none. */
export async function refusal(response) {
  let text = '';
  try {
    text = (await response.json()).error;
  } catch {
    text = '';
  }
  if (typeof text !== 'string' || !text) text = `The server could not do this (status ${response.status}).`;
  const error = new Error(text);
  error.status = response.status;
  return error;
}

/**
 * One JSON request. `body` is sent as JSON, or as it is when it is FormData.
 * Answers the parsed JSON (null for 204). Throws an Error with the server's sentence and `.status`;
 * an abort through `options.signal` throws the browser's AbortError unchanged.
 */
export async function api(method, path, body = undefined, options = {}) {
  const headers = { accept: 'application/json' };
  let payload;
  if (body instanceof FormData) payload = body;
  else if (body !== undefined) {
    headers['content-type'] = 'application/json';
    payload = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, { method, headers, body: payload, credentials: 'same-origin', ...options });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    const offline = new Error('The server does not answer. Check that it is running, then try again.');
    offline.status = 0;
    throw offline;
  }
  if (!response.ok) throw await refusal(response);
  return response.status === 204 ? null : response.json();
}
