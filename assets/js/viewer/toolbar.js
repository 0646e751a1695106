// The viewer in → its thin toolbar; `update` shows the viewer's state on the buttons.

import { KEYS } from './input.js';
import { make } from './pane.js';

const PATHS = {
  single: 'M2.5 3.5h11v9h-11z',
  two: 'M2.5 3.5h11v9h-11zM8 3.5v9',
  mpr: 'M2.5 3.5h11v9h-11zM9 3.5v9M9 8h4.5',
  segment: 'M8 2.5a5.5 5.5 0 1 0 .01 0M8 5.2v5.6M5.2 8h5.6',
  navigate: 'M8 1.5v4.5M8 10v4.5M1.5 8h4.5M10 8h4.5',
  window: 'M8 2.5a5.5 5.5 0 1 0 .01 0M8 2.5v11M9.6 4.6h1.8M9.6 7h3.4M9.6 9.4h3.2M9.6 11.6h1.6',
  zoom: 'M7 2.8a4.2 4.2 0 1 0 .01 0M10.2 10.2l3.6 3.6M5.2 7h3.6M7 5.2v3.6',
  pan: 'M8 1.5v13M1.5 8h13M6 3.4l2-2 2 2M6 12.6l2 2 2-2M3.4 6l-2 2 2 2M12.6 6l2 2-2 2',
  measure: 'M2 11.5l9.5-9.5 2.5 2.5-9.5 9.5zM5 8.5l1.4 1.4M7.4 6.1l1.4 1.4M9.8 3.7l1.4 1.4',
  crosshair: 'M8 1.5v13M1.5 8h13M8 5a3 3 0 1 0 .01 0',
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
    for (const [layout, title] of [['single', 'One image'], ['two', 'Axial and coronal'], ['mpr', 'Three planes']]) {
      this.button(layout, `${title} (L: next layout)`, () => viewer.setLayout(layout), () => viewer.layout === layout,
        () => layout !== 'single' && !viewer.hasPlanes);
    }
    this.group();
    const tools = [
      ['segment', 'Click to segment (S)'], ['navigate', 'Move the crosshair (C)'], ['window', 'Window and level (W, or right drag)'],
      ['zoom', 'Zoom (Z, or Ctrl+wheel)'], ['pan', 'Pan (P, or middle drag)'], ['measure', 'Measure a length (M)'],
    ];
    for (const [tool, title] of tools) this.button(tool, title, () => viewer.setTool(tool), () => viewer.tool === tool);
    this.group();
    this.button('add', 'Clicks add to the segment (+)', () => viewer.setPositive(true), () => viewer.positive).classList.add('rr-add');
    this.button('remove', 'Clicks remove from the segment (−, or Alt+click)', () => viewer.setPositive(false), () => !viewer.positive).classList.add('rr-remove');
    this.fresh = this.button('fresh', 'New segment (N)', () => viewer.newSegment(), () => viewer.stored && viewer.active === null);
    this.button('undo', 'Undo the last click (U)', () => viewer.undo(), null, () => !viewer.activeRow?.can_undo);
    this.button('redo', 'Redo (Shift+Ctrl+Z)', () => viewer.redo(), null, () => !viewer.activeRow?.can_redo);
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
    this.button('crosshair', 'Crosshair lines on or off (X)', () => viewer.toggleCrosshair(), () => viewer.crosshair, () => !viewer.hasPlanes);
    this.button('invert', 'Invert greys (I)', () => viewer.toggleInvert(), () => viewer.inverted);
    this.button('reset', 'Reset zoom, pan and window (R)', () => viewer.reset(), null, () => !viewer.stored);
    this.status = make('span', 'rr-status', this.root);
    this.status.setAttribute('role', 'status');
    this.row = this.root;
    this.button('help', 'Keyboard (?)', () => viewer.toggleHelp(), () => viewer.helpShown);
    this.progress = make('div', 'rr-progress', this.root);
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
  make('h2', '', panel).textContent = 'Keyboard and mouse';
  const list = make('dl', '', panel);
  for (const [key, meaning] of KEYS) {
    make('dt', '', list).textContent = key;
    make('dd', '', list).textContent = meaning;
  }
  return panel;
}
