// The viewer in → its thin toolbar with three menus; `update` shows the viewer's state on the buttons.

import { DRAWS, RADII } from './drawing.js';
import { Flyout } from './flyout.js';
import { KEYS } from './input.js';
import { MEASURES } from './lines.js';
import { make } from './pane.js';
import { SLABS } from './slab.js';

const PATHS = {
  single: 'M2.5 3.5h11v9h-11z',
  two: 'M2.5 3.5h11v9h-11zM8 3.5v9',
  mpr: 'M2.5 3.5h11v9h-11zM9 3.5v9M9 8h4.5',
  segment: 'M8 2.5a5.5 5.5 0 1 0 .01 0M8 5.2v5.6M5.2 8h5.6',
  scribble: 'M2 12c2-6 3.500-8 4.500-6.500S5.500 11 7 11s2.500-6 4-6 .5 5 3 4.500',
  box: 'M2.500 3.500h11v9h-11zM2.500 3.500v.01M13.500 12.500v.01',
  lasso: 'M8 3c3.300 0 5.500 1.600 5.500 3.800S11.300 10.500 8 10.500 2.500 9 2.500 6.800 4.700 3 8 3zM5.500 10c0 2-1 3-2.500 3.500',
  brush: 'M13.500 2.500l-6 6M6.800 8.200l1.500 1.500c0 2.500-2 4-5.800 3.800 1.300-1 .8-2.300 1.500-3.800.6-1.200 1.800-1.600 2.800-1.500z',
  eraser: 'M6 13h8M9.500 3l4 4-6 6H5.500L2.500 10zM6 6.500l4 4',
  grow: 'M8 6a2 2 0 1 0 .01 0M8 1.500v2M8 12.500v2M1.500 8h2M12.500 8h2M3.400 3.400l1.400 1.400M11.200 11.200l1.400 1.400M12.600 3.400l-1.400 1.400M4.800 11.200l-1.400 1.400',
  between: 'M3 3.500h10M3 12.500h10M5 6.500h6M5 9.500h6',
  navigate: 'M8 1.5v4.5M8 10v4.5M1.5 8h4.5M10 8h4.5',
  window: 'M8 2.5a5.5 5.5 0 1 0 .01 0M8 2.5v11M9.6 4.6h1.8M9.6 7h3.4M9.6 9.4h3.2M9.6 11.6h1.6',
  zoom: 'M7 2.8a4.2 4.2 0 1 0 .01 0M10.2 10.2l3.6 3.6M5.2 7h3.6M7 5.2v3.6',
  pan: 'M8 1.5v13M1.5 8h13M6 3.4l2-2 2 2M6 12.6l2 2 2-2M3.4 6l-2 2 2 2M12.6 6l2 2-2 2',
  compare: 'M1.5 3.5h5.5v9H1.5zM9 3.5h5.5v9H9zM3 8h2.5M10.5 8H13',
  length: 'M2 11.5l9.5-9.5 2.5 2.5-9.5 9.5zM5 8.5l1.4 1.4M7.4 6.1l1.4 1.4M9.8 3.7l1.4 1.4',
  angle: 'M13.5 13H2.5L11 3M7.2 13a5 5 0 0 0-1.5-3.7',
  ellipse: 'M8 4.2c3.4 0 6 1.7 6 3.8s-2.6 3.8-6 3.8-6-1.7-6-3.8 2.6-3.8 6-3.8z',
  probe: 'M8 2v4.5M8 9.5V14M2 8h4.5M9.5 8H14',
  ratio: 'M2 4v8M14 4v8M2 8h12M5.5 5.5v5M10 5.5v5',
  view: 'M2 4.5h6M11 4.5h3M2 8h2M7 8h7M2 11.5h7M12 11.5h2M8 3v3M4 6.5v3M9 10v3',
  invert: 'M8 2.5a5.5 5.5 0 1 0 .01 0zM8 2.5v11M8 5l-4 4M8 8.5l-3 3',
  reset: 'M3.2 6.5a5.2 5.2 0 1 1-.4 3M3 2.8v3.9h3.9',
  add: 'M3 8h10M8 3v10',
  remove: 'M3 8h10',
  fresh: 'M8 3v10M3 8h10M2 2h3M2 2v3M14 14h-3M14 14v-3',
  undo: 'M3 6.5h6.5a3.5 3.5 0 0 1 0 7H6M6 3.5l-3 3 3 3',
  redo: 'M13 6.5H6.5a3.5 3.5 0 0 0 0 7H10M10 3.5l3 3-3 3',
  overlay: 'M1.5 8s2.5-4.5 6.5-4.5 6.5 4.5 6.5 4.5-2.5 4.5-6.5 4.5S1.5 8 1.5 8zM8 6.2a1.8 1.8 0 1 0 .01 0',
  help: 'M5.6 6a2.4 2.4 0 1 1 3.6 2.1c-.800.5-1.2 1-1.2 1.9M8 12.6v.4',
};

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

export class Toolbar {
  constructor(viewer, parent) {
    this.viewer = viewer;
    this.root = make('div', 'rr-toolbar', parent);
    this.root.setAttribute('role', 'toolbar');
    this.root.setAttribute('aria-label', 'Viewer tools');
    this.toggles = []; // [button, () => pressed, () => disabled]

    this.group();
    for (const [layout, title] of [['single', 'One image'], ['two', 'Axial and coronal'], ['mpr', 'Three planes and 3D']]) {
      this.button(layout, `${title} (L: next layout)`, () => viewer.setLayout(layout), () => viewer.layout === layout,
        () => layout !== 'single' && !viewer.hasPlanes);
    }
    this.compare = this.button('compare', '', () => viewer.setLayout('compare'), () => viewer.layout === 'compare', () => !viewer.choices().length);
    this.group();
    const tools = [
      ['segment', 'Click to segment (S)'], ['navigate', 'Move the crosshair (C)'], ['window', 'Window and level (W, or right drag)'],
      ['zoom', 'Zoom (Z, or Ctrl+wheel)'], ['pan', 'Pan (P, or middle drag)'],
    ];
    for (const [tool, title] of tools) {
      this.button(tool, title, () => viewer.setTool(tool), () => viewer.tool === tool);
      if (tool === 'segment') this.drawMenu();
    }
    this.measure = this.menu('length', 'Measure: length M, angle Q, ellipse E, value D, cardiothoracic ratio K');
    for (const [tool, { name, key }] of Object.entries(MEASURES)) {
      this.measure.item(icon(tool), name, key, () => viewer.setTool(tool), () => viewer.tool === tool, () => tool === 'ratio' && !viewer.flat);
    }
    this.group();
    this.button('add', 'Clicks add to the segment (+)', () => viewer.setPositive(true), () => viewer.positive).classList.add('rr-add');
    this.button('remove', 'Clicks remove from the segment (−, or Alt+click)', () => viewer.setPositive(false), () => !viewer.positive).classList.add('rr-remove');
    this.fresh = this.button('fresh', 'New segment (N)', () => viewer.newSegment(), () => viewer.stored && viewer.active === null);
    this.button('undo', 'Undo the last step or measurement (U)', () => viewer.undo(), null, () => !viewer.journal.done.length && !viewer.activeRow?.can_undo);
    this.button('redo', 'Redo (Shift+Ctrl+Z)', () => viewer.redo(), null, () => !viewer.journal.undone.length && !viewer.activeRow?.can_redo);
    this.group();
    this.button('overlay', 'Overlay on or off (H)', () => viewer.toggleOverlay(), () => !viewer.overlayHidden);
    this.opacity = make('input', 'rr-opacity', this.row);
    Object.assign(this.opacity, { type: 'range', min: 0, max: 100, value: viewer.opacity * 100, title: 'Overlay opacity' });
    this.opacity.setAttribute('aria-label', 'Overlay opacity');
    this.opacity.addEventListener('input', () => viewer.setOpacity(Number(this.opacity.value) / 100));
    this.group();
    this.presets = make('select', 'rr-presets', this.row);
    this.presets.title = 'Window presets (1 to 6)';
    this.presets.setAttribute('aria-label', 'Window presets');
    this.presets.addEventListener('change', () => {
      viewer.setPreset(Number(this.presets.value));
      this.presets.blur();
    });
    this.button('reset', 'Reset zoom, pan and window (R)', () => viewer.reset(), null, () => !viewer.stored);
    this.viewMenu();
    this.status = make('span', 'rr-status', this.root);
    this.status.setAttribute('role', 'status');
    this.row = this.root;
    this.button('help', 'Keyboard (?)', () => viewer.toggleHelp(), () => viewer.helpShown);
    this.progress = make('div', 'rr-progress', this.root);
  }

  menu(name, title) {
    const button = this.button(name, title, () => flyout.toggle());
    button.dataset.menu = name;
    const flyout = new Flyout(button, this.row);
    return flyout;
  }

  /** The ways to draw a segment that are not a click. */
  drawMenu() {
    const { viewer } = this;
    const menu = (this.draw = this.menu('scribble', 'Draw a segment: scribble, box, lasso, brush, eraser, grow by value'));
    for (const [tool, { name, key }] of Object.entries(DRAWS)) {
      menu.item(icon(tool), name, key, () => viewer.setTool(tool), () => viewer.tool === tool);
    }
    menu.line();
    this.radius = menu.number('Brush radius, mm', '[ and ]', RADII[0], RADII[RADII.length - 1], (mm) => viewer.drawing.setRadius(mm), 0.5);
    menu.item(icon('between'), 'Fill in between painted slices', 'Shift+I', () => viewer.interpolate(), null, () => !viewer.activeRow?.steps.some((step) => step.kind === 'stroke'));
    menu.line();
    menu.item(null, 'The other answer to the clicks', 'Shift+A', () => viewer.alternative(), null, () => !viewer.activeRow?.alternatives);
    menu.item(null, 'Hint for the next click', 'Shift+H', () => viewer.toggleHints(), () => viewer.hints);
    menu.item(null, 'Go to the hint', 'Shift+J', () => viewer.toHint(), null, () => !viewer.activeRow?.hint);
  }

  /** What changes how an image is shown and is needed now and then. */
  viewMenu() {
    const { viewer } = this;
    const menu = (this.view = this.menu('view', 'Invert, magnifier, slabs, cine, turn and mirror'));
    menu.item(null, 'Crosshair lines', 'X', () => viewer.toggleCrosshair(), () => viewer.crosshair, () => !viewer.hasPlanes);
    menu.item(null, 'Invert greys', 'I', () => viewer.toggleInvert(), () => viewer.inverted);
    menu.item(null, 'Magnifier', 'G', () => viewer.toggleLens(), () => viewer.lens);
    menu.line();
    for (const [mode, name] of Object.entries(SLABS)) {
      menu.item(null, mode === 'none' ? name : `${name} slab`, mode === 'none' ? 'B: next' : '', () => viewer.setSlab(mode), () => viewer.slabOf.mode === mode, () => viewer.flat);
    }
    this.thickness = menu.number('Thickness, mm', ', and .', 1, 300, (mm) => viewer.setSlab(viewer.slabOf.mode, mm));
    menu.line();
    menu.item(null, 'Cine', 'V', () => viewer.toggleCine(), () => viewer.cine.running, () => viewer.flat);
    this.rate = menu.number('Frames a second', '', 1, 60, (rate) => {
      viewer.cine.rate = rate;
      viewer.invalidate();
    });
    menu.line();
    menu.item(null, 'Turn a radiograph', 'T', () => viewer.turn(), null, () => !viewer.flat);
    menu.item(null, 'Mirror a radiograph', 'Shift+T', () => viewer.flip(), () => viewer.mirror, () => !viewer.flat);
  }

  group() {
    this.row = make('div', 'rr-group', this.root);
  }

  button(name, title, action, pressed = null, disabled = null) {
    const button = make('button', 'rr-button', this.row);
    button.type = 'button';
    button.title = title;
    button.setAttribute('aria-label', title);
    button.dataset.action = name;
    button.append(icon(name));
    // Focus stays with the image, so that keys keep acting on it.
    button.addEventListener('pointerdown', (event) => event.preventDefault());
    button.addEventListener('click', action);
    this.toggles.push([button, pressed, disabled]);
    return button;
  }

  update() {
    const { viewer } = this;
    for (const [button, pressed, disabled] of this.toggles) {
      if (pressed) button.setAttribute('aria-pressed', String(Boolean(pressed())));
      button.disabled = Boolean(disabled?.());
    }
    const earlier = viewer.earlier.length > 0 && viewer.layout !== 'compare';
    this.compare.classList.toggle('rr-offer', earlier);
    const other = viewer.choices().length > 0;
    this.compare.title = earlier ? 'Compare with the earlier study of this patient (L)' : other ? 'Compare with another series, side by side (L)' : 'Nothing to compare with: no other series and no earlier study of this patient';
    this.compare.setAttribute('aria-label', this.compare.title);
    this.measure.button.setAttribute('aria-pressed', String(viewer.tool in MEASURES));
    const shown = viewer.tool in MEASURES ? viewer.tool : 'length';
    if (this.measure.shown !== shown) this.measure.button.replaceChildren(icon((this.measure.shown = shown)));
    this.view.button.setAttribute('aria-pressed', String(viewer.lens || viewer.inverted || viewer.slabOf.mode !== 'none' || viewer.cine.running || viewer.mirror || viewer.turns > 0));
    this.draw.button.setAttribute('aria-pressed', String(viewer.tool in DRAWS));
    const drawn = viewer.tool in DRAWS ? viewer.tool : 'scribble';
    if (this.draw.shown !== drawn) this.draw.button.replaceChildren(icon((this.draw.shown = drawn)));
    for (const menu of [this.draw, this.measure, this.view]) menu.update();
    for (const [input, value] of [[this.thickness, viewer.slabOf.mm], [this.rate, viewer.cine.rate], [this.radius, viewer.drawing.radius]]) {
      if (document.activeElement !== input) input.value = value;
    }
    this.opacity.value = Math.round(viewer.opacity * 100);
    const names = viewer.presets.map((preset) => preset.name).join('|');
    if (names !== this.presetNames) {
      this.presetNames = names;
      this.presets.replaceChildren(new Option('Window', '-1', true, true));
      this.presets.options[0].disabled = true;
      viewer.presets.forEach((preset, n) => this.presets.add(new Option(`${n + 1}  ${preset.name}`, String(n))));
    }
    this.presets.value = String(viewer.currentPreset());
    this.presets.disabled = !viewer.stored;
    this.status.textContent = viewer.statusText();
    this.status.title = viewer.statusTitle();
    const part = viewer.loadedPart();
    this.progress.style.width = part < 1 ? `${part * 100}%` : '0';
  }
}

/** The keyboard map; shown and hidden by the viewer. */
export function helpPanel(parent) {
  const panel = make('div', 'rr-help', parent);
  panel.hidden = true;
  panel.setAttribute('role', 'region');
  panel.setAttribute('aria-label', 'Keyboard and mouse');
  make('h2', '', panel).textContent = 'Keyboard and mouse';
  const list = make('dl', '', panel);
  for (const [key, meaning] of KEYS) {
    const line = make('div', '', list);
    make('dt', '', line).textContent = key;
    make('dd', '', line).textContent = meaning;
  }
  return panel;
}
