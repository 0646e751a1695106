"""The labels of the heads as data, and how a dataset's own labels or a caption's words map to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from core_models.drafting.findings import mentions

IGNORE = -1.0


@dataclass(frozen=True)
class Label:
    """One finding: the name NIH ChestX-ray14 has for it, the corpus's heading, its region, and the concepts and words
    of a caption that state it."""

    name: str
    term: str
    region: str
    concepts: tuple[str, ...]
    words: str = ""


FINDINGS: tuple[Label, ...] = (
    Label("Pneumonia", "Pneumonia", "lungs", ("pneumonia",)),
    Label("Infiltration", "Infiltrate", "lungs", (), r"infiltrat\w*"),
    Label("Atelectasis", "Pulmonary Atelectasis", "lungs", ("atelectasis",)),
    Label("Edema", "Pulmonary Edema", "lungs", (), r"(?:pulmonary|lung|interstitial|alveolar) o?edema"),
    Label("Effusion", "Pleural Effusion", "pleura", ("effusion",)),
    Label("Consolidation", "Consolidation", "lungs", (), r"consolidat\w*"),
    Label("Pleural_Thickening", "Thickening/pleura", "pleura", ("pleural thickening",)),
    Label("Nodule", "Nodule", "lungs", (), r"nodul\w*|coin lesion"),
    Label("Mass", "Mass", "lungs", (), r"\bmass(?:es)?\b|tumou?r"),
    Label("Cardiomegaly", "Cardiomegaly", "heart", ("cardiomegaly",)),
    Label("Pneumothorax", "Pneumothorax", "pleura", ("pneumothorax",)),
    Label("Emphysema", "Pulmonary Emphysema", "lungs", ("hyperinflation",)),
    Label("Fibrosis", "Pulmonary Fibrosis", "lungs", (), r"fibro(?:sis|tic)"),
)
NAMES = tuple(label.name for label in FINDINGS)

STRUCTURES = ("right lung", "left lung", "heart", "right clavicle", "left clavicle")
"""Channels of the anatomy head, in the bit order of the JSRT masks (1, 2, 4, 8, 16); sides are the patient's."""

GATE = ("chest", "frontal", "inverted", "rotated")
CONTEXT = ("view_known", "ap", "age_known", "age", "sex_known", "female")

_NORMAL_CAPTION = re.compile(
    r"\b(?:normal|unremarkable|clear)\b[^.]{0,40}\b(?:chest|radiograph|x-?ray|lungs?|film)\b|"
    r"\b(?:chest|radiograph|x-?ray|film)\b[^.]{0,40}\b(?:normal|unremarkable|no abnormalit\w*|clear)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def from_nih(text: str) -> np.ndarray:
    """ "Effusion|Edema" → (labels,) 0/1.  Labels the model does not know are left out; "No Finding" is all zeros."""
    present = set(text.split("|"))
    return np.array([float(name in present) for name in NAMES], np.float32)


def from_caption(caption: str) -> tuple[np.ndarray, np.ndarray]:
    """A figure's caption → ((labels,) 0/1, (labels,) weights).

    What is stated counts fully, what is denied or excluded by a normal film too; what is not mentioned counts little,
    since a caption names what its authors want to show.
    """
    target = np.zeros(len(FINDINGS), np.float32)
    weight = np.full(len(FINDINGS), 0.15, np.float32)
    stated: dict[str, str] = {}
    for sentence in _SENTENCE.split(caption):
        for mention in mentions(sentence):
            if stated.get(mention.concept) != "present":
                stated[mention.concept] = mention.polarity
        denied = {m.concept for m in mentions(sentence) if m.polarity == "absent"}
        for i, label in enumerate(FINDINGS):
            if label.words and (hit := re.search(label.words, sentence, re.IGNORECASE)):
                before = sentence[: hit.start()]
                absent = bool(denied) and re.search(r"\b(?:no|not|without|nor)\b", before, re.IGNORECASE)
                target[i] = max(target[i], 0.0 if absent else 1.0)
                weight[i] = 1.0
    for i, label in enumerate(FINDINGS):
        polarity = [stated[c] for c in label.concepts if c in stated]
        if "present" in polarity or "possible" in polarity:
            target[i], weight[i] = 1.0, 1.0 if "present" in polarity else 0.5
        elif polarity:
            weight[i] = 1.0
    if not target.any() and _NORMAL_CAPTION.search(caption):
        weight[:] = 1.0
    return target, weight
