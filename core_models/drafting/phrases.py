"""A finding heading ("Pulmonary Atelectasis/base/left/mild") in → words that a radiologist would use for it ("mild left
basilar atelectasis"), plain or hedged.

They fill the places where the corpus has no sentence of its own: a rare heading in training, a card that the model did
not write about, and the baseline of templates.  Headings are an index's words ("Cicatrix/lung/apex/bilateral"); the
tables below say how reports put them.  Words in which the check would not find the heading again are not used: then the
heading's own words stand, in an order that can be read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from core_models.drafting import findings as f
from core_models.drafting import verify
from core_models.drafting.evidence import Evidence

DEGREES = ("minimal", "mild", "small", "tiny", "borderline", "moderate", "large", "severe", "massive", "extensive")
SIDES = ("left", "right", "bilateral")
_NOUNS = ("hypoinflation", "hyperdistention", "eventration")  # qualifiers that are the finding, on an anatomical head
_HEDGED = (
    "Possible {}.",
    "There may be {}.",
    "Findings may represent {}.",
    "Suspected {}.",
    "Questionable {}.",
    "{} cannot be excluded.",
)


class _Noun(NamedTuple):
    """How a heading's first part is said: one, several, and where its place stands.

    Attributes:
        place: "" before it ("left basilar opacity"); else the word that leads to it ("osteopenia *of* the spine").
    """

    one: str
    many: str = ""
    place: str = ""


_HEADS = {
    "pulmonary atelectasis": _Noun("atelectasis"),
    "volume loss": _Noun("volume loss"),
    "opacity": _Noun("opacity", "opacities"),
    "density": _Noun("density", "densities"),
    "infiltrate": _Noun("infiltrate", "infiltrates"),
    "consolidation": _Noun("consolidation", "consolidations"),
    "airspace disease": _Noun("airspace disease"),
    "nodule": _Noun("nodule", "nodules"),
    "mass": _Noun("mass", "masses"),
    "calcified granuloma": _Noun("calcified granuloma", "calcified granulomas"),
    "granuloma": _Noun("granuloma", "granulomas"),
    "calcinosis": _Noun("calcification", "calcifications"),
    "cicatrix": _Noun("scarring"),
    "thickening": _Noun("thickening"),
    "pleural effusion": _Noun("pleural effusion", "pleural effusions"),
    "pulmonary emphysema": _Noun("emphysema"),
    "pulmonary congestion": _Noun("pulmonary vascular congestion"),
    "lung diseases, interstitial": _Noun("interstitial lung disease"),
    "pulmonary disease, chronic obstructive": _Noun("chronic obstructive pulmonary disease"),
    "blister": _Noun("bulla", "bullae"),
    "cavitation": _Noun("cavitation"),
    "lucency": _Noun("lucency", "lucencies"),
    "lung, hyperlucent": _Noun("hyperlucency"),
    "nipple shadow": _Noun("nipple shadow", "nipple shadows"),
    "cysts": _Noun("cyst", "cysts"),
    "stents": _Noun("stent", "stents"),
    "atherosclerosis": _Noun("atherosclerosis"),
    "deformity": _Noun("deformity", "deformities"),
    "fractures, bone": _Noun("fracture", "fractures"),
    "dislocations": _Noun("dislocation", "dislocations"),
    "sclerosis": _Noun("sclerosis"),
    "funnel chest": _Noun("pectus excavatum"),
    "hernia, hiatal": _Noun("hiatal hernia"),
    "osteophyte": _Noun("osteophytes", "osteophytes", "of"),
    "spondylosis": _Noun("spondylosis", place="of"),
    "arthritis": _Noun("arthritic changes", place="of"),
    "kyphosis": _Noun("kyphosis", place="of"),
    "scoliosis": _Noun("scoliosis", place="of"),
    "bone diseases, metabolic": _Noun("osteopenia", place="of"),
    "osteoporosis": _Noun("osteoporosis", place="of"),
    "hyperostosis, diffuse idiopathic skeletal": _Noun("diffuse idiopathic skeletal hyperostosis", place="of"),
    "spinal fusion": _Noun("fusion", place="of"),
    "subcutaneous emphysema": _Noun("subcutaneous emphysema", place="of"),
    "surgical instruments": _Noun("surgical material", place="in"),
    "catheters, indwelling": _Noun("indwelling catheter", "indwelling catheters", "in"),
    "implanted medical device": _Noun("implanted medical device", "implanted medical devices", "in"),
    "medical device": _Noun("medical device", "medical devices", "in"),
    "foreign bodies": _Noun("foreign body", "foreign bodies", "in"),
    "tube, inserted": _Noun("tube", "tubes", "in"),
    "sutures": _Noun("sutures", place="in"),
    "contrast media": _Noun("contrast media", place="in"),
}
# Places that stand before the finding, and the words for them there.
_BEFORE = {
    "base": "basilar",
    "apex": "apical",
    "hilum": "hilar",
    "lingula": "lingular",
    "pleura": "pleural",
    "mediastinum": "mediastinal",
    "aorta": "aortic",
    "aorta, thoracic": "thoracic aortic",
    "blood vessels": "vascular",
    "coronary vessels": "coronary",
    "ribs": "rib",
    "thoracic vertebrae": "thoracic vertebral",
    "lumbar vertebrae": "lumbar vertebral",
    "cervical vertebrae": "cervical vertebral",
    "spine": "spinal",
    "humerus": "humeral",
    "clavicle": "clavicular",
    "sternum": "sternal",
    "trachea": "tracheal",
    "trachea, carina": "carinal",
    "heart": "cardiac",
    "abdomen": "abdominal",
    "pulmonary alveoli": "alveolar",
    "bronchi": "bronchial",
}
# Places that follow it: "of the thoracic spine", "in the left chest".
_AFTER = {
    "thoracic vertebrae": "thoracic spine",
    "lumbar vertebrae": "lumbar spine",
    "cervical vertebrae": "cervical spine",
    "thorax": "chest",
    "aorta, thoracic": "thoracic aorta",
    "trachea, carina": "carina",
    "base": "lung base",
    "apex": "lung apex",
    "lingula": "lingula",
    "coronary vessels": "coronary vessels",
}
_PLACES = {
    *_BEFORE,
    *_AFTER,
    *("lung", "upper lobe", "middle lobe", "lower lobe", "shoulder", "breast", "neck", "diaphragm", "esophagus"),
    *("aortic valve", "mitral valve", "pulmonary artery", "lymph nodes", "paratracheal", "retrocardiac", "scapula"),
}
# What a structure is, rather than what is found at it ("Aorta/tortuous"): "mildly" goes with these.
_STATES = ("tortuous", "enlarged", "prominent", "elevated", "flattened", "blunted", "obscured")
_ADVERBS = {
    "mild": "mildly",
    "moderate": "moderately",
    "severe": "severely",
    "borderline": "borderline",
    "small": "mildly",
    "large": "markedly",
    "minimal": "minimally",
}
_NEAR = ("interstitial", "bronchovascular")  # stand right before what they tell the kind of
_DEGENERATIVE = {
    "spine": "spine",
    "thoracic vertebrae": "thoracic spine",
    "lumbar vertebrae": "lumbar spine",
    "cervical vertebrae": "cervical spine",
    "shoulder": "shoulder",
    "humerus": "humerus",
    "ribs": "ribs",
    "bone and bones": "bones",
}
_OF_A_HALF = {"costophrenic angle": "costophrenic angle", "sulcus": "sulcus", "diaphragm": "hemidiaphragm"}
_TURNED = {"elevated": "elevation", "flattened": "flattening", "blunted": "blunting", "eventration": "eventration"}


def phrase(term: str) -> str:
    """The heading as a noun phrase, in lower case: degree, what kind, side and place, then what it is."""
    said = natural(term)
    return said[0] if said else literal(term)


def plain(term: str) -> str:
    """A sentence that states the heading and nothing else."""
    if not ("/" in term or f.concepts_of_term(term)):
        text = term.strip()  # a reader's own words stay as they are
    else:
        text = (natural(term) or ("", ""))[1] or phrase(term)
    return f"{text[:1].upper()}{text[1:]}."


def hedged(term: str, rng: random.Random | None = None) -> str:
    """A sentence that leaves the heading open; without a generator the first form."""
    form = rng.choice(_HEDGED) if rng else _HEDGED[0]
    text = form.format(phrase(term))
    return f"{text[:1].upper()}{text[1:]}"


def joined(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def literal(term: str) -> str:
    """The heading's own words in a readable order: degree, side, other qualifiers, then the head."""
    head, rest = _parts(term)
    last, comma, first = head.partition(", ")
    head = f"{first} {last}" if comma else head  # "hernia, hiatal"
    # A lobe is the lung's; of words that the table does not know, the check asks for all.
    if any(q.endswith("lobe") for q in rest) and f.mentions(" ".join((*rest, head))):
        rest = [q for q in rest if q != "lung"]
    nouns = [q for q in rest if q in _NOUNS]
    degrees = [q for q in rest if q in DEGREES]
    sides = [q for q in rest if q in SIDES]
    others = [q for q in rest if q not in nouns + degrees + sides]
    return " ".join([*degrees, *sides, *others, head, *nouns])


def _parts(term: str) -> tuple[str, list[str]]:
    head, *rest = (" ".join(part.lower().split()) for part in term.split("/"))
    return head, [q for q in dict.fromkeys(rest) if q and q != head]


@lru_cache(maxsize=4096)
def natural(term: str) -> tuple[str, str] | None:
    """What the tables make of a heading: (noun phrase, a sentence without its full stop or ""); None where they have no
    words for it, or none in which the check finds it again.
    """
    head, rest = _parts(term)
    said = _said(head, rest)
    if said is None or not all(_holds(f"{text[:1].upper()}{text[1:]}.", term) for text in said if text):
        return None
    return said


def _holds(text: str, term: str) -> bool:
    """Whether the check finds the heading in the sentence, and nothing else."""
    card = Evidence("E1", "finding", f.region_of_term(term), term, source="reader", status="accepted")
    return verify.supported(text, card) and verify.states(text, card)


def _said(head: str, rest: list[str]) -> tuple[str, str] | None:
    degree = next((q for q in rest if q in DEGREES), "")
    side = next((q for q in rest if q in SIDES), "")
    places = [q for q in rest if q in _PLACES]
    kinds = [q for q in rest if q not in (degree, side) and q not in places]
    if head == "technical quality of image unsatisfactory":
        return "limited technical quality of the image", "the technical quality of the image is limited"
    if head == "lung" or head in ("aorta", "aorta, thoracic", "cardiac shadow", "mediastinum", "pulmonary artery"):
        return _structure(head, degree, side, places, kinds)
    if head in _DEGENERATIVE and "degenerative" in kinds:
        kinds = ["multilevel" if q == "multiple" else q for q in kinds if q != "degenerative"]
        where = _the(_DEGENERATIVE[head], side)
        return _row(degree, *kinds, "degenerative changes of", where), ""
    if head in _OF_A_HALF or head == "diaphragmatic eventration":
        return _half(head, degree, side, places, kinds)
    if head == "shift":
        if len(places) != 1 or side not in ("left", "right"):
            return None
        return _row(degree, *kinds, _BEFORE.get(places[0], places[0]), "shift to the", side), ""
    if head == "scoliosis" and side in ("left", "right"):
        turned = "dextroscoliosis" if side == "right" else "levoscoliosis"
        return _of(_Noun(turned, place="of"), degree, "", places, kinds), ""
    if head == "pneumonectomy" and (lobe := next((q for q in places if q.endswith("lobe")), "")):
        return _row(degree, side, *kinds, lobe.removesuffix(" lobe"), "lobectomy"), ""
    if head == "calcinosis" and "lymph nodes" in places:
        where = [_BEFORE.get(q, q) for q in places if q not in ("lung", "lymph nodes")]
        return _row(degree, *kinds, "calcified", side, *where, "lymph nodes"), ""
    noun = _HEADS.get(head) or (None if ", " in head else _Noun(head))
    if noun is None:
        return None
    return (_of if noun.place else _before)(noun, degree, side, places, kinds), ""


def _before(noun: _Noun, degree: str, side: str, places: list[str], kinds: list[str]) -> str:
    """ "Mild streaky left basilar opacity"."""
    several = bool(noun.many) and (side == "bilateral" or bool({"multiple", "scattered", "diffuse"} & {*kinds}))
    near = [q for q in kinds if q in _NEAR]
    inside = [q for q in places if q != "lung"]
    if not inside and side in ("left", "right") and not near:
        inside = places  # "left lung opacity"
    where = [_BEFORE.get(q, q) for q in inside]
    if side == "bilateral" and where and where[0] in ("basilar", "apical"):
        side, where[0] = "", f"bi{where[0]}"
    kinds = sorted((q for q in kinds if q not in near), key=lambda q: q != "multiple")
    return _row(degree, *kinds, side, *where, *near, noun.many if several else noun.one)


def _of(noun: _Noun, degree: str, side: str, places: list[str], kinds: list[str]) -> str:
    """ "Mild osteopenia of the thoracic spine", "indwelling catheter in the left chest"."""
    several = bool(noun.many) and (side == "bilateral" or "multiple" in kinds)
    what = _row(degree, *kinds, noun.many if several else noun.one)
    inside = [q for q in places if q != "lung"] or places
    if not inside:
        if not side:
            return what
        return _row(what, f"on the {side}" if side != "bilateral" else "on both sides")
    where = " ".join(_AFTER.get(q, q) for q in inside)
    lead = "at" if where.endswith("valve") else noun.place
    return _row(what, lead, _the(where, side))


def _the(structure: str, side: str) -> str:
    if side == "bilateral":
        return f"both {structure}" if structure.endswith("s") else f"both {structure}s"
    return _row("the", side, structure)


def _structure(head: str, degree: str, side: str, places: list[str], kinds: list[str]) -> tuple[str, str] | None:
    """A structure and what it is like: "mildly tortuous aorta", "the lungs are hyperinflated"."""
    adverb = _ADVERBS.get(degree, "")
    if degree and not adverb:
        return None
    if head == "lung":
        if "hypoinflation" in kinds:
            if len(kinds) > 1 or places or side in ("left", "right"):
                where = _the("lung base" if "base" in places else "lung", side)
                others = [q for q in kinds if q != "hypoinflation"]
                return _row(degree, *others, "hypoinflation of", where), ""
            return _row(adverb, "low lung volumes"), ""
        if "hyperdistention" in kinds:
            if len(kinds) > 1 or places:
                return None
            lungs = _row("the", side, "lung") if side in ("left", "right") else "the lungs"
            verb = "is" if side in ("left", "right") else "are"
            return _row(degree, "hyperinflation of", lungs), _row(lungs, verb, adverb, "hyperinflated")
        if "hilum" in places:
            if "lymph nodes" in places and kinds == ["enlarged"]:
                return _row(adverb, "enlarged", side, "hilar lymph nodes"), ""
            if kinds == ["enlarged"]:
                return _row(degree, side, "hilar enlargement"), ""
            if kinds == ["prominent"]:
                return _row(adverb, "prominent", side, "hilum" if side in ("left", "right") else "hila"), ""
            return None
        if "interstitial" in kinds:
            return _before(_Noun("markings", "markings"), degree, side, places, kinds), ""
        return None
    states = [q for q in kinds if q in _STATES]
    if "lymph nodes" in places and head == "mediastinum" and states == kinds == ["enlarged"]:
        return _row(adverb, "enlarged", side, "mediastinal lymph nodes"), ""
    if not states or len(states) != len(kinds):
        return None
    name = {"aorta, thoracic": "thoracic aorta", "cardiac shadow": "cardiac silhouette"}.get(head, head)
    name = _row(*(_BEFORE.get(q, q) for q in places), name)
    if side == "bilateral":
        name = {"pulmonary artery": "pulmonary arteries"}.get(name, name)
        side = ""
    state = joined(states)
    verb = "are" if name.endswith("arteries") else "is"
    return _row(adverb, " ".join(states), side, name), _row("the", side, name, verb, adverb, state)


def _half(head: str, degree: str, side: str, places: list[str], kinds: list[str]) -> tuple[str, str] | None:
    """What comes in two halves: "mild blunting of both costophrenic angles", "the left hemidiaphragm is obscured"."""
    if head == "diaphragmatic eventration":
        head, kinds = "diaphragm", [*kinds, "eventration"]
    half = _OF_A_HALF[head] if side or head != "diaphragm" else "diaphragm"
    behind = [q for q in kinds if q in ("posterior", "anterior")]
    states = [q for q in kinds if q not in behind]
    if len(states) != 1 or [q for q in places if q not in ("lung", "pleura")]:
        return None
    where = _the(_row(*behind, half), side)
    if states[0] in _TURNED:
        return _row(degree, _TURNED[states[0]], "of", where), ""
    if states[0] == "obscured":
        verb = "are" if side == "bilateral" else "is"
        text = _row(where, verb, _ADVERBS.get(degree, ""), "obscured")
        return text.removeprefix("the "), text
    return None


def _row(*words: str) -> str:
    return " ".join(w for w in words if w)
