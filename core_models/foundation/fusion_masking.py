"""Clinical notes → the same notes without what names or gives away the diagnosis.

Notes of published cases name the disease, its test, the outbreak's place and its dates; a model that reads those has
learned nothing.  What is masked: diseases and pathogens, tests and their results, treatments aimed at a pathogen,
contact and travel, places, dates.  What stays: complaints, history, signs, laboratory values, image findings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

MARK = "[MASK]"
LONGEST = 8_000
"""Characters of a note that are read."""

_PATHOGENS = (
    r"\S{0,40}covid\S{0,40}", r"[\w#-]*corona-?\s?vir\w*(?:-\d)?", r"\S{0,40}n-?cov\b\S{0,40}",
    r"\S{0,40}\bsars\b\S{0,40}", r"\S{0,40}sars-?cov\S{0,40}", r"\bcov-?2?\b", r"\bmers\b\S{0,40}", r"ards\b",
    r"acute respiratory distress(?: syndrome)?", r"pneumocyst\w*", r"jirove\w*", r"carinii", r"\bpcp\b", r"\bpjp\b",
    r"strepto\w*", r"pneumoniae", r"pneumococ\w*", r"staphylo\w*", r"\bmrsa\b", r"klebsiel\w*",
    r"legionel\w*\S{0,40}", r"\be\.?\s?coli\b", r"escherichia", r"mycoplasm\w*", r"chlamyd\w*", r"\w*influenza\w*",
    r"\bflu\b(?:-like)?", r"\bh1n1\b", r"varicel\w*", r"chicken\s?pox", r"zoster", r"herpes\w*", r"\bhsv\S{0,40}",
    r"\bcmv\b", r"cytomegalo\w*", r"\blipoid\b", r"aspirat\w*", r"tubercul\w*", r"\btb\b", r"mycobacter\w*",
    r"nocardi\w*", r"aspergill\w*", r"fung[iu]\w*", r"candid(?:a|ias[ei]s)\b", r"syphil\w*", r"\bhiv\b\S{0,40}",
    r"\baids\b", r"immunodeficiency", r"\bh[bc]v\b", r"adeno-?vir\w*", r"rhino-?vir\w*", r"metapneumo\w*", r"\brsv\b",
    r"\w*virus\w*", r"\w*-?viral\w*", r"virolog\w*", r"viraem\w*", r"virem\w*", r"\w*bacteri\w*", r"pathogen\w*",
    r"micro-?organism\w*", r"organisms?\b", r"\bcd\s?4\S{0,40}", r"opportunist\w*", r"organi[sz]ing", r"co-?rads?\b",
    r"\bovid\b", r"hepatitis(?: [abc])?",
)  # fmt: skip
_TESTS = (
    r"\S{0,40}\bpcr\b\S{0,40}", r"\w*swab\w*", r"\w*-?pharyngeal", r"\btest(?:s|ed|ing)?\b", r"positiv\w*",
    r"\S{0,40}-positive\b", r"negativ\w*", r"antigen\w*", r"antibod\w*", r"\big[gm]\b", r"serolog\w*", r"cultur\w*",
    r"\S{0,40}\brna\b\S{0,40}", r"\bdna\b", r"\S{0,40}-?genes?\b", r"assay\w*", r"\bpanels?\b", r"cycle threshold",
    r"\bct value\w*", r"reverse[ -]transcri\w*", r"polymerase", r"chain reaction", r"\w*fluorescence",
    r"real-?\s?time", r"lavage\w*", r"binax\w*", r"filmarray", r"biofire", r"biogerm", r"altona", r"genmark",
    r"\bkits?\b", r"diagnostics", r"confirm\w*", r"laborator(?:y|ies)-confirmed", r"notif\w*", r"\bcdc\b",
    r"centers? for disease\w*", r"specimen\w*",
)  # fmt: skip
_TREATMENTS = (
    r"\w+vir\b\S{0,40}", r"ribavirin", r"anti-?retrovir\w*", r"\bh?aart\b", r"\bart\b", r"interferon\w*",
    r"\w*chloroquine", r"kaletra", r"tamiflu", r"(?:tocili|sari|siltu|anakin|alemtu)\w*", r"amyndas",
    r"\bamy-?\S{0,40}", r"convalescent", r"plasma\b", r"plaquenil", r"co-?trimoxazole", r"sulfamethox\w*",
    r"trimethoprim\w*", r"pentamidine", r"cytokine\w*",
)  # fmt: skip
_EXPOSURE = (
    r"contacts?\b", r"expos\w*", r"travel\w*", r"\btrips?\b", r"journey\w*", r"return\w*", r"quarantin\w*",
    r"self-isolat\w*", r"isolat\w*", r"lock-?down", r"epidem\w*", r"pandem\w*", r"outbreak\w*", r"clusters?\b",
    r"(?:wet |seafood )?market\w*", r"cruise\w*", r"airport\w*", r"flights?\b", r"overseas", r"abroad", r"imported",
    r"index (?:case|patient)\w*", r"\bcase \d+\b", r"risk areas?", r"public health", r"incubation", r"transmi\w*",
    r"novel", r"visit(?:s|ed|ing|ors?)?\b", r"arriv\w*", r"touris\w*", r"anosmi\w*", r"ageusi\w*", r"dysgeusi\w*",
    r"endemic", r"flown", r"planes?\b", r"infectious diseases?", r"fever clinic", r"screening",
)  # fmt: skip
_PLACES = (
    r"wuhan", r"hubei", r"chin(?:a|ese)", r"wuchang", r"xiangyang", r"tongji", r"sichuan", r"chengdu", r"ningbo",
    r"shanghai", r"beijing", r"shenzhen", r"guangdong", r"zhejiang", r"hong kong", r"kowloon", r"princess margaret",
    r"maca[uo]", r"taiwan\w*", r"taoyuan", r"taipei", r"korea\w*", r"seoul", r"japan\w*", r"singapore", r"thai\w*",
    r"viet\s?nam\w*", r"hanoi", r"ho chi minh", r"cho ray", r"nepal\w*", r"india\w*", r"asian?\b", r"iran\w*",
    r"tehran", r"erfan", r"niyayesh", r"jordan\w*", r"ital(?:y|ian)\w*", r"florence", r"rome", r"venice", r"milan\w*",
    r"lombard\w*", r"vigevano", r"mortara", r"cuneo", r"careggi", r"san raffaele", r"spain", r"spanish", r"valencia",
    r"madrid", r"france", r"french", r"paris", r"marcy\S{0,40}", r"german\w*", r"hannover", r"munich", r"london",
    r"england", r"united kingdom", r"\buk\b", r"\bu\.k\.", r"ireland", r"australia\w*", r"melbourne", r"caribbean",
    r"tropical", r"uganda", r"toronto", r"canad\w*", r"washington", r"snohomish", r"seattle", r"chicago", r"florida",
    r"new york", r"carlsbad", r"california", r"united states", r"\busa\b", r"american?\b", r"caucasian", r"europe\w*",
    r"provinc\w*", r"county", r"\bcity\b", r"districts?\b", r"regions? of", r"people\S{0,40}s hospital",
    r"shengyurui", r"soundway", r"international", r"country",
)  # fmt: skip
_MONTH = r"(?:January|February|March|April|June|July|August|September|October|November|December)"
_SHORT = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
_EXACT = (
    rf"(?:\b\d{{1,2}}(?:st|nd|rd|th)? (?:of )?)?\b{_MONTH}\b(?: \d{{1,2}}(?:st|nd|rd|th)?\b(?!-))?",
    rf"\b\d{{1,2}}(?:st|nd|rd|th)? {_SHORT}\b", rf"\b{_SHORT}\b\.? ?\d{{1,2}}\b", r"\b(?:19|20)\d\d\b",
    r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b", r"\b\d{1,2}[./]\d{1,2}(?:[./]\d{2,4})\b", r"\bUS\b", r"\bON\b",
    r"\bET AL\b", r"\bCOP\b", r"#[A-Za-z][\w-]*",
)  # fmt: skip
_WORDS = re.compile(
    "|".join(rf"(?:(?<!\w){p})" for p in (*_PATHOGENS, *_TESTS, *_TREATMENTS, *_EXPOSURE, *_PLACES)), re.IGNORECASE
)
_CASED = re.compile("|".join(_EXACT))
_RUN = re.compile(rf"{re.escape(MARK)}(?:[\s,;/()-]*{re.escape(MARK)})+")


def masked(note: str) -> str:
    """A note with every naming of a diagnosis, test, treatment, contact, place or date as one "[MASK]"."""
    text = _CASED.sub(MARK, " ".join(note[:LONGEST].split()))
    text = _WORDS.sub(MARK, text)
    return _RUN.sub(MARK, text)


def unmarked(note: str) -> str:
    """A masked note without its marks: how often something was masked would give the diagnosis away as well."""
    return " ".join(note.replace(MARK, " ").split())


def words(note: str) -> set[str]:
    """The distinct words of a note in lower case, marks and numbers left out."""
    return set(re.findall(r"[a-z][a-z'-]+", unmarked(note).lower()))


def bag_of_words(notes: Sequence[str], least: int = 3) -> tuple[np.ndarray, tuple[str, ...]]:
    """Notes → (n, vocabulary) float32 0/1 and the vocabulary; words of fewer than `least` notes are left out."""
    sets = [words(n) for n in notes]
    counts: dict[str, int] = {}
    for one in sets:
        for word in one:
            counts[word] = counts.get(word, 0) + 1
    vocabulary = tuple(sorted(w for w, c in counts.items() if c >= least))
    return np.array([[float(w in s) for w in vocabulary] for s in sets], np.float32).reshape(
        len(notes), len(vocabulary)
    ), vocabulary
