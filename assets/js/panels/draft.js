// A study's id in → server-sent events of its draft, one handler call each, until it is done, fails or is stopped.

import { api, refusal } from '/static/js/bus.js';

/**
 * Ask for a draft. `handle(name, data)` is called for start, status, warning, evidence, step, statement, finished,
 * done and error. Resolves when the stream ends; rejects with the server's sentence when it does not begin.
 */
export async function stream(study, handle, signal) {
  const response = await fetch(`/api/studies/${encodeURIComponent(study)}/draft`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
    body: '{}',
    signal,
  });
  if (!response.ok) throw await refusal(response);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let buffer = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += decoder.decode(value, { stream: true });
    const blocks = buffer.split('\n\n');
    buffer = blocks.pop();
    for (const block of blocks) {
      const event = /^event: (.+)$/m.exec(block)?.[1];
      const data = /^data: (.+)$/m.exec(block)?.[1];
      if (event && data) handle(event, JSON.parse(data));
    }
  }
}

/** Stop the study's draft; what is finished of it is kept. */
export function stop(study) {
  return api('DELETE', `/api/studies/${encodeURIComponent(study)}/draft`);
}
