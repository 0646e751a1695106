"""A header → what its pixels may show of who the patient is: burned-in text, a face.  Nothing here looks at pixels."""

from __future__ import annotations

from pydicom.dataset import Dataset

from core_models.study.elements import values
from core_models.study.text import clean

# Kinds of image into which the patient's name is drawn as a matter of course.
_DRAWN_INTO = {
    "US": "an ultrasound image",
    "IVUS": "an intravascular ultrasound image",
    "SC": "a secondary capture",
    "OT": "a capture of another kind",
    "XC": "a photograph",
    "ES": "an endoscopy image",
    "GM": "a microscopy image",
    "RF": "a fluoroscopy image",
    "XA": "an angiography image",
    "DOC": "a document",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SCREENS = ("SCREEN", "DOSE", "REPORT", "SCANNED")
_HEAD = ("HEAD", "BRAIN", "SKULL", "FACE", "NECK", "ORBIT", "SINUS", "JAW", "EAR", "WHOLEBODY", "CSPINE", "IAC")
_VOLUMES = ("CT", "MR", "PT", "NM")


def text_in_pixels(header: Dataset) -> str:
    """Why the pixels may hold the patient's name, as the end of a sentence that begins "the image"; "" where nothing
    says so."""
    if clean(header.get("BurnedInAnnotation"), 8).upper() == "YES":
        return "declares that text is burned into its pixels"
    modality = clean(header.get("Modality"), 8).upper() or "OT"
    if clean(header.get("SOPClassUID")).startswith(_SECONDARY_CAPTURE):
        return "is a secondary capture, which often shows the patient's name"
    if modality in _DRAWN_INTO:
        return f"is {_DRAWN_INTO[modality]}, which often shows the patient's name"
    kinds = [clean(v, 32).upper() for v in values(header.get("ImageType"))]
    if any(screen in kind for kind in kinds for screen in _SCREENS):
        return "is a saved screen, which often shows the patient's name"
    return ""


def face_in_pixels(header: Dataset) -> str:
    """Why a face may be rendered from the pixels, as `text_in_pixels`; "" where nothing says so."""
    if clean(header.get("RecognizableVisualFeatures"), 8).upper() == "YES":
        return "declares that it shows a recognisable face"
    if clean(header.get("Modality"), 8).upper() not in _VOLUMES:
        return ""
    part = "".join(clean(header.get("BodyPartExamined"), 32).upper().split())
    if any(word in part for word in _HEAD):
        return "shows the head, of which a face can be rendered"
    return ""
