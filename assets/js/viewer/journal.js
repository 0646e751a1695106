// What the reader did, one after the other, in → undone and redone in that order, whatever kind of thing it was.

const KEPT = 1000;

export class Journal {
  constructor() {
    this.done = [];
    this.undone = [];
  }

  /** Both are async functions; one that answers false had nothing left to do, and the next in line is tried. */
  push(undo, redo) {
    this.done.push({ undo, redo });
    if (this.done.length > KEPT) this.done.shift();
    this.undone = [];
  }

  undo() {
    return this.step(this.done, this.undone, 'undo');
  }

  redo() {
    return this.step(this.undone, this.done, 'redo');
  }

  /** Answers whether anything was done. A failure leaves the entry where it was. */
  async step(from, to, way) {
    while (from.length) {
      const entry = from[from.length - 1];
      const done = await entry[way]();
      const at = from.lastIndexOf(entry); // a new action may have come meanwhile
      if (at >= 0) from.splice(at, 1);
      if (done === false) continue;
      to.push(entry);
      return true;
    }
    return false;
  }

  clear() {
    this.done = [];
    this.undone = [];
  }
}
