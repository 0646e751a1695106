"""The names that public models give findings → the corpus's heading, the region and the words of a prompt, as data."""

from __future__ import annotations

from dataclasses import dataclass

from core_models.foundation import labels


@dataclass(frozen=True)
class Term:
    """One finding: a model's `name` for it, the corpus's `term`, its `region`, and its `phrase` in a sentence."""

    name: str
    term: str
    region: str
    phrase: str


_PHRASES = {
    "Pneumonia": "pneumonia",
    "Infiltration": "infiltrate",
    "Atelectasis": "atelectasis",
    "Edema": "pulmonary edema",
    "Effusion": "pleural effusion",
    "Consolidation": "consolidation",
    "Pleural_Thickening": "pleural thickening",
    "Nodule": "lung nodule",
    "Mass": "lung mass",
    "Cardiomegaly": "cardiomegaly",
    "Pneumothorax": "pneumothorax",
    "Emphysema": "emphysema",
    "Fibrosis": "pulmonary fibrosis",
}
TERMS: tuple[Term, ...] = (
    *(
        Term(label.name, label.term, label.region, _PHRASES.get(label.name, label.term.lower()))
        for label in labels.FINDINGS
    ),
    Term("Hernia", "Hernia, Hiatal", "abdomen", "hiatal hernia"),
    Term("Lung Lesion", "Mass/lung", "lungs", "lung lesion"),
    Term("Fracture", "Fractures, Bone", "bones", "bone fracture"),
    Term("Lung Opacity", "Opacity/lung", "lungs", "lung opacity"),
    Term("Enlarged Cardiomediastinum", "Mediastinum/enlarged", "mediastinum", "widened mediastinum"),
)
BY_NAME = {term.name: term for term in TERMS}
