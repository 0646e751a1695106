"""A sentence or a finding heading in → the clinical concepts that it states, and whether it affirms or denies them.

The corpus indexes each report with MeSH-like headings ("Cardiomegaly/mild", "Opacity/lung/base/left").  Radiologists
use several words for each, and several headings for one thing, so both sides are mapped to a small set of concepts.
The table is our own reading of the corpus's *training* reports; negation follows the idea of NegEx (Chapman et al.,
J Biomed Inform 2001;34:301-310): a cue negates what follows it up to the end of its clause, or what precedes it for a
few cues.  Hedged mentions ("may represent pneumonia") are told apart from plain ones.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

Polarity = Literal["present", "absent", "possible"]


@dataclass(frozen=True)
class Concept:
    """One finding: its region, the heading heads that index it, and a pattern of the words that state it."""

    name: str
    region: str
    heads: tuple[str, ...]
    pattern: str
    covers: tuple[str, ...] = ()  # concepts that a card of this one also licenses a sentence to mention


CONCEPTS: tuple[Concept, ...] = (
    Concept(
        "cardiomegaly",
        "heart",
        ("cardiomegaly", "cardiac shadow", "heart", "heart atria", "heart ventricles"),
        r"cardiomegaly|cardiac enlargement|enlarge(?:d|ment)(?: of)?(?: the)? (?:heart|cardiac)|"
        r"(?:heart|cardiac|cardiomediastinal)(?: size| silhouette| shadow| contours?| is| are| remains?| appears?|"
        r" mildly| moderately| markedly| borderline| slightly| again| stably| and| the| within| at| upper| limits| of|"
        r" normal| in size| to be| which){0,8} (?:enlarge(?:d|ment)|prominent|large)\b|"
        r"upper limits? (?:of )?normal|borderline (?:heart|cardiac|cardiomegaly|in size|enlarged)",
    ),
    Concept("pericardial effusion", "heart", ("pericardial effusion",), r"pericardial (?:effusion|fluid)"),
    Concept(
        "effusion",
        "pleura",
        ("pleural effusion", "hydropneumothorax", "hemopneumothorax", "hemothorax"),
        r"(?<!pericardial )effusions?|pleural fluid|h(?:a)?emothorax|hydropneumothorax",
        ("blunting", "opacity"),
    ),
    Concept(
        "pneumothorax",
        "pleura",
        ("pneumothorax", "hydropneumothorax", "hemopneumothorax"),
        r"pneumothora(?:x|ces)|hydropneumothorax",
    ),
    Concept(
        "blunting",
        "pleura",
        ("costophrenic angle", "sulcus", "pleura"),
        r"blunt(?:ed|ing)|(?:costophrenic|sulcus|sulci)[^.;]{0,30}(?:obscured|indistinct)",
        ("effusion", "pleural thickening"),
    ),
    Concept(
        "pleural thickening",
        "pleura",
        ("thickening",),
        r"(?:pleural|apical|fissural?|biapical)[^.;]{0,25}(?:thicken\w*|cap(?:ping)?\b)|thicken\w*[^.;]{0,20}"
        r"(?:pleura\w*|fissure)",
        ("scarring", "blunting"),
    ),
    Concept(
        "atelectasis",
        "lungs",
        ("pulmonary atelectasis", "volume loss"),
        r"atelecta\w*|volume loss|collapsed?\b(?! vertebr)",
        ("opacity", "scarring", "hypoinflation"),
    ),
    Concept(
        "opacity",
        "lungs",
        ("opacity", "airspace disease", "infiltrate", "consolidation", "density"),
        r"opacit\w*|opacifi\w*|infiltrat\w*|consolidat\w*|air ?-?space (?:disease|process)|densit(?:y|ies)|"
        r"(?:focal|patchy) disease|silhouetting",
        ("pneumonia", "atelectasis", "scarring"),
    ),
    Concept("pneumonia", "lungs", ("pneumonia",), r"pneumoni\w*(?<!pneumoniae)", ("opacity",)),
    Concept(
        "granuloma",
        "lungs",
        ("calcified granuloma", "granulomatous disease", "granuloma", "sarcoidosis"),
        r"granulom\w*|histoplasm\w*|ghon|sarcoid\w*",
        ("calcification", "nodule"),
    ),
    Concept(
        "calcification",
        "mediastinum",
        ("calcinosis",),
        r"(?<!non)(?<!non-)(?<!un)calcifi\w*",
        ("atherosclerosis", "granuloma", "nodule", "adenopathy"),
    ),
    Concept(
        "atherosclerosis",
        "mediastinum",
        ("atherosclerosis",),
        r"athero\w*|arteriosclero\w*|(?:calcifi\w*[^.;]{0,30}aort\w*)|(?:aort\w*[^.;]{0,30}calcifi\w*)",
        ("calcification", "tortuous aorta"),
    ),
    Concept(
        "tortuous aorta",
        "mediastinum",
        ("aorta", "aorta, thoracic", "aortic aneurysm", "blood vessels"),
        r"tortu\w*|\bectati\w*|\bectasia|unfold\w*|uncoil\w*|aneurysm\w*|"
        r"aort(?:a|ic)[^.;]{0,25}(?:dilat\w*|enlarged|prominent|elongat\w*)",
        ("atherosclerosis", "calcification"),
    ),
    Concept(
        "hypoinflation",
        "lungs",
        ("lung/hypoinflation",),
        r"hypoinflat\w*|hypoaerat\w*|hypoventil\w*|underinflat\w*|(?:low|small|diminished|decreased|shallow|poor|"
        r"reduced)(?: lung)? (?:lung )?(?:volumes?|inspir\w*|inflation|aeration)|expirat\w*|"
        r"low inspiratory|lung volumes (?:are |remain )?(?:\w+ )?(?:low|diminished|decreased|small)",
        ("crowding", "atelectasis"),
    ),
    Concept(
        "crowding",
        "lungs",
        (),
        r"crowd\w*|accentuat\w*",
    ),
    Concept(
        "hyperinflation",
        "lungs",
        (
            "lung/hyperdistention",
            "emphysema",
            "pulmonary emphysema",
            "pulmonary disease, chronic obstructive",
            "lung, hyperlucent",
            "bullous emphysema",
            "blister",
        ),
        r"hyper-?inflat\w*|hyper-?expan\w*|hyper-?aerat\w*|hyper-?disten\w*|hyperlucen\w*|(?<!subcutaneous )"
        r"emphysem\w*|copd|chronic obstructive|air trapping|bulla\w*|bullous|blebs?|large lung volumes|"
        r"increased lung volumes|obstructive (?:lung|pulmonary|airway)",
        ("flattened diaphragm", "lucency"),
    ),
    Concept(
        "flattened diaphragm",
        "pleura",
        ("diaphragm/flattened",),
        r"flatten\w*",
        ("hyperinflation",),
    ),
    Concept(
        "elevated diaphragm",
        "abdomen",
        ("diaphragm", "diaphragmatic eventration"),
        r"eventrat\w*|(?:hemi)?-?diaphragm\w*[^.;]{0,30}(?:elevat\w*|tent\w*|obscur\w*)|elevat\w*[^.;]{0,25}"
        r"(?:hemi)?-?diaphragm\w*",
    ),
    Concept("hernia", "abdomen", ("hernia, hiatal", "hernia, diaphragmatic"), r"herni\w*|morgagni|bochdalek"),
    Concept(
        "free air",
        "abdomen",
        ("pneumoperitoneum", "abdomen"),
        r"free (?:intraperitoneal |intra-abdominal )?(?:air|gas)|pneumoperitoneum",
    ),
    Concept(
        "degenerative spine",
        "bones",
        (
            "thoracic vertebrae",
            "spine",
            "spondylosis",
            "osteophyte",
            "lumbar vertebrae",
            "cervical vertebrae",
            "arthritis",
            "shoulder",
            "hyperostosis, diffuse idiopathic skeletal",
            "dislocations",
        ),
        r"degenerat\w*|spondyl\w*|osteophyt\w*|spurr?(?:ing|s)?\b|arthr\w*|dis[ck] (?:space|disease|height)|"
        r"(?:hypertrophic|productive) (?:change|spur)\w*|hyperostosis|dislocat\w*|endplate|dish\b",
        ("kyphosis", "scoliosis", "osteopenia"),
    ),
    Concept("scoliosis", "bones", ("scoliosis",), r"scolio\w*|curvature|dextro\w*|levo(?:scol|curv|conv)\w*"),
    Concept("kyphosis", "bones", ("kyphosis",), r"kypho\w*"),
    Concept(
        "fracture or deformity",
        "bones",
        ("fractures, bone", "deformity", "ribs", "humerus", "bone and bones", "funnel chest", "pectus carinatum"),
        r"fractur\w*|deform\w*|compression|wedg(?:e|ing)\b|pectus|exostos\w*|rib (?:anomal|irregular)\w*|callus",
    ),
    Concept(
        "osteopenia",
        "bones",
        ("bone diseases, metabolic", "osteoporosis"),
        r"osteopeni\w*|osteoporo\w*|deminerali\w*",
    ),
    Concept(
        "bone lesion",
        "bones",
        ("sclerosis", "expansile bone lesions"),
        r"\bscleroti?c?\b|\bsclerosis|(?:lytic|blastic|osseous|bone|bony) (?:lesion|destruct)\w*",
    ),
    Concept(
        "scarring",
        "lungs",
        ("cicatrix", "pulmonary fibrosis", "fibrosis", "cystic fibrosis", "tuberculosis"),
        r"scar(?:s|ring|red)?\b|fibro\w*|cicatri\w*|tubercul\w*",
        ("atelectasis", "opacity", "pleural thickening", "markings"),
    ),
    Concept(
        "markings",
        "lungs",
        ("markings", "lung diseases, interstitial", "bronchitis", "bronchiolitis", "bronchiectasis", "lung"),
        r"interstitial|reticul\w*|(?:bronchovascular|lung|peribronchial|bronchial|perihilar) (?:markings?|thicken\w*|"
        r"prominence|cuffing|interstit\w*)|prominent (?:\w+ )?markings|bronchi(?:tis|olitis|ectasis|ectatic)",
        ("congestion", "scarring", "opacity", "crowding"),
    ),
    Concept(
        "nodule",
        "lungs",
        ("nodule", "mass", "cysts", "nipple shadow"),
        r"nodul\w*|\bmass(?:es)?\b|nipple|neoplas\w*|malignan\w*|tumou?r|lesions?\b|metasta\w*|cancer",
        ("granuloma", "opacity", "calcification"),
    ),
    Concept(
        "congestion",
        "lungs",
        ("pulmonary congestion", "pulmonary edema", "heart failure"),
        r"congest\w*|o?edema\w*|cephaliz\w*|(?:heart|cardiac) failure|\bchf\b|fluid overload|"
        r"vascular(?:ity|ature)?[^.;]{0,25}(?:prominen\w*|engorg\w*|increased|distend\w*|indistinct)|"
        r"(?:prominen\w*|engorg\w*|increased)[^.;]{0,20}(?:pulmonary )?(?:vasc\w*|vessels)|kerley",
        ("markings", "opacity", "effusion"),
    ),
    Concept(
        "pulmonary artery",
        "mediastinum",
        ("pulmonary artery", "hypertension, pulmonary"),
        r"pulmonary (?:arter\w*|hypertension)|hypertension",
        ("adenopathy",),
    ),
    Concept(
        "mediastinal widening",
        "mediastinum",
        ("mediastinum", "mediastinal emphysema"),
        r"(?:mediastin\w*|paratracheal)[^.;]{0,30}(?:wid\w*|enlarg\w*|prominen\w*|full\w*)|wid\w*[^.;]{0,20}"
        r"mediastin\w*|pneumomediastinum",
    ),
    Concept(
        "adenopathy",
        "mediastinum",
        ("lymph nodes", "lung/hilum"),
        r"adenopath\w*|lymph ?-?nodes?|hil(?:ar|um|a)\b[^.;]{0,25}(?:enlarg\w*|prominen\w*|full\w*)|prominen\w*"
        r"[^.;]{0,15}hil(?:ar|um|a)\b",
        ("calcification",),
    ),
    Concept("shift", "mediastinum", ("shift", "trachea", "trachea, carina"), r"shift\w*|deviat\w*"),
    Concept("fat pad", "heart", ("epicardial fat", "adipose tissue"), r"fat pads?|epicardial fat|pericardial fat"),
    Concept(
        "lucency",
        "lungs",
        ("lucency", "cavitation", "lung, hyperlucent"),
        r"lucen\w*|cavit(?:ary|y|ies|ation)\b|cystic",
        ("hyperinflation",),
    ),
    Concept(
        "subcutaneous emphysema",
        "other",
        ("subcutaneous emphysema", "subcutaneous  emphysema"),
        r"subcutaneous (?:emphysema|air|gas)",
    ),
    Concept(
        "device",
        "devices",
        (
            "catheters, indwelling",
            "surgical instruments",
            "implanted medical device",
            "medical device",
            "tube, inserted",
            "stents",
            "spinal fusion",
            "sutures",
            "foreign bodies",
            "breast implants",
            "contrast media",
            "mastectomy",
            "pneumonectomy",
            "colonic interposition",
            "cholelithiasis",
        ),
        r"catheters?|\blines?\b(?! shadow)|\bports?\b|port-?a-?cath|mediport|picc|pacemaker|pacer|pacing|"
        r"defibrillat\w*|\baicd\b|\bicd\b|\bleads?\b|\bclips?\b|\bwires?\b|sternotom\w*|cabg|sutures?|\bstents?\b|\btubes?\b|"
        r"prosthe\w*|hardware|\bplates?\b(?!like)|screws?|\bfusions?\b|\brods?\b|implants?|surg\w*|foreign bod\w*|"
        r"staples?|bypass|mastectom\w*|lobectom\w*|pneumonectom\w*|resect\w*|post-?operat\w*|generator|stimulator|electrodes?|"
        r"tracheostom\w*|cholecystectom\w*|metallic|replacement|filter|valve",
    ),
    Concept(
        "image quality",
        "other",
        ("technical quality of image unsatisfactory", "no indexing"),
        r"rotat(?:ed|ion)|limited (?:\w+ )?(?:exam|study|evaluation|by)|underpenetrat\w*|overpenetrat\w*|"
        r"(?:patient |respiratory )?motion|exposure|technique|obscured by",
    ),
)

BY_NAME = {c.name: c for c in CONCEPTS}
NORMAL_TERM = "normal"
OTHERWISE_NORMAL = "otherwise normal"
NORMAL_TERMS = (NORMAL_TERM, OTHERWISE_NORMAL)

_COMPILED = tuple((c, re.compile(c.pattern, re.IGNORECASE)) for c in CONCEPTS)
_PRE_NEGATION = re.compile(
    r"\b(?:no(?! (?:\w+ )?change)|not|without|nor|negative for|free of|absence of|neither|denies|never|clear of|"
    r"rather than|ruled? out|resolution of|resolved|removal of|no evidence of|fails? to)\b",
    re.IGNORECASE,
)
_POST_NEGATION = re.compile(
    r"\b(?:(?:is|are|was|were) (?:not|no longer) (?:\w+ )?(?:seen|identified|present|evident|visuali[sz]ed|"
    r"appreciated|demonstrated|enlarged|noted)|(?:has|have) (?:\w+ )?(?:resolved|cleared|been removed)|"
    r"(?:is|are) (?:absent|normal|unremarkable|intact)|not enlarged)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:may|might|could|possib\w*|probabl\w*|likely|suggest\w*|suspicious|concern\w*|cannot|versus|vs|differential|"
    r"question\w*|if|consider|represent\w*|recommend\w*|correlat\w*|appearance of|consistent with|compatible with|"
    r"suspected|evaluate|exclude)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"[;:]|,\s*(?:but|however|although|though|which|there (?:is|are))|\b(?:but|however|although|except)\b"
    r"|\band (?=there (?:is|are)\b)|,\s*(?=(?:\w+ ){1,3}(?:is|are) not\b)"
)
_NORMAL_WORDS = re.compile(
    r"\b(?:normal(?:ly)?|clear|unremarkable|intact|within (?:normal )?limits|negative|no acute|midline|sharp|"
    r"unchanged in size|well[- ](?:expanded|aerated|inflated|defined)|patent|preserved|no active|grossly clear|"
    r"no (?:\w+ )?evidence of|not enlarged|free of)\b",
    re.IGNORECASE,
)
_COMPARISON = re.compile(
    r"\b(?:compar\w*|prior|previous\w*|unchanged|interval|stable|stably|again (?:seen|noted|demonstrated)|since|"
    r"(?:has|have) (?:resolved|improved|increased|decreased|worsened|developed|progressed)|improv\w*|worsen\w*|"
    r"new(?:ly)?|persist\w*|remains?|old exam|earlier|no (?:\w+ ){0,2}change|continue[sd]?)\b",
    re.IGNORECASE,
)
_REGION_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (region, re.compile(words, re.IGNORECASE))
    for region, words in (
        ("pleura", r"pleura\w*|effusion\w*|pneumothora\w*|costophrenic|\bsulc\w*"),
        ("heart", r"\bheart\b|cardiac|cardio\w*|ventric\w*|atri\w*"),
        ("mediastinum", r"mediastin\w*|hil(?:ar|um|a)\b|aort\w*|trachea\w*"),
        ("bones", r"bon(?:e|es|y)\b|osseous|skelet\w*|spine|spinal|vertebra\w*|ribs?\b|thorax|clavic\w*|shoulder\w*"),
        ("abdomen", r"abdom\w*|diaphragm\w*|bowel|stomach|hiatal|liver|spleen|kidney\w*|gallbladder|pancrea\w*"),
        ("lungs", r"lungs?\b|pulmonary|airspace|air space|parenchym\w*|lobes?\b|basilar|bibasilar|apic\w*|vascul\w*"),
    )
)


@dataclass(frozen=True)
class Mention:
    """One concept as a sentence states it."""

    concept: str
    polarity: Polarity


def _clauses(sentence: str) -> list[str]:
    out, last = [], 0
    for cut in _CLAUSE.finditer(sentence):
        out.append(sentence[last : cut.start()])
        last = cut.end()
    out.append(sentence[last:])
    return [c for c in out if c.strip()]


@lru_cache(maxsize=65536)
def mentions(sentence: str) -> tuple[Mention, ...]:
    """The concepts that a sentence states, each with its strongest polarity (present > possible > absent)."""
    rank = {"absent": 0, "possible": 1, "present": 2}
    found: dict[str, Polarity] = {}
    for clause in _clauses(sentence):
        cue = _PRE_NEGATION.search(clause)
        post = _POST_NEGATION.search(clause)
        hedge = _HEDGE.search(clause)
        for concept, pattern in _COMPILED:
            for hit in pattern.finditer(clause):
                polarity: Polarity = "present"
                if (cue and cue.start() <= hit.start()) or (post and post.end() >= hit.start()):
                    polarity = "absent"
                elif hedge:
                    polarity = "possible"
                if concept.name not in found or rank[polarity] > rank[found[concept.name]]:
                    found[concept.name] = polarity
    return tuple(Mention(name, polarity) for name, polarity in found.items())


def concepts_of_term(term: str) -> frozenset[str]:
    """The concepts that a heading ("Opacity/lung/base/left") or a reader's own words license a sentence to state."""
    head, _, rest = term.strip().lower().partition("/")
    parts = set(rest.split("/")) if rest else set()
    out = set()
    for concept in CONCEPTS:
        for wanted in concept.heads:
            if wanted == head or ("/" in wanted and wanted.split("/")[0] == head and wanted.split("/", 1)[1] in parts):
                out.add(concept.name)
    # "Lung/hypoinflation" is its own concept, not "markings"; a flattened diaphragm is not an elevated one.
    if {"hypoinflation", "hyperinflation", "adenopathy"} & out:
        out.discard("markings")
    if "flattened diaphragm" in out:
        out.discard("elevated diaphragm")
    if not out and head not in NORMAL_TERMS:
        out = {m.concept for m in mentions(term.replace("/", " ")) if m.polarity != "absent"}
    return frozenset(out)


def licensed(term: str) -> frozenset[str]:
    """The concepts of a term and those that commonly ride along with it (calcified granuloma → calcification)."""
    own = concepts_of_term(term)
    return own | {other for name in own for other in BY_NAME[name].covers}


def side_of(text: str) -> frozenset[str]:
    """The sides that a text names: any of "left", "right" ("bilateral" gives both)."""
    lower = text.lower()
    out = {side for side in ("left", "right") if re.search(rf"\b{side}\b", lower)}
    if re.search(r"\b(?:bilateral\w*|both|bibasilar|biapical)\b", lower):
        out = {"left", "right"}
    return frozenset(out)


def is_normal(sentence: str) -> bool:
    """Whether a sentence states that things are as they should be, and nothing else."""
    stated = mentions(sentence)
    if any(m.polarity != "absent" for m in stated):
        return False
    return bool(stated) or bool(_NORMAL_WORDS.search(sentence))


def has_comparison(sentence: str) -> bool:
    """Whether a sentence compares with an earlier examination (which a draft without one cannot know)."""
    return bool(_COMPARISON.search(sentence))


def region_of(sentence: str) -> str:
    """The reading region of a sentence: that of its strongest mention, else of its words, else "other"."""
    stated = mentions(sentence)
    order = {"present": 0, "possible": 1, "absent": 2}
    if stated and min(order[m.polarity] for m in stated) < 2:
        best = min(stated, key=lambda m: order[m.polarity])
        return BY_NAME[best.concept].region
    if re.search(r"cardio-?pulmonary|acute disease|active disease", sentence, re.IGNORECASE):
        return "other"  # the usual summary sentence belongs to no single region
    for region, words in _REGION_WORDS:
        if words.search(sentence):
            return region
    return BY_NAME[stated[0].concept].region if stated else "other"


def region_of_term(term: str) -> str:
    """The reading region of a finding heading."""
    names = concepts_of_term(term)
    for concept in CONCEPTS:
        if concept.name in names:
            return concept.region
    return region_of(term.replace("/", " "))


VOCABULARY = Path(__file__).resolve().parents[2] / "assets" / "findings" / "terms.json"


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """The corpus's own finding headings (training reports only), most frequent first, then the reader's own two."""
    return (OTHERWISE_NORMAL, *json.loads(VOCABULARY.read_text(encoding="utf-8")))
