// Slices in → shown one after the other, at the frame rate that the scan itself gives where it gives one.

const DEFAULT = 10; // a second, of a stack that has no rate of its own
const RATES = [1, 60];

export class Cine {
  constructor(viewer) {
    this.viewer = viewer;
    this.running = false;
    this.chosen = null; // the reader's own rate
  }

  get rate() {
    return this.chosen ?? this.viewer.header?.frame_rate ?? DEFAULT;
  }

  set rate(value) {
    if (Number.isFinite(value)) this.chosen = Math.max(RATES[0], Math.min(RATES[1], Math.round(value)));
  }

  toggle() {
    if (this.running) return this.stop();
    if (!this.viewer.stored || this.viewer.focus.slices < 2) return undefined;
    this.running = true;
    const turn = (this.turn = {});
    let due = performance.now();
    const step = (now) => {
      if (this.turn !== turn || !this.running) return;
      // Late frames are left out, so that the heart beats at its own pace on a slow machine too.
      const frames = Math.floor(((now - due) * this.rate) / 1000);
      if (frames > 0) {
        due += (frames * 1000) / this.rate;
        const pane = this.viewer.focus;
        const place = (pane.fromReading(pane.slice) + frames) % pane.slices;
        pane.goTo(pane.fromReading(place));
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
    return undefined;
  }

  stop() {
    this.running = false;
    this.turn = null;
  }

  /** Another series: its own rate again. */
  reset() {
    this.stop();
    this.chosen = null;
  }
}
