// What the reader did, one after the other, in → undone and redone in that order, whatever kind of thing it was.

const KEPT = 1000;

export class Journal {
  constructor() {
    this.done = [];
    this.undone = [];
  }

  /** Both are async functions; one that answers false had nothing left to do, and the next in line is tried. */
  push(undo, redo) {
    const entry = { undo, redo };
    this.done.push(entry);
    if (this.done.length > KEPT) this.done.shift();
    this.undone = [];
    return entry;
  }

  /** Undo one entry that `push` answered out of its turn; nothing where that has been undone or cleared already. */
  async take(entry) {
    if (!this.done.includes(entry)) return;
    const done = await entry.undo();
    this.done = this.done.filter((other) => other !== entry);
    if (done !== false) this.undone.push(entry);
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
