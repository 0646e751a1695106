"""A segment's prompts and edits with undo and redo of any depth: frozen values, so no new state costs an old one."""

from __future__ import annotations

from dataclasses import dataclass

from core_models.segmentation.edits import Edit, Interpolation
from core_models.segmentation.engine import Alternative, Box, Lasso, Prompt

Action = Prompt | Edit


def begins(action: Action) -> bool:
    """Whether it says where a structure is, so that a segment may begin with it; a box and a lasso always do."""
    if isinstance(action, Interpolation | Alternative):
        return False
    return isinstance(action, Box | Lasso) or action.positive


@dataclass(frozen=True)
class Step:
    """One thing a reader did, and what it cost and brought when it was done.

    Attributes:
        ms: from its arrival to the mask; None where it was answered together with the next, or is not known.
        added, removed: what the mask gained and lost by it, in `unit` ("ml", "cm²" or "voxels"); None as `ms`.
    """

    action: Action
    ms: float | None = None
    added: float | None = None
    removed: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class History:
    """The steps in force and those taken back.

    The mask is always computed from `done` alone, so undo and redo cannot drift from a fresh segmentation.

    Attributes:
        done: oldest first.
        undone: the most recently undone last.
    """

    done: tuple[Step, ...] = ()
    undone: tuple[Step, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """What was done, without what it cost."""
        return tuple(step.action for step in self.done)

    @property
    def can_undo(self) -> bool:
        return bool(self.done)

    @property
    def can_redo(self) -> bool:
        return bool(self.undone)

    def add(self, step: Step) -> History:
        """A new step; what had been undone can no longer be redone."""
        return History((*self.done, step), ())

    def undo(self) -> History:
        """Take the latest step back; without one, the same history."""
        return History(self.done[:-1], (*self.undone, self.done[-1])) if self.done else self

    def redo(self) -> History:
        """Bring the latest undone step back; without one, the same history."""
        return History((*self.done, self.undone[-1]), self.undone[:-1]) if self.undone else self
