"""Study id in → "train" or "test" out: the one rule that every training, index and evaluation asks.

One study in ten is a test study, by the SHA-256 of its id: the answer depends on nothing but the id, so it is the same
on every machine, in every order, and for reports and images alike.

Many studies hold word-for-word the same normal report.  Such near-duplicates are deliberately *not* moved from one side
to the other: the split follows studies, not texts, or it would change with every corpus that is added.  Evaluations
that texts seen in training could flatter report normal and non-normal studies apart.
"""

from __future__ import annotations

import hashlib

from retrieval.report import Split

SALT = "reading-room/split/1"
TEST_PERCENT = 10
RULE = f"test if sha256('{SALT}:' + study_id) mod 100 < {TEST_PERCENT}"


def split_of(study_id: str) -> Split:
    """The side of the study: "train" or "test"."""
    digest = hashlib.sha256(f"{SALT}:{study_id}".encode("utf-8", "surrogatepass")).digest()
    return "test" if int.from_bytes(digest[:8], "big") % 100 < TEST_PERCENT else "train"
