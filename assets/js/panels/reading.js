// A study opened → what the image models say of it, asked for until it is there; goes out as `reading:changed`.

import { api, emit, on, state } from '/static/js/bus.js';

const POLL_MS = [150, 300, 500, 800]; // then every second: the first image also loads the model
const RADIOGRAPHS = ['CR', 'DX', 'RG', 'OT', 'SC', 'XC'];

let reading = null;
let timer = 0;
let generation = 0; // of the study that is followed: an answer to an earlier question is not for this one
const RETRIES = 4;

/** Whether a series is one that image models are asked about; the server decides, this only reserves the place. */
export const isRadiograph = (series) => Boolean(series) && series.shape?.[0] === 1 && RADIOGRAPHS.includes(series.modality);

/** The answer of `GET /api/studies/{id}/reading`, or null before the first one. */
export const currentReading = () => reading;

/** What was read of one series, or undefined. */
export const imageOf = (series) => reading?.images.find((image) => image.series === series);

/** The finding behind a card: {image, finding} where its term is most probable, or null. */
export function behind(card) {
  const term = card.statement.toLowerCase();
  const found = (reading?.images || [])
    .filter((image) => image.model === card.source)
    .flatMap((image) => (image.findings || []).map((finding) => ({ image, finding })))
    .filter(({ finding }) => finding.term.toLowerCase() === term)
    .sort((a, b) => b.finding.probability - a.finding.probability);
  return found[0] || null;
}

/** Begin to follow the open study; called once, by the board. */
export function followReading() {
  on('study:open', (study) => {
    stop();
    ask(study, 0);
  });
  on('study:closed', stop);
}

function stop() {
  clearTimeout(timer);
  generation += 1;
  reading = null;
}

async function ask(study, turn, failures = 0) {
  const mine = generation;
  let answer;
  try {
    answer = await api('GET', `/api/studies/${encodeURIComponent(study.id)}/reading`);
  } catch (error) {
    if (mine !== generation) return;
    if (failures < RETRIES && !(error?.status >= 400 && error.status < 500)) {
      timer = setTimeout(() => ask(study, turn, failures + 1), 1000 * 2 ** failures);
      return;
    }
    // Said on the board's own line, not as a toast: the page is whole without it.
    answer = { state: 'done', sentence: error.message, images: [] };
  }
  if (mine !== generation || state.study?.id !== study.id) return;
  const before = JSON.stringify(reading);
  reading = answer;
  if (before !== JSON.stringify(answer)) emit('reading:changed', { reading: answer });
  if (answer.state === 'done') {
    if (turn > 0 || answer.images.length) emit('evidence:changed');
    return;
  }
  timer = setTimeout(() => ask(study, turn + 1), POLL_MS[turn] || 1000);
}
