"""Cleaned reports in → (prompt, target) pairs that teach a model to state its evidence and nothing else.

What a pair is made of, per study and epoch (all choices from one seeded generator):

- each sentence of the report is kept only if what it affirms is licensed by the study's finding headings
  (`findings.licensed`); a sentence with another finding, with a comparison, or with no known content is left out:
  no source, no assertion;
- a heading that no kept sentence states is not offered as a card, so that every card offered is written about;
- in a study with findings, its normal sentences rest on a card "otherwise normal"; half the time that card and
  those sentences are left out together, so that negatives are written only where the reader asserts them;
- sometimes a finding card and all that rests on it is left out;
- sentences of other studies that state the same finding stand in as retrieved priors and are cited; sometimes
  one with an unlicensed finding is put among them and must not be followed;
- synthetic measurement cards with our own sentences teach the placeholders.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from core_models.drafting import findings as f
from core_models.drafting import prompt
from core_models.drafting.statements import Line

MAX_STATEMENTS = 16


@dataclass(frozen=True)
class SourceReport:
    """A report ready for training: sentences already split, without de-identification marks.

    `findings` and `impression` are sentence tuples, `terms` the corpus's finding headings.
    """

    id: str
    indication: str
    findings: tuple[str, ...]
    impression: tuple[str, ...]
    terms: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One training pair: the model reads `prompt` and learns to write `target`."""

    id: str
    prompt: str
    target: str
    normal: bool


@dataclass(frozen=True)
class _Sentence:
    section: str
    text: str
    region: str
    normal: bool
    terms: frozenset[int]  # indexes into the study's terms that it states


# Structure names with the reading region they belong to: what a reader may call a segment.
STRUCTURES: tuple[tuple[str, str], ...] = (
    ("liver", "abdomen"),
    ("spleen", "abdomen"),
    ("right kidney", "abdomen"),
    ("left kidney", "abdomen"),
    ("stomach", "abdomen"),
    ("gallbladder", "abdomen"),
    ("pancreas", "abdomen"),
    ("urinary bladder", "abdomen"),
    ("right adrenal gland", "abdomen"),
    ("left adrenal gland", "abdomen"),
    ("colon", "abdomen"),
    ("right lung", "lungs"),
    ("left lung", "lungs"),
    ("right upper lobe", "lungs"),
    ("right lower lobe", "lungs"),
    ("left lower lobe", "lungs"),
    ("nodule in the right upper lobe", "lungs"),
    ("lung nodule", "lungs"),
    ("consolidation", "lungs"),
    ("left pleural effusion", "pleura"),
    ("right pleural effusion", "pleura"),
    ("heart", "heart"),
    ("left ventricle", "heart"),
    ("right ventricle", "heart"),
    ("left atrium", "heart"),
    ("myocardium", "heart"),
    ("aorta", "mediastinum"),
    ("inferior vena cava", "mediastinum"),
    ("trachea", "mediastinum"),
    ("oesophagus", "mediastinum"),
    ("mediastinal lymph node", "mediastinum"),
    ("mass", "other"),
    ("lesion", "other"),
    ("structure 1", "other"),
    ("structure 2", "other"),
    ("structure 3", "other"),
    ("target lesion 1", "other"),
    ("muscle", "other"),
    ("prostate", "other"),
    ("brain", "other"),
    ("vertebra", "bones"),
    ("vertebra T12", "bones"),
    ("vertebra L1", "bones"),
    ("rib", "bones"),
    ("sternum", "bones"),
    ("spinal cord", "bones"),
    ("right femur", "bones"),
    ("left clavicle", "bones"),
)

# What is measured on a segment; the same words stand on the board's cards.
QUANTITIES = ("volume", "mean attenuation", "longest axial diameter", "area", "mean signal")


def card_text(structure: str, quantity: str) -> str:
    """The words of a measurement card."""
    return f"{structure}: {quantity}"


def measurement_sentence(structure: str, values: dict[str, str]) -> str:
    """Our own sentence for the measured quantities; `values` maps a quantity to its placeholder."""
    size = [
        f"a{'n' if quantity == 'area' else ''} {quantity} of {values[quantity]}"
        for quantity in ("volume", "area", "longest axial diameter")
        if quantity in values
    ]
    mean = next((f"a {q} of {values[q]}" for q in ("mean attenuation", "mean signal") if q in values), None)
    parts = size + ([mean] if mean else [])
    joined = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return f"The {structure} has {joined}."


def _words(term: str, rng: random.Random) -> str:
    """A heading as the board may hold it: as the corpus writes it, or as a reader would type it."""
    head, *rest = term.split("/")
    if rng.random() < 0.5:
        return ", ".join([head, *rest]) if rng.random() < 0.3 else "/".join([head, *rest])
    rng.shuffle(rest)
    return " ".join([*rest, head]).lower()


def readable(term: str) -> str:
    """A heading as a person reads it ("Opacity/lung/base/left" → "Opacity, lung, base, left")."""
    return ", ".join(part.strip() for part in term.split("/"))


class Dataset:
    """All training reports, read once; `examples(epoch)` draws that epoch's pairs."""

    def __init__(self, reports: Sequence[SourceReport], seed: int = 0) -> None:
        self.seed = seed
        self.reports: list[tuple[SourceReport, tuple[str, ...], list[_Sentence]]] = []
        self.by_concept: dict[str, list[tuple[str, str]]] = defaultdict(list)  # concept → (study, sentence)
        for report in reports:
            read = _read(report)
            if read is None:
                continue
            terms, sentences = read
            self.reports.append((report, terms, sentences))
            for sentence in sentences:
                for mention in f.mentions(sentence.text):
                    if mention.polarity == "present":
                        self.by_concept[mention.concept].append((report.id, sentence.text))

    def __len__(self) -> int:
        return len(self.reports)

    def examples(self, epoch: int) -> list[Example]:
        """This epoch's pairs, one or two per study, in a fixed order."""
        rng = random.Random(f"{self.seed}/{epoch}")
        out = [self.example(k, rng) for k in range(len(self.reports))]
        # Studies that have nothing but measurements (a CT without a reader's finding) are one in twelve.
        out += [_measurements_only(rng, k) for k in range(len(self.reports) // 12)]
        return [e for e in out if e is not None]

    def example(self, k: int, rng: random.Random | None) -> Example | None:
        """Study k as a pair; without a generator, the plain pair (all cards, no priors, nothing left out)."""
        report, terms, sentences = self.reports[k]
        plain = rng is None
        rng = rng or random.Random(0)
        has_findings = any(not s.normal for s in sentences)
        keep = set(range(len(terms)))
        if not plain and has_findings and len(keep) > 1 and rng.random() < 0.15:
            keep.discard(rng.choice(sorted(keep)))
        normals = plain or not has_findings or rng.random() < 0.5
        kept = [s for s in sentences if (s.normal and normals) or (not s.normal and s.terms and s.terms <= keep)]
        used = {t for s in kept for t in s.terms}
        cards = [prompt.Line(f.region_of_term(terms[t]), terms[t] if plain else _words(terms[t], rng)) for t in used]
        order = list(used)
        if any(s.normal for s in kept):
            cards.append(prompt.Line("other", f.OTHERWISE_NORMAL if has_findings else f.NORMAL_TERM))
            order.append(-1)
        if not kept:
            return None
        measured: list[tuple[str, str, dict[str, int]]] = []
        if not plain and rng.random() < 0.2:
            measured = _measurements(rng, rng.choice((1, 1, 2, 3)), cards)
            order += [-2] * (len(cards) - len(order))
        # The board's order is the order of arrival, not of the text: shuffle, then number.
        shuffled = list(range(len(cards)))
        if not plain:
            rng.shuffle(shuffled)
        place = {old: new for new, old in enumerate(shuffled)}
        name = {term: f"E{place[pos] + 1}" for pos, term in enumerate(order) if term != -2}
        priors = [] if plain else self._priors(report.id, [terms[t] for t in used], rng)
        lines = []
        for s in kept[:MAX_STATEMENTS]:
            ids = [name[-1]] if s.normal else sorted((name[t] for t in s.terms), key=_number)
            ids += [f"P{p + 1}" for p, text in enumerate(priors) if not s.normal and _alike(s.text, text)]
            section = "findings" if s.section == "F" else "impression"
            lines.append(Line(section, s.region, tuple(ids), "normal" if s.normal else "present", s.text))
        extra = [_measured_line(m, place) for m in measured]
        split = next((n for n, line in enumerate(lines) if line.section == "impression"), len(lines))
        lines[split:split] = extra
        ordered = [cards[old] for old in shuffled]
        text = prompt.build(report.indication, ordered, priors)
        return Example(report.id, text, "\n".join(x.format() for x in lines), not has_findings)

    def _priors(self, study: str, terms: list[str], rng: random.Random) -> list[str]:
        if rng.random() < 0.4:
            return []
        out = []
        concepts = [c for t in terms for c in sorted(f.concepts_of_term(t)) if self.by_concept[c]]
        rng.shuffle(concepts)
        for concept in concepts[: prompt.MAX_PRIORS]:
            other, text = rng.choice(self.by_concept[concept])
            if other != study:
                out.append(text)
        if rng.random() < 0.35:  # a prior that says something else: evidence comes first
            allowed = set().union(*(f.licensed(t) for t in terms)) if terms else set()
            foreign = [c for c in self.by_concept if c not in allowed and self.by_concept[c]]
            other, text = rng.choice(self.by_concept[rng.choice(foreign)])
            if other != study:
                out.append(text)
        rng.shuffle(out)
        return out[: prompt.MAX_PRIORS]


def _number(name: str) -> int:
    return int(name[1:])


def _alike(sentence: str, other: str) -> bool:
    mine = {m.concept for m in f.mentions(sentence) if m.polarity != "absent"}
    return bool(mine & {m.concept for m in f.mentions(other) if m.polarity != "absent"})


def _read(report: SourceReport) -> tuple[tuple[str, ...], list[_Sentence]] | None:
    """The study's usable terms and sentences, or None when nothing is left to learn from."""
    heads = {t.strip().lower() for t in report.terms}
    if not report.terms or "no indexing" in heads:
        return None
    terms = tuple(t for t in report.terms if t.strip().lower() != f.NORMAL_TERM)
    allowed = [f.licensed(t) for t in terms]
    own = [f.concepts_of_term(t) for t in terms]
    sentences: list[_Sentence] = []
    seen: set[tuple[str, str]] = set()
    for section, group in (("F", report.findings), ("I", report.impression)):
        for text in group:
            key = (section, text.lower())
            if key in seen or len(text) > prompt.MAX_PRIOR * 2 or f.has_comparison(text) or re.search(r"[{}<>]", text):
                continue
            seen.add(key)
            if f.is_normal(text):
                sentences.append(_Sentence(section, text, f.region_of(text), True, frozenset()))
                continue
            affirmed = {m.concept for m in f.mentions(text) if m.polarity != "absent"}
            if not affirmed:
                continue
            sides = f.side_of(text)
            stated = frozenset(
                t
                for t in range(len(terms))
                if own[t] & affirmed and (not sides or not f.side_of(terms[t]) or sides & f.side_of(terms[t]))
            )
            license_ = set().union(*(allowed[t] for t in stated)) if stated else set()
            if stated and affirmed <= license_:
                sentences.append(_Sentence(section, text, f.region_of(text), False, stated))
    if not terms and not any(s.normal for s in sentences):
        return None
    return (terms, sentences) if sentences else None


def _measurements(rng: random.Random, count: int, cards: list[prompt.Line]) -> list[tuple[str, str, dict[str, int]]]:
    """Append measurement cards for `count` structures to `cards`; say which card holds which quantity."""
    out = []
    for structure, region in rng.sample(STRUCTURES, count):
        kind = rng.random()
        if kind < 0.6:
            wanted = ("volume", "mean attenuation", "longest axial diameter")
        elif kind < 0.85:
            wanted = ("volume", "mean signal", "longest axial diameter")
        else:
            wanted = ("area", "longest axial diameter")
        if rng.random() < 0.3:
            wanted = tuple(sorted(rng.sample(wanted, rng.randint(1, len(wanted))), key=wanted.index))
        where = {}
        for quantity in wanted:
            where[quantity] = len(cards)
            cards.append(prompt.Line(region, card_text(structure, quantity), measured=True))
        out.append((structure, region, where))
    return out


def _measured_line(measured: tuple[str, str, dict[str, int]], place: dict[int, int]) -> Line:
    structure, region, where = measured
    names = {quantity: f"E{place[old] + 1}" for quantity, old in where.items()}
    text = measurement_sentence(structure, {q: "{" + n + "}" for q, n in names.items()})
    return Line("findings", region, tuple(sorted(names.values(), key=_number)), "measured", text)


def _measurements_only(rng: random.Random, k: int) -> Example:
    cards: list[prompt.Line] = []
    measured = _measurements(rng, rng.choice((1, 2, 2, 3, 4, 5)), cards)
    place = {n: n for n in range(len(cards))}
    indication = rng.choice(("", "", "Abdominal pain.", "Follow-up.", "Staging.", "Trauma.", "Spleen volume."))
    modality = rng.choice(("CT", "CT", "MR", "radiograph"))
    target = "\n".join(_measured_line(m, place).format() for m in measured)
    return Example(f"measurements-{k}", prompt.build(indication, cards, (), modality), target, False)
