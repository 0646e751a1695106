// A finding's box and heat map in → an amber outline and a translucent map over the one image of a radiograph; the lengths
// of a measurement in → calipers.

const AMBER = [224, 166, 58];
const rgb = `rgb(${AMBER.join(' ')})`;
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

/** `finding` = {term, box: [x0, y0, x1, y1] pixels or null, heatCanvas or null, lines or null}; `transform` as in
 * overlay.js. A line is {words, start, end}, both [i, j] of the outermost pixels that were measured. */
export function drawFinding(context, finding, dims, transform, ratio, heatShown) {
  const { sx, sy, ox, oy } = transform;
  context.save();
  if (heatShown && finding.heatCanvas) {
    context.imageSmoothingEnabled = true;
    context.drawImage(finding.heatCanvas, ox, oy, dims[0] * sx, dims[1] * sy);
  }
  context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  context.lineJoin = 'round';
  if (finding.box) {
    const [x0, y0, x1, y1] = finding.box;
    const [x, y, width, height] = [x0 * sx + ox, y0 * sy + oy, (x1 - x0) * sx, (y1 - y0) * sy];
    twice(context, ratio, () => context.strokeRect(x, y, width, height));
    const text = finding.heatCanvas ? `${finding.term}  (F: heat map)` : finding.term;
    words(context, text, x, y > 20 * ratio ? y - 6 * ratio : y + height + 14 * ratio, ratio);
  }
  for (const line of finding.lines || []) {
    const y = (line.start[1] + 0.5) * sy + oy;
    const [left, right] = [line.start[0] * sx + ox, (line.end[0] + 1) * sx + ox];
    const tick = 7 * ratio;
    twice(context, ratio, () => {
      context.beginPath();
      context.moveTo(left, y - tick);
      context.lineTo(left, y + tick);
      context.moveTo(left, y);
      context.lineTo(right, y);
      context.moveTo(right, y - tick);
      context.lineTo(right, y + tick);
      context.stroke();
    });
    words(context, line.words, left + 6 * ratio, y - 5 * ratio, ratio);
  }
  context.restore();
}

/** Amber over black: seen on white and on dark. */
function twice(context, ratio, draw) {
  for (const [colour, line] of [['#000', 3.5 * ratio], [rgb, 1.5 * ratio]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    draw();
  }
}

/** Text upright, also where the image beneath is turned or mirrored. */
function words(context, text, atX, atY, ratio) {
  const { x, y } = context.getTransform().transformPoint(new DOMPoint(atX, atY));
  context.save();
  context.resetTransform();
  const left = Math.max(2 * ratio, Math.min(x, context.canvas.width - context.measureText(text).width - 4 * ratio));
  context.lineWidth = 3 * ratio;
  context.strokeStyle = '#000';
  context.strokeText(text, left, y);
  context.fillStyle = rgb;
  context.fillText(text, left, y);
  context.restore();
}
