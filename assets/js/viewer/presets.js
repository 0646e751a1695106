// Modality and voxels in → the window/level presets on keys 1 to 6: [{name, centre, width}] in value units.

const CT = [
  ['Abdomen', 40, 400],
  ['Lung', -600, 1500],
  ['Bone', 400, 1800],
  ['Brain', 40, 80],
  ['Liver', 60, 160],
  ['Mediastinum', 50, 350],
].map(([name, centre, width]) => ({ name, centre, width }));

// Where grey levels have no fixed meaning, presets are what lies between two percentiles of the voxels.
const PERCENTILES = [
  ['1–99 %', 0.01, 0.99],
  ['0.1–99.9 %', 0.001, 0.999],
  ['5–95 %', 0.05, 0.95],
  ['Bright half', 0.5, 0.999],
  ['Full range', 0, 1],
];

/** Sorted sample of raw values, at most about 40,000 of them, evenly spaced. */
function sample(raw) {
  const step = Math.max(1, Math.floor(raw.length / 40000));
  const out = new Int16Array(Math.floor((raw.length - 1) / step) + 1);
  for (let i = 0; i < out.length; i++) out[i] = raw[i * step];
  return out.sort();
}

/**
 * Presets for a volume.
 * @param header {modality, unit, window: [centre, width], slope, intercept}
 * @param raw Int16Array of stored values, one slice or all
 */
export function presetsFor(header, raw) {
  if (header.modality === 'CT' && header.unit === 'HU') return CT;
  const sorted = sample(raw);
  const value = (fraction) => sorted[Math.round(fraction * (sorted.length - 1))] * header.slope + header.intercept;
  const [centre, width] = header.window;
  const presets = [{ name: 'As stored', centre, width }];
  for (const [name, low, high] of PERCENTILES) {
    const a = value(low);
    const b = value(high);
    presets.push({ name, centre: (a + b) / 2, width: Math.max(b - a, Math.abs(header.slope)) });
  }
  return presets;
}
