"""A sentence or a finding heading in → the clinical concepts that it states, and whether it affirms or denies them.

The corpus indexes each report with MeSH-like headings ("Cardiomegaly/mild", "Opacity/lung/base/left").  Radiologists
use several words for each, and several headings for one thing, so both sides are mapped to a small set of concepts.
The table is our own reading of the corpus's *training* reports; negation follows the idea of NegEx (Chapman et al.,
J Biomed Inform 2001;34:301-310): a cue negates what follows it up to the end of its clause, or what precedes it for a
few cues.  Hedged mentions ("may represent pneumonia") are told apart from plain ones.  What a normal
structure rules out ("the heart is normal in size") is read by `readings`; `mentions` holds only what is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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
        r"(?:pleural?|apical|fissural?|biapical)[^.;]{0,25}(?:thicken\w*|cap(?:ping)?\b)|thicken\w*[^.;]{0,20}"
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
        r"(?<!non)(?<!non-)(?<!un)calcifi\w*|calcinosis",
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
        ),
        r"degenerat\w*|spondyl\w*|osteophyt\w*|spurr?(?:ing|s)?\b|arthr\w*|dis[ck] (?:space|disease|height)|"
        r"(?:hypertrophic|productive) (?:change|spur)\w*|hyperostosis|endplate|dish\b",
        ("kyphosis", "scoliosis", "osteopenia"),
    ),
    Concept("scoliosis", "bones", ("scoliosis",), r"scolio\w*|curvature|dextro\w*|levo(?:scol|curv|conv)\w*"),
    Concept("kyphosis", "bones", ("kyphosis",), r"kypho\w*"),
    Concept(
        "fracture or deformity",
        "bones",
        (
            "fractures, bone",
            "deformity",
            "dislocations",
            "ribs",
            "humerus",
            "bone and bones",
            "funnel chest",
            "pectus carinatum",
        ),
        r"dislocat\w*|fractur\w*|deform\w*|compression|"
        r"wedg(?:e|ing)\b|pectus|exostos\w*|rib (?:anomal|irregular)\w*|callus",
    ),
    Concept(
        "osteopenia",
        "bones",
        ("bone diseases, metabolic", "osteoporosis"),
        r"metabolic bone disease|osteopeni\w*|osteoporo\w*|deminerali\w*",
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
        r"(?:mediastin\w*|paratracheal)[^.;]{0,30}(?:wid\w*|enlarg\w*|prominen\w*|full\w*)|"
        r"(?:wid|prominen)\w*[^.;]{0,20}mediastin\w*|pneumomediastinum",
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
        r"medical devices?|"
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
        r"(?:patient |respiratory )?motion|exposure|technique|technical quality|obscured by",
    ),
)

BY_NAME = {c.name: c for c in CONCEPTS}
NORMAL_TERM = "normal"
OTHERWISE_NORMAL = "otherwise normal"
NORMAL_TERMS = (NORMAL_TERM, OTHERWISE_NORMAL)

_COMPILED = tuple((c, re.compile(c.pattern, re.IGNORECASE)) for c in CONCEPTS)
_PRE_NEGATION = re.compile(
    r"\b(?:no(?! (?:(?:significant|interval|appreciable|substantial|definite|real) ){0,2}"
    r"(?:change|doubt|question|resolution|clearing)\b)|"
    r"not(?! (?:be )?(?:\w+ )?(?:excluded?|ruled? out|resolved?|cleared|absent|removed)\b| only\b)|"
    r"without(?! (?:\w+ )?(?:change|resolution|clearing)\b)|nor|negative for|free of|absence of|neither|denies|never|"
    r"clear of|rather than|(?<!no )(?<!without )(?:resolution|clearing) of|(?<!not )resolved|removal of|fails? to)\b",
    re.IGNORECASE,
)
_POST_NEGATION = re.compile(
    r"\b(?:(?:is|are|was|were) (?:not(?! only)|no longer) (?:\w+[ -])?(?:seen|identified|present|evident|visuali[sz]ed|"
    r"appreciated|demonstrated|enlarged|noted)|"
    r"(?:has|have) (?!not\b|never\b|incompletely\b|part)(?:\w+ )?(?:resolved|cleared|been removed)|"
    r"(?:is|are|was|were|been) (?:ruled out|excluded)|(?:is|are) (?:absent|normal|unremarkable|intact)|"
    r"not enlarged)\b",
    re.IGNORECASE,
)
# A hedge opens what follows it ("opacity that may represent pneumonia" states the opacity) ...
_PRE_HEDGE = re.compile(
    r"\b(?:may|might|could|possib\w*|potential\w*|probabl\w*|probabilit\w*|presum\w*|"
    r"likely|suggest\w*|suspicious|concern\w*|cannot|can not|versus|vs|"
    r"differential|question\w*|if|consider|represent\w*|consistent with|compatible with|suspect\w*|"
    r"evaluate|exclude|rule out|equivocal)\b",
    re.IGNORECASE,
)
# ... or what stands before it ("pneumonia cannot be excluded").
_POST_HEDGE = re.compile(
    r"\b(?:(?:is|are|was|were|remains?) (?:\w+ )?(?:possible|probable|suspected|questionable|questioned|considered|"
    r"unlikely|"
    r"equivocal|likely(?=\W*$)|an? (?:possibility|consideration|concern))|(?:cannot|not) (?:\w+ ){0,2}"
    r"(?:excluded|ruled out)|(?:may|might|could) (?:also )?be (?:present|seen|considered)|(?P<versus>versus|vs))\b",
    re.IGNORECASE,
)
_VERBS = r"(?:is|are|was|were|has|have|appears?|remains?)\b"
_VERB = re.compile(rf"\b{_VERBS}|\b(?:shows?|demonstrates?)\b", re.IGNORECASE)
_CLAUSE = re.compile(
    r"[;:]|,\s*(?:but|however|although|though|which|there (?:is|are))|"
    r"\b(?:but|however|although|except|other than|apart from|aside from)\b|"
    r"\band (?=there (?:is|are)\b)|,\s*(?=(?:\w+ ){1,3}(?:is|are) not\b)|"
    r"\band (?=(?:an? )?(?:possible|probable|questionable|suspected|likely)\b)|"
    rf",\s*(?:and )?(?=the (?:[\w-]+ ){{1,4}}{_VERBS})|"
    r",\s*(?=(?:mild|minimal|moderate|borderline)\b(?!.*\bn?or\b))|"  # "no effusion, mild cardiomegaly"
    rf"(?P<joint>\band (?=(?:[\w-]+ ){{1,5}}{_VERBS}))",
    re.IGNORECASE,
)
# Where a side or a degree stops to belong to a finding; "left and right" is one side's worth of words.
_SEGMENT = re.compile(
    r",|(?<!\bleft )(?<!\bright )\b(?:and|or|nor)\b|\b(?:and|or)\b(?! (?:left|right)\b)|\bwith(?:out)?\b", re.IGNORECASE
)
_CHAMBER = re.compile(r"\b(?:left|right) (?=atri\w+|ventric\w+|main|brachiocephalic)", re.IGNORECASE)  # no side
_DEGREES = {
    "low": re.compile(r"\b(?:mild(?:ly)?|minimal(?:ly)?|small|slight(?:ly)?|tiny|trace|borderline)\b", re.IGNORECASE),
    "middle": re.compile(r"\bmoderate(?:ly)?\b", re.IGNORECASE),
    "high": re.compile(r"\b(?:severe(?:ly)?|large|marked(?:ly)?|massive|extensive|overt|frank)\b", re.IGNORECASE),
}
_PLACES = {
    "upper": re.compile(r"\b(?:apex|apices|(?:bi)?apical|upper)\b", re.IGNORECASE),
    "lower": re.compile(r"\b(?:bases?|basal|(?:bi)?basilar|lower)\b", re.IGNORECASE),
}
_NORMAL_STATE = (
    r"(?:(?<!otherwise )(?<!not )(?<!limits of )(?<!limit of )(?<!top )(?<!near )"
    r"(?:normal(?:ly)?|unremarkable|clear(?! of)|midline|sharp|"
    r"intact)|within (?:normal )?limits|not (?:\w+ )?enlarged)\b"
)
_STATE = re.compile(_NORMAL_STATE, re.IGNORECASE)
_PARTLY = re.compile(r"\b(?:otherwise|remain(?:der|ing)|rest of|relatively)\b", re.IGNORECASE)
_OTHERS = re.compile(r"\b(?:other|another|additional|further)\b", re.IGNORECASE)
ACUTE = re.compile(r"\b(?:acute|displaced)\b", re.IGNORECASE)
# What a normal structure rules out: "the heart is normal in size" denies an enlarged one.
_NORMAL_STRUCTURES = tuple(
    (
        concepts,
        re.compile(
            rf"\b(?:{words})(?: [\w-]+){{0,6}}? {_NORMAL_STATE}|"
            rf"(?<!otherwise )\b(?:normal|clear|unremarkable|sharp|intact) (?!with|and)(?:[\w-]+ )?(?:{words})\b",
            re.IGNORECASE,
        ),
    )
    for words, concepts in (
        (r"heart|cardiac|cardiomediastin\w*", ("cardiomegaly",)),
        (r"(?:cardio)?mediastin\w*", ("mediastinal widening",)),
        (r"lungs?(?! volumes?)", ("opacity", "pneumonia", "atelectasis", "congestion")),
        (r"pulmonary vasc\w*|vascularity", ("congestion",)),
        (r"costophrenic \w+|pleural spaces?|sulci", ("blunting", "effusion")),
        (r"hil(?:a|um|ar)", ("adenopathy",)),
        (r"aorta", ("tortuous aorta",)),
        (r"trachea", ("shift",)),
        (r"osseous|bones|bony|ribs", ("fracture or deformity",)),
    )
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


@dataclass(frozen=True)
class Reading:
    """One place of a sentence that affirms or denies a concept, with the words that belong to it there.

    Attributes:
        sides: any of "left", "right"; of an affirmed finding without a side of its own, those of its clause.
        own_sides: those that stand right at the finding.
        degrees: any of "low", "middle", "high"; "acute" of bones.
        places: any of "upper", "lower" of a lung.
    """

    concept: str
    polarity: Polarity
    sides: frozenset[str]
    own_sides: frozenset[str]
    degrees: frozenset[str]
    places: frozenset[str]


def _clauses(sentence: str) -> list[str]:
    out, last = [], 0
    for cut in _CLAUSE.finditer(sentence):
        # "and" joins two sentences only where both have their verb; else it joins the items of a list.
        if cut["joint"] and not _VERB.search(sentence, last, cut.start()):
            continue
        out.append(sentence[last : cut.start()])
        last = cut.end()
    out.append(sentence[last:])
    return [c for c in out if c.strip()]


def _hits(clause: str) -> Iterator[tuple[str, Polarity, int, int]]:
    """Each place of a clause that names a concept: its name, polarity, start and end."""
    cue = _PRE_NEGATION.search(clause)
    post = _POST_NEGATION.search(clause)
    hedge = _PRE_HEDGE.search(clause)
    late = _POST_HEDGE.search(clause)
    reach = 0  # "low lung volumes with atelectasis versus scarring" leaves the lung volumes alone
    if late and late["versus"]:
        reach = max((c.end() for c in _SEGMENT.finditer(clause, 0, late.start())), default=0)
    for concept, pattern in _COMPILED:
        for hit in pattern.finditer(clause):
            polarity: Polarity = "present"
            if (cue and cue.start() <= hit.start()) or (post and post.end() >= hit.start()):
                polarity = "absent"
            elif (hedge and hedge.start() <= hit.start()) or (late and reach <= hit.start() <= late.end()):
                polarity = "possible"
            yield concept.name, polarity, hit.start(), hit.end()


@lru_cache(maxsize=65536)
def mentions(sentence: str) -> tuple[Mention, ...]:
    """The concepts that a sentence states, each with its strongest polarity (present > possible > absent)."""
    rank = {"absent": 0, "possible": 1, "present": 2}
    found: dict[str, Polarity] = {}
    for clause in _clauses(sentence):
        for concept, polarity, _, _ in _hits(clause):
            if concept not in found or rank[polarity] > rank[found[concept]]:
                found[concept] = polarity
    return tuple(Mention(name, polarity) for name, polarity in found.items())


@lru_cache(maxsize=65536)
def readings(sentence: str) -> tuple[Reading, ...]:
    """Every mention of a sentence with its side, degree and place, and what its normal structures rule out."""
    out = []
    affirmed = {m.concept for m in mentions(sentence) if m.polarity != "absent"}
    structures = () if _PARTLY.search(sentence) else _NORMAL_STRUCTURES  # "otherwise clear" rules nothing out
    for clause in _clauses(_CHAMBER.sub("", sentence)):
        whole = side_of(clause)
        hits = list(_hits(clause))
        for concepts, pattern in structures if _STATE.search(clause) else ():
            normal = None if affirmed.intersection(concepts) else pattern.search(clause)
            if normal:
                hits += [(concept, "absent", normal.start(), normal.end()) for concept in concepts]
        for concept, polarity, start, end in hits:
            cuts = list(_SEGMENT.finditer(clause))
            first = max((c.end() for c in cuts if c.end() <= start), default=0)
            last = min((c.start() for c in cuts if c.start() >= end), default=len(clause))
            near = clause[first:last]
            own = side_of(near)
            sides = own if own or polarity == "absent" else whole
            if polarity == "absent" and _OTHERS.search(near):
                continue  # "no other nodule" denies no nodule
            degrees = degrees_of(near)
            if BY_NAME[concept].region == "bones" and ACUTE.search(near):  # "no acute fracture" leaves an old one
                degrees |= {"acute"}
            out.append(Reading(concept, polarity, sides, own, degrees, places_of(near)))
    return tuple(out)


def degrees_of(text: str) -> frozenset[str]:
    """How much of it a text says there is: any of "low", "middle", "high"."""
    return frozenset(degree for degree, words in _DEGREES.items() if words.search(text))


def places_of(text: str) -> frozenset[str]:
    """Where in a lung a text says it is: any of "upper", "lower"."""
    return frozenset(place for place, words in _PLACES.items() if words.search(text))


@lru_cache(maxsize=65536)
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
    """The concepts of a term and those that ride along with it (calcified granuloma → calcification)."""
    own = concepts_of_term(term)
    said = {m.concept for m in mentions(term.replace("/", " ")) if m.polarity != "absent"}  # "Opacity/interstitial"
    return own | {other for name in own for other in BY_NAME[name].covers} | said


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
