"""The answer before a click and the one after it → whether another click is worth setting.

Clicks of a careful reader go where the error is largest; where one of them changed next to nothing, the engine has no
more to give, and a brush has.  How often that is right is measured: `evaluate segmentation`, "when the engine says".
"""

from __future__ import annotations

from core_models.segmentation.editing import overlap
from core_models.segmentation.engine import Mask

LITTLE = 0.01  # of the structure
WORTH = 0.01  # of Dice: less than this is no gain


def change(old: Mask, new: Mask) -> float:
    """How many voxels differ, as a share of what there is now; 0 between two empty masks."""
    differ = old.count + new.count - 2 * overlap(old, new)
    return differ / max(1, new.count)


def settled(old: Mask | None, new: Mask) -> bool:
    """Whether a click that turned the one into the other changed so little that the next one will too."""
    return old is not None and not new.empty and change(old, new) <= LITTLE
