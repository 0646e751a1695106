// Mouse, touch and keyboard in → calls on the viewer.  Keys act only when no text is being typed.

import { DRAWS } from './drawing.js';
import { MEASURES } from './lines.js';

/** Is this element one that takes text, or a choice that keys move through? */
export function takesText(target) {
  if (!(target instanceof Element)) return false;
  if (target.isContentEditable || target.closest('textarea, select, [contenteditable=""], [contenteditable="true"]')) return true;
  const input = target.closest('input');
  return Boolean(input) && !['range', 'button', 'checkbox', 'radio'].includes(input.type);
}

const DRAG = 4; // CSS pixels a press may move and still be a click

/** Listen to one pane. */
export function attachPointer(viewer, pane) {
  const { canvas } = pane;
  let press = null; // {action, x, y, ...}
  let wheel = 0;
  const touches = new Map(); // pointer id → [x, y]: two of them pinch

  const actionOf = (event) => {
    if (event.button === 1 || (event.button === 0 && viewer.spaceHeld)) return 'pan';
    if (event.button === 2) return 'window';
    if (event.button !== 0) return null;
    return viewer.tool;
  };

  canvas.addEventListener('contextmenu', (event) => event.preventDefault());
  canvas.addEventListener('auxclick', (event) => event.preventDefault());

  canvas.addEventListener('pointerdown', (event) => {
    const action = viewer.stored && actionOf(event);
    if (!action) return;
    event.preventDefault();
    document.activeElement?.blur?.();
    canvas.setPointerCapture(event.pointerId);
    viewer.focus = pane;
    viewer.keyCursor = false;
    if (event.pointerType === 'touch') touches.set(event.pointerId, [event.clientX, event.clientY]);
    if (touches.size > 1) {
      viewer.annotations?.cancel();
      viewer.drawing?.cancel();
      press = null;
      return;
    }
    const [centre, width] = viewer.window;
    press = { action, x: event.clientX, y: event.clientY, lastX: event.clientX, lastY: event.clientY, centre, width, moved: false };
    if ((action in MEASURES || action === 'navigate') && viewer.annotations?.press(pane, event)) press.action = 'annotate';
    if (press.action === 'navigate') viewer.navigate(pane, event);
    if (press.action in DRAWS) viewer.drawing.press(pane, event);
  });

  canvas.addEventListener('pointermove', (event) => {
    if (!viewer.stored) return;
    if (touches.has(event.pointerId) && touches.size > 1) return pinch(event);
    pane.pointer = pane.canvasPoint(event);
    viewer.setHover(pane, pane.indexAt(event));
    if (viewer.lens || viewer.drawing?.paints) viewer.invalidate();
    if (!press || press.action === 'annotate') viewer.annotations?.move(pane, event, Boolean(press));
    if (!press) return;
    const [dx, dy] = [event.clientX - press.x, event.clientY - press.y];
    const [stepX, stepY] = [event.clientX - press.lastX, event.clientY - press.lastY];
    [press.lastX, press.lastY] = [event.clientX, event.clientY];
    if (Math.hypot(dx, dy) > DRAG) press.moved = true;
    if (press.action === 'window') {
      const step = Math.max(press.width, viewer.smallestWidth * 20) / 300; // a screen's width sweeps a few windows
      viewer.setWindow(press.centre + dy * step, press.width + dx * step);
    } else if (press.action === 'pan') {
      pane.pan[0] += stepX;
      pane.pan[1] += stepY;
      viewer.invalidate();
    } else if (press.action === 'zoom') {
      pane.zoomAt({ clientX: press.x, clientY: press.y }, Math.exp(-stepY / 150));
    } else if (press.action === 'navigate') viewer.navigate(pane, event);
    else if (press.action in DRAWS) viewer.drawing.move(pane, event);
  });

  /** Two fingers: their distance zooms, their middle pans. */
  function pinch(event) {
    const middle = () => [0, 1].map((n) => [...touches.values()].reduce((sum, at) => sum + at[n], 0) / touches.size);
    const spread = () => {
      const [a, b] = [...touches.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    const [before, apart] = [middle(), spread()];
    touches.set(event.pointerId, [event.clientX, event.clientY]);
    const now = middle();
    pane.pan[0] += now[0] - before[0];
    pane.pan[1] += now[1] - before[1];
    if (apart > 0) pane.zoomAt({ clientX: now[0], clientY: now[1] }, spread() / apart);
  }

  const release = (event) => {
    const done = press;
    press = null;
    touches.delete(event.pointerId);
    if (event.type === 'pointercancel') viewer.drawing?.cancel();
    if (!done || event.type === 'pointercancel') return;
    if (done.action in DRAWS) return viewer.drawing.release();
    if (done.action === 'annotate') return viewer.annotations.release(pane, event, done.moved);
    if (done.action === 'segment' && !done.moved) {
      const index = pane.indexAt(event);
      if (index) viewer.click(pane, index, event.altKey ? false : viewer.positive);
    }
    if (done.action === 'navigate' && !done.moved) viewer.selectAt(pane.indexAt(event));
  };
  canvas.addEventListener('pointerup', release);
  canvas.addEventListener('pointercancel', release);
  canvas.addEventListener('pointerleave', () => {
    pane.pointer = null;
    viewer.setHover(null, null);
    if (viewer.lens || viewer.drawing?.paints) viewer.invalidate();
  });
  canvas.addEventListener('pointerenter', () => {
    viewer.focus = pane;
    viewer.invalidate();
  });

  canvas.addEventListener(
    'wheel',
    (event) => {
      if (!viewer.stored) return;
      event.preventDefault();
      const delta = event.deltaMode === 1 ? event.deltaY * 40 : event.deltaY;
      if (event.ctrlKey || pane.slices === 1) return pane.zoomAt(event, Math.exp(-Math.max(-120, Math.min(120, delta)) / 500));
      // A mouse wheel sends one large step, a touchpad many small ones.
      wheel = Math.abs(delta) >= 50 ? Math.sign(delta) * 50 : wheel + delta;
      const steps = Math.trunc(wheel / 50);
      wheel -= steps * 50;
      if (steps) pane.scroll(steps);
      viewer.setHover(pane, pane.indexAt(event));
    },
    { passive: false },
  );
}

/** The keyboard map, as shown by "?". */
export const KEYS = [
  ['S', 'segment: click adds, Alt+click removes'],
  ['+ / −', 'the next clicks add / remove'],
  ['Shift+S', 'scribble: a line inside, Alt: outside'],
  ['Shift+X, Shift+O', 'box, lasso around a structure'],
  ['Shift+B, Shift+E', 'brush, eraser (Alt: the other)'],
  ['[ and ]', 'smaller or larger brush'],
  ['Shift+I', 'fill in between painted slices'],
  ['Shift+G', 'grow by value: press and drag'],
  ['Shift+A', 'the other answer to the same clicks, and back'],
  ['Shift+H, Shift+J', 'hint for the next click on or off, go to it'],
  ['N', 'new segment'],
  ['H', 'hide or show the overlay'],
  ['O', 'outline or fill of the chosen segment'],
  ['J', 'jump to its largest slice'],
  ['A', 'draw all anatomy (radiograph)'],
  ['F', 'heat map of the chosen finding'],
  ['M, Q, E, D', 'measure a length, an angle, an ellipse, a value'],
  ['K', 'cardiothoracic ratio: heart, then thorax'],
  ['Delete', 'delete the chosen measurement'],
  ['U, Ctrl+Z', 'undo the last step or measurement'],
  ['Shift+Ctrl+Z', 'redo'],
  ['C', 'crosshair tool: click or drag to move'],
  ['Shift+arrows', 'move the crosshair by a voxel'],
  ['Enter', 'act at the crosshair; twice there ends a line'],
  ['X', 'crosshair lines on or off'],
  ['W', 'window tool (right drag: always)'],
  ['1 … 6, 0', 'window presets, the header’s own window'],
  ['I', 'invert greys'],
  ['Z', 'zoom tool (Ctrl+wheel, pinch: always)'],
  ['P', 'pan tool (middle drag, Space+drag: always)'],
  ['R', 'reset zoom, pan, window, turns and slab'],
  ['G', 'magnifier'],
  ['T, Shift+T', 'turn, mirror a radiograph'],
  ['B', 'next slab: MIP, average, MinIP, none'],
  [', and .', 'thinner or thicker slab'],
  ['V', 'cine'],
  ['wheel, arrows', 'one slice'],
  ['Page Up / Down', 'ten slices'],
  ['Home / End', 'first / last slice'],
  ['L', 'next layout; the last one compares'],
  ['Shift+L', 'link or unlink what is compared'],
  ['Y', 'why? of the draft: what changes without each card'],
  ['/', 'add a finding'],
  ['?', 'this list'],
];

const TOOLS = { s: 'segment', c: 'navigate', w: 'window', z: 'zoom', p: 'pan', m: 'length', q: 'angle', e: 'ellipse', d: 'probe', k: 'ratio' };
// With Shift.
const DRAWING = { s: 'scribble', x: 'box', o: 'lasso', b: 'brush', e: 'eraser', g: 'grow' };
const NUDGE = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
const SCROLL = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10 };

/** One key press → true where the viewer used it. */
export function handleKey(viewer, event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key === 'z') event.shiftKey ? viewer.redo() : viewer.undo();
    else if (key === 'y') viewer.redo();
    else return false;
    return true;
  }
  if (event.altKey) return false;
  const onRange = event.target instanceof Element && event.target.matches('input[type=range]');
  const onControl = event.target instanceof Element && event.target.closest('button, a, summary, [role=listitem], [role=option], [tabindex]');
  const shown = viewer.focus.viewer; // the series under the pointer: in the compare layout there are two
  if (key in NUDGE && event.shiftKey && !onRange) viewer.nudge(...NUDGE[key]);
  else if (key === 'Enter' && !onControl) viewer.act();
  else if (key in SCROLL && !onRange) viewer.focus.scroll(SCROLL[key]);
  else if (key === 'Home' && !onRange) viewer.focus.scroll(-Infinity);
  else if (key === 'End' && !onRange) viewer.focus.scroll(Infinity);
  else if (event.shiftKey && key in DRAWING) viewer.chooseTool(DRAWING[key]);
  else if (event.shiftKey && key === 'a') viewer.alternative();
  else if (event.shiftKey && key === 'i') viewer.interpolate();
  else if (event.shiftKey && key === 'h') viewer.toggleHints();
  else if (event.shiftKey && key === 'j') viewer.toHint();
  else if (key === '[') viewer.drawing.resize(-1);
  else if (key === ']') viewer.drawing.resize(1);
  else if (key in TOOLS) viewer.chooseTool(TOOLS[key]);
  else if (/^[0-6]$/.test(key)) shown.setPreset(Number(key) - 1);
  else if (key === 'x') viewer.toggleCrosshair();
  else if (key === 'i') shown.toggleInvert();
  else if (key === 'g') viewer.toggleLens();
  else if (key === 'b') viewer.nextSlab();
  else if (key === '.') viewer.thicken(1);
  else if (key === ',') viewer.thicken(-1);
  else if (key === 'v') viewer.toggleCine();
  else if (key === 't') event.shiftKey ? viewer.flip() : viewer.turn();
  else if (key === 'o') viewer.toggleOutline();
  else if (key === 'j') viewer.toLargest();
  else if ((key === 'Delete' || key === 'Backspace') && viewer.annotations.selected) viewer.annotations.remove();
  else if (key === 'h') viewer.toggleOverlay();
  else if (key === 'a') viewer.drawAnatomy();
  else if (key === 'f') viewer.toggleHeat();
  else if (key === 'r') viewer.reset();
  else if (key === 'n') viewer.newSegment();
  else if (key === 'u') viewer.undo();
  else if (key === '+' || key === '=') viewer.setPositive(true);
  else if (key === '-' || key === '_') viewer.setPositive(false);
  else if (key === 'l') event.shiftKey ? viewer.toggleLink() : viewer.nextLayout();
  else if (key === '?') viewer.toggleHelp();
  else if (key === 'Escape' && viewer.helpShown) viewer.toggleHelp();
  else if (key === 'Escape' && (viewer.annotations.cancel() || viewer.drawing.cancel())) return true;
  else return false;
  return true;
}

/** Listen to the whole page's keys; `signal` ends it. */
export function attachKeyboard(viewer, signal) {
  document.addEventListener(
    'keydown',
    (event) => {
      if (event.defaultPrevented || takesText(event.target) || !viewer.shown || !viewer.stored) return;
      if (document.querySelector('dialog[open], [role=dialog][aria-modal=true]')) return;
      if (event.key === ' ' && !event.target.closest?.('button, a')) {
        viewer.setSpace(true);
        event.preventDefault();
      } else if (handleKey(viewer, event)) event.preventDefault();
    },
    { signal },
  );
  document.addEventListener('keyup', (event) => event.key === ' ' && viewer.setSpace(false), { signal });
  window.addEventListener('blur', () => viewer.setSpace(false), { signal });
}
