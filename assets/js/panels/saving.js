// What the reader has → the request that saves it, and the server's answer to it, whatever happens on the way.

/** A statement as the server takes it. */
export function taken(data) {
  return {
    id: data.id,
    section: data.section,
    text: data.text,
    restored: Boolean(data.restored),
    agree: Boolean(data.agree),
  };
}

/** What was written before the stored report was here, added to that. */
export function onTop(stored, body) {
  return { revision: stored.revision, free_text: stored.free_text, statements: [...stored.statements.map(taken), ...body.statements] };
}

/** Answers `{ok, answer}`; never throws. */
export async function put(path, body) {
  try {
    const response = await fetch(`${path}/report`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const answer = await response.json().catch(() => ({ error: 'The report could not be saved; your text is still here.' }));
    return { ok: response.ok, answer };
  } catch {
    return { ok: false, answer: { error: 'The server does not answer. Your text is still here; it is saved at the next change.' } };
  }
}
