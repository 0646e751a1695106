// A finding's box and heat map in → an amber outline and a translucent map over the one image of a radiograph.

const AMBER = [224, 166, 58];
const STRONGEST = 150; // of 255: the image stays readable beneath

/** {rows, columns, values: base64 of uint8} → a small canvas whose opacity is the heat. */
export function heatCanvas({ rows, columns, values }) {
  const codes = Uint8Array.from(atob(values), (sign) => sign.charCodeAt(0));
  const canvas = document.createElement('canvas');
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext('2d');
  const image = context.createImageData(columns, rows);
  for (let n = 0; n < codes.length; n++) image.data.set([...AMBER, (codes[n] * STRONGEST) / 255], n * 4);
  context.putImageData(image, 0, 0);
  return canvas;
}

/** `finding` = {term, box: [x0, y0, x1, y1] pixels or null, heatCanvas or null}; `transform` as in overlay.js. */
export function drawFinding(context, finding, dims, transform, ratio, heatShown) {
  const { sx, sy, ox, oy } = transform;
  context.save();
  if (heatShown && finding.heatCanvas) {
    context.imageSmoothingEnabled = true;
    context.drawImage(finding.heatCanvas, ox, oy, dims[0] * sx, dims[1] * sy);
  }
  if (finding.box) {
    const [x0, y0, x1, y1] = finding.box;
    const [x, y, width, height] = [x0 * sx + ox, y0 * sy + oy, (x1 - x0) * sx, (y1 - y0) * sy];
    const amber = `rgb(${AMBER.join(' ')})`;
    for (const [colour, line] of [['#000', 3.5 * ratio], [amber, 1.5 * ratio]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.strokeRect(x, y, width, height);
    }
    context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    context.lineWidth = 3 * ratio;
    context.lineJoin = 'round';
    const text = finding.heatCanvas ? `${finding.term}  (F: heat map)` : finding.term;
    const above = y > 20 * ratio;
    const left = Math.max(2 * ratio, Math.min(x, context.canvas.width - context.measureText(text).width - 4 * ratio));
    const at = [left, above ? y - 6 * ratio : y + height + 14 * ratio];
    context.strokeStyle = '#000';
    context.strokeText(text, ...at);
    context.fillStyle = amber;
    context.fillText(text, ...at);
  }
  context.restore();
}
