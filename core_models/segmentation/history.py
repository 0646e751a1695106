"""A segment's prompts with undo and redo of any depth: frozen values, so an old state is never lost by a new one."""

from __future__ import annotations

from dataclasses import dataclass

from core_models.segmentation.engine import Click


@dataclass(frozen=True)
class History:
    """The prompts in force and those taken back.

    The mask is always computed from `done` alone, so undo and redo cannot drift from a fresh segmentation.

    Attributes:
        done: oldest first.
        undone: the most recently undone last.
    """

    done: tuple[Click, ...] = ()
    undone: tuple[Click, ...] = ()

    @property
    def can_undo(self) -> bool:
        return bool(self.done)

    @property
    def can_redo(self) -> bool:
        return bool(self.undone)

    def add(self, click: Click) -> History:
        """A new prompt; what had been undone can no longer be redone."""
        return History((*self.done, click), ())

    def undo(self) -> History:
        """Take the latest prompt back; without one, the same history."""
        return History(self.done[:-1], (*self.undone, self.done[-1])) if self.done else self

    def redo(self) -> History:
        """Bring the latest undone prompt back; without one, the same history."""
        return History((*self.done, self.undone[-1]), self.undone[:-1]) if self.undone else self
