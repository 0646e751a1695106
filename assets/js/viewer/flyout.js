// A toolbar button in → the menu beneath it: choices with their keys, numbers to set; arrows move, Escape closes.

import { make } from './pane.js';

export class Flyout {
  constructor(button, parent) {
    this.button = button;
    this.root = make('div', 'rr-flyout', parent);
    this.root.hidden = true;
    this.root.setAttribute('role', 'menu');
    this.root.setAttribute('aria-label', button.title);
    this.items = []; // [element, () => pressed, () => disabled]
    button.setAttribute('aria-haspopup', 'menu');
    button.setAttribute('aria-expanded', 'false');
    this.root.addEventListener('keydown', (event) => this.keys(event));
    this.escape = (event) => {
      // Opened with the mouse, the menu has no focus to hear a key with.
      if (event.key !== 'Escape') return;
      this.close();
      event.preventDefault();
      event.stopPropagation();
    };
    this.outside = (event) => {
      if (!this.root.contains(event.target) && !this.button.contains(event.target)) this.close();
    };
  }

  item(picture, name, key, action, pressed = null, disabled = null) {
    const row = make('button', 'rr-item', this.root);
    row.type = 'button';
    row.setAttribute('role', pressed ? 'menuitemcheckbox' : 'menuitem');
    if (picture) row.append(picture);
    make('span', 'rr-item-name', row).textContent = name;
    make('kbd', '', row).textContent = key;
    row.addEventListener('pointerdown', (event) => event.preventDefault());
    row.addEventListener('click', () => {
      action();
      this.close();
    });
    this.items.push([row, pressed, disabled]);
  }

  number(name, key, least, most, action, step = 1) {
    const row = make('label', 'rr-item', this.root);
    make('span', 'rr-item-name', row).textContent = name;
    const input = make('input', 'rr-number', row);
    Object.assign(input, { type: 'number', min: least, max: most, step });
    make('kbd', '', row).textContent = key;
    input.addEventListener('change', () => {
      const value = Number(input.value);
      if (Number.isFinite(value) && value >= least && value <= most) action(value);
    });
    return input;
  }

  line() {
    make('div', 'rr-item-line', this.root).setAttribute('role', 'separator');
  }

  toggle() {
    if (!this.root.hidden) return this.close();
    this.root.hidden = false;
    this.update();
    this.button.setAttribute('aria-expanded', 'true');
    const { offsetLeft, offsetTop, offsetHeight } = this.button;
    const room = this.button.offsetParent.clientWidth - this.root.offsetWidth - 4;
    this.root.style.left = `${Math.max(4, Math.min(offsetLeft, room))}px`;
    this.root.style.top = `${offsetTop + offsetHeight + 4}px`;
    document.addEventListener('pointerdown', this.outside, true);
    document.addEventListener('keydown', this.escape, true);
    if (document.activeElement === this.button) this.choices[0]?.focus();
  }

  close() {
    if (this.root.hidden) return;
    const inside = this.root.contains(document.activeElement);
    this.root.hidden = true;
    this.button.setAttribute('aria-expanded', 'false');
    document.removeEventListener('pointerdown', this.outside, true);
    document.removeEventListener('keydown', this.escape, true);
    if (inside) this.button.focus();
  }

  get choices() {
    return [...this.root.querySelectorAll('button:not(:disabled), input')];
  }

  keys(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && document.activeElement.type !== 'number') {
      const { choices } = this;
      choices[(choices.indexOf(document.activeElement) + step + choices.length) % choices.length].focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  update() {
    if (this.root.hidden) return;
    for (const [row, pressed, disabled] of this.items) {
      if (pressed) row.setAttribute('aria-checked', String(Boolean(pressed())));
      row.disabled = Boolean(disabled?.());
    }
  }
}
