"""Cleaned reports (and pictures) in → (prompt, target) pairs that teach a model to state its evidence and nothing else.

What a pair is made of, per study and epoch (all choices from one seeded generator):

- each sentence of the report is kept only if the check (`verify`) finds it supported by the cards of that pair: no
  source, no assertion; sentences that compare with an earlier study, hold a number or have no known content are out;
- a finding heading is offered as a card as it is, or as a proposal that only a hedged sentence may follow from;
- a heading that no kept sentence states gets a sentence made of its own words, or is not offered: every card that is
  offered is written about;
- in a study with findings, its normal sentences rest on a card "otherwise normal"; a quarter of the time that card and
  those sentences are left out together, so that negatives are written only where the reader asserts them;
- evidence is changed so that the model follows it and not the corpus's habits: a card and all that rests on it is left
  out; a finding of another study is put in with its sentence; left and right change places in cards and sentences;
  qualifiers are taken off a card and sentences that need them with it;
- sentences of other studies that state the same finding stand in as retrieved priors and are cited; sometimes
  one that states another finding, or denies a card's, is put among them and must not be followed;
- synthetic measurement cards with our own sentences teach the placeholders; none measures what a sentence denies;
- pictures come with the cards that their own caption or labels give; a caption's sentence, or one of the corpus that
  those cards support, is what follows;
- one pair in twelve asks for the sentences without the reasoning, so that reasoning can be measured by leaving it out.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core_models.drafting import findings as f
from core_models.drafting import phrases, prompt, verify
from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.statements import PLACEHOLDER, Line

MAX_STATEMENTS = 16
PROPOSED_P = 0.5  # of a proposed card: any probability makes it one
# How often evidence is changed, per study and epoch.
DROPPED, ADDED, MIRRORED, STRIPPED, PROPOSED, MEASURED, NO_STEPS = 0.15, 0.15, 0.15, 0.2, 0.15, 0.12, 1 / 12
OTHERWISE_NORMAL = 0.75  # of the studies with findings: the report's own normal sentences are among the target


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
class Pictured:
    """A picture with what is known of it: finding headings, and sentences of its caption ("" of labels alone)."""

    id: str
    terms: tuple[str, ...]
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One training pair: the model reads `prompt` (after the picture, where there is one) and writes `target`."""

    id: str
    prompt: str
    target: str
    normal: bool
    picture: str = ""


@dataclass(frozen=True)
class _Sentence:
    section: str
    text: str
    region: str
    normal: bool
    terms: frozenset[int]  # indexes into the study's terms that it states


@dataclass(frozen=True)
class _Card:
    """A card of a pair, by its place in the board's order of arrival."""

    text: str
    region: str
    follows: prompt.Follows
    term: int = -1  # of the study; -1: none
    heading: str = ""

    def evidence(self, number: int) -> Evidence:
        """The card as the check knows it."""
        p, status = (PROPOSED_P, "proposed") if self.follows == "possible" else (None, "accepted")
        return Evidence(f"E{number}", "finding", self.region, self.text, probability=p, source="reader", status=status)


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

# What the outlines of one radiograph give: (structure, region, quantities).
ON_RADIOGRAPHS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("heart", "heart", ("cardiothoracic ratio",)),
    ("lungs", "lungs", ("right to left ratio",)),
    ("right lung", "lungs", ("area",)),
    ("left lung", "lungs", ("area",)),
)


def card_text(structure: str, quantity: str) -> str:
    """The words of a measurement card."""
    return f"{structure}: {quantity}"


def measurement_sentence(structure: str, values: dict[str, str]) -> str:
    """Our own sentence for the measured quantities; `values` maps a quantity to its placeholder."""
    verb = "have" if structure == "lungs" else "has"
    size = [
        f"a{'n' if quantity == 'area' else ''} {quantity} of {values[quantity]}"
        for quantity in ("cardiothoracic ratio", "right to left ratio", "volume", "area", "longest axial diameter")
        if quantity in values
    ]
    mean = next((f"a {q} of {values[q]}" for q in ("mean attenuation", "mean signal") if q in values), None)
    return f"The {structure} {verb} {phrases.joined(size + ([mean] if mean else []))}."


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


# Words of change that `findings.has_comparison` leaves to the context, and that no card of one study can support.
_CHANGE = re.compile(
    r"\b(?:decreas(?:ed|ing)|increasing|residual|wors(?:e|ened|ening)|better|resol\w+|prior|recurrent|"
    r"slightly (?:more|less)|again|still|compar\w+|follow-?up|recommend\w*|correlat\w*|ct\b|discuss\w*|telephone\w*|"
    r"increased (?!(?:density|opaci|lucen|marking|interstitial|bronch|vascul|attenuat|ap\b|lung|retrosternal|kypho)))",
    re.IGNORECASE,
)
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
# The heart and what lies on one side only are not the same the other way round.
_ONE_SIDED = re.compile(r"ventric|atri|situs|aort|heart|cardi|stomach|liver|gallbladder|spleen", re.IGNORECASE)


def mirrored(text: str) -> str:
    """The text with left and right exchanged, letter case kept."""

    def other(match: re.Match[str]) -> str:
        word = "right" if match[0].lower() == "left" else "left"
        return word.upper() if match[0].isupper() else word.capitalize() if match[0][0].isupper() else word

    return _SIDE.sub(other, text)


class Dataset:
    """All training reports, read once; `examples(epoch)` draws that epoch's pairs.

    Args:
        pictures: pictures of the training side; each is drawn in one epoch of `PICTURE_EPOCHS`.
    """

    PICTURE_EPOCHS = 4
    NORMAL_SHARE = 0.6  # of the normal studies, whose reports read alike, in one epoch

    def __init__(self, reports: Sequence[SourceReport], seed: int = 0, pictures: Sequence[Pictured] = ()) -> None:
        self.seed = seed
        self.pictures = tuple(pictures)
        self.reports: list[tuple[SourceReport, tuple[str, ...], list[_Sentence]]] = []
        self.by_concept: dict[str, list[tuple[str, str]]] = defaultdict(list)  # concept → (study, sentence stating it)
        self.denying: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.single: list[tuple[str, str, _Sentence]] = []  # (study, its one term, sentence)
        for report in reports:
            read = _read(report)
            if read is None:
                continue
            terms, sentences = read
            self.reports.append((report, terms, sentences))
            for sentence in sentences:
                if len(sentence.terms) == 1:
                    self.single.append((report.id, terms[min(sentence.terms)], sentence))
                for mention in f.mentions(sentence.text):
                    known = {"present": self.by_concept, "absent": self.denying}.get(mention.polarity)
                    if known is not None:
                        known[mention.concept].append((report.id, sentence.text))
        self.normals = [k for k, (_, terms, sentences) in enumerate(self.reports) if not terms and len(sentences) > 2]

    def __len__(self) -> int:
        return len(self.reports)

    def examples(self, epoch: int) -> list[Example]:
        """This epoch's pairs, one or none per study and picture, in a fixed order."""
        rng = random.Random(f"{self.seed}/{epoch}")
        normal = set(self.normals)
        drawn = [k for k in range(len(self.reports)) if k not in normal or rng.random() < self.NORMAL_SHARE]
        out = [self.example(k, rng) for k in drawn]
        # Studies that have nothing but measurements (a CT without a reader's finding) are one in twelve.
        out += [_measurements_only(rng, k) for k in range(len(self.reports) // 12)]
        shown = self.pictures[epoch % self.PICTURE_EPOCHS :: self.PICTURE_EPOCHS]
        out += [self.pictured(picture, rng) for picture in shown]
        return [e for e in out if e is not None]

    def example(self, k: int, rng: random.Random | None) -> Example | None:
        """Study k as a pair; without a generator, the plain pair (all cards, no priors, nothing changed)."""
        report, terms, sentences = self.reports[k]
        indication = report.indication
        plain = rng is None
        rng = rng or random.Random(0)
        if not plain:
            if rng.random() < MIRRORED and not _ONE_SIDED.search(" ".join(terms)):
                terms = tuple(mirrored(t) for t in terms)
                sentences = [replace(s, text=mirrored(s.text)) for s in sentences if not _ONE_SIDED.search(s.text)]
                indication = mirrored(indication)
            if rng.random() < ADDED and self.single:
                terms, sentences = self._with_another(report.id, terms, sentences, rng)
        keep = set(range(len(terms)))
        if not plain and len(keep) > 1 and rng.random() < DROPPED:
            keep.discard(rng.choice(sorted(keep)))
        normals = plain or not keep or rng.random() < OTHERWISE_NORMAL
        return self._pair(report.id, indication, terms, sentences, keep, normals, None if plain else rng)

    def pictured(self, picture: Pictured, rng: random.Random) -> Example | None:
        """A picture's pair: its caption's sentences, or sentences of the corpus that its cards support."""
        own = tuple(t for t in picture.terms if t != f.NORMAL_TERM)
        if not own:  # a normal picture: a normal report of the corpus
            if not self.normals:
                return None
            report, terms, sentences = self.reports[rng.choice(self.normals)]
            return self._pair(picture.id, report.indication, terms, sentences, set(), True, rng, picture.id)
        sentences = [_stating("F", text, own) for text in picture.sentences]
        for t, term in enumerate(own):
            if not any(t in s.terms for s in sentences if s is not None):
                known = [x for c in sorted(f.concepts_of_term(term)) for x in self.by_concept[c]]
                if known:
                    sentences.append(_stating("F", rng.choice(known)[1], own))
        kept = [s for s in sentences if s is not None]
        return self._pair(picture.id, "", own, kept, set(range(len(own))), False, rng, picture.id)

    def _with_another(
        self, study: str, terms: tuple[str, ...], sentences: list[_Sentence], rng: random.Random
    ) -> tuple[tuple[str, ...], list[_Sentence]]:
        """The study with a finding of another one, in its place among the findings."""
        other, term, sentence = rng.choice(self.single)
        mine = set().union(*(f.licensed(t) for t in terms), set())
        if other == study or f.concepts_of_term(term) & mine:
            return terms, sentences
        new = replace(sentence, section="F", terms=frozenset({len(terms)}))
        at = next((n for n, s in enumerate(sentences) if s.section == "I"), len(sentences))
        at = rng.randint(0, at)
        return (*terms, term), [*sentences[:at], new, *sentences[at:]]

    def _pair(
        self,
        ident: str,
        indication: str,
        terms: tuple[str, ...],
        sentences: list[_Sentence],
        keep: set[int],
        normals: bool,
        rng: random.Random | None,
        picture: str = "",
    ) -> Example | None:
        plain = rng is None
        rng = rng or random.Random(0)
        cards = []
        for t in sorted(keep):
            text, follows = terms[t], _certainty(t, sentences, plain, rng)
            if not plain and (follows == "possible" or rng.random() < STRIPPED) and rng.random() < 0.5:
                text = text.split("/")[0] if f.mentions(text.split("/")[0]) else text  # "Mediastinum" states nothing
            shown = text if plain else _words(text, rng)
            cards.append(_Card(shown, f.region_of_term(terms[t]), follows, t, text))
        if normals:
            cards.append(_Card(f.OTHERWISE_NORMAL if keep else f.NORMAL_TERM, "other", "normal"))
        evidence = [card.evidence(n) for n, card in enumerate(cards, 1)]
        number = {card.term: n for n, card in enumerate(cards, 1)}  # the normal card is -1
        lines: list[tuple[str, str, tuple[int, ...]]] = []  # (section, text, cards)
        for s in sentences:
            if s.normal != (not s.terms) or (s.normal and not normals) or not s.terms <= keep:
                continue
            ids = (number[-1],) if s.normal else tuple(sorted(number[t] for t in s.terms))
            kinds = {cards[i - 1].follows for i in ids}
            if len(kinds) > 1 or not _supported(s.section, s.text, ids, evidence):
                continue
            lines.append((s.section, s.text, ids))
        stated = {i for _, _, ids in lines for i in ids}
        for n, card in enumerate(cards, 1):
            if n in stated or card.follows == "normal" or (plain or rng.random() < 0.4):
                continue
            text = phrases.hedged(card.heading, rng) if card.follows == "possible" else phrases.plain(card.heading)
            if _supported("F", text, (n,), evidence):
                lines.insert(_place(card.region, lines), ("F", text, (n,)))
                stated.add(n)
        lines = lines[:MAX_STATEMENTS]
        stated = {i for _, _, ids in lines for i in ids}
        if not lines:
            return None
        offered = [card for n, card in enumerate(cards, 1) if n in stated]
        rank = {n: k for k, n in enumerate(sorted(stated))}  # old number → place among the offered
        board = [prompt.Line(card.region, card.text, card.follows) for card in offered]
        measured: list[tuple[str, str, dict[str, int]]] = []
        if not plain and not picture and rng.random() < MEASURED:
            measured = _measurements(rng, rng.choice((1, 1, 2, 3)), board, _denied(text for _, text, _ in lines))
        # The board's order is the order of arrival, not of the text: shuffle, then number.
        shuffled = list(range(len(board)))
        if not plain:
            rng.shuffle(shuffled)
        place = {old: new for new, old in enumerate(shuffled)}
        names = {n: place[k] + 1 for n, k in rank.items()}
        priors = [] if plain else self._priors(ident, [terms[c.term] for c in offered if c.term >= 0], rng)
        steps = plain or rng.random() >= NO_STEPS
        out = []
        for section, text, ids in lines:
            out.append(_line(section, text, ids, names, cards, priors))
        split = next((n for n, line in enumerate(out) if line.section == "impression"), len(out))
        out[split:split] = [_measured_line(m, place) for m in measured]
        if not steps:
            out = [replace(line, follows="", evidence=()) for line in out]
        text = prompt.build(indication, [board[old] for old in shuffled], priors, steps=steps)
        is_normal = all(c.follows == "normal" for c in offered)
        return Example(ident, text, "\n".join(x.format() for x in out), is_normal, picture)

    def _priors(self, study: str, terms: list[str], rng: random.Random) -> list[str]:
        if rng.random() < 0.4:
            return []
        out = []
        concepts = [c for t in terms for c in sorted(f.concepts_of_term(t)) if self.by_concept[c]]
        rng.shuffle(concepts)
        for concept in concepts[: prompt.MAX_PRIORS]:
            known = self.denying if self.denying[concept] and rng.random() < 0.15 else self.by_concept
            other, text = rng.choice(known[concept])
            if other != study:
                out.append(text)
        if rng.random() < 0.35:  # a prior that says something else: evidence comes first
            allowed = set().union(*(f.licensed(t) for t in terms)) if terms else set()
            foreign = [c for c in self.by_concept if c not in allowed and self.by_concept[c]]
            if foreign:
                other, text = rng.choice(self.by_concept[rng.choice(foreign)])
                if other != study:
                    out.append(text)
        rng.shuffle(out)
        return out[: prompt.MAX_PRIORS]


def signed_example(
    ident: str, indication: str, modality: str, cards: Sequence[Evidence], statements: Sequence[Statement]
) -> Example | None:
    """A signed report as a pair: the cards as the prompt has them, and the signed sentences that rest on them.

    Args:
        modality: as the prompt has it ("radiograph", "CT", "MR").
        statements: citing no card but these; what the check does not find supported is left out.

    Returns:
        None where no sentence is left.
    """
    cards = cards[: prompt.MAX_CARDS]
    place = {card.id: n for n, card in enumerate(cards, 1)}
    lines = []
    for s in sorted(statements, key=lambda s: s.section == "impression"):
        ids = sorted(place[i] for i in s.evidence if i in place)
        kinds = {prompt.follows(cards[i - 1]) for i in ids}
        template = PLACEHOLDER.sub(lambda m: "{" + f"E{place.get(m[1], 0)}" + "}", s.template or s.text)
        bare = PLACEHOLDER.sub("", template)
        if len(kinds) != 1 or verify.check(s, cards).support != "supported" or "{E0}" in template:
            continue
        if any(c.isdigit() for c in bare) and not any(c.isdigit() for i in ids for c in cards[i - 1].statement):
            continue  # a number never passes through the model
        whole = cards[ids[0] - 1].statement.casefold() in f.NORMAL_TERMS
        region = s.region if whole else cards[ids[0] - 1].region
        lines.append(Line(s.section, region, tuple(f"E{i}" for i in ids), min(kinds), template))
    if not lines:
        return None
    offered = [prompt.Line(card.region, card.statement, prompt.follows(card)) for card in cards]
    text = prompt.build(indication, offered, (), modality)
    return Example(ident, text, "\n".join(x.format() for x in lines), all(x.follows == "normal" for x in offered))


def _place(region: str, lines: Sequence[tuple[str, str, tuple[int, ...]]]) -> int:
    """Where a new sentence of the findings goes: after the last one on its region, else after all of them."""
    end = next((n for n, line in enumerate(lines) if line[0] == "I"), len(lines))
    return next((n for n in range(end, 0, -1) if f.region_of(lines[n - 1][1]) == region), end)


def _certainty(term: int, sentences: Sequence[_Sentence], plain: bool, rng: random.Random) -> prompt.Follows:
    """Whether a heading is offered as a finding or as a proposal: mostly the latter where the report only hedges it."""
    if plain:
        return "present"
    hedges = [_is_hedged(s.text) for s in sentences if term in s.terms]
    return "possible" if rng.random() < (0.7 if hedges and all(hedges) else PROPOSED) else "present"


def _is_hedged(text: str) -> bool:
    affirmed = [m.polarity for m in f.mentions(text) if m.polarity != "absent"]
    return bool(affirmed) and all(p == "possible" for p in affirmed)


def _supported(section: str, text: str, ids: tuple[int, ...], evidence: list[Evidence]) -> bool:
    statement = Statement("s1", "findings", "other", text, tuple(f"E{i}" for i in ids), template=text)
    if any(c.isdigit() for c in text) and not any(c.isdigit() for i in ids for c in evidence[i - 1].statement):
        return False  # a number never passes through the model
    return verify.check(statement, evidence).support == "supported"


def _line(
    section: str, text: str, ids: tuple[int, ...], names: dict[int, int], cards: list[_Card], priors: list[str]
) -> Line:
    """A sentence as the model is to write it; its region is that of the first card it cites."""
    first = min(ids, key=names.__getitem__)
    follows, normal = cards[first - 1].follows, cards[first - 1].follows == "normal"
    cited = [f"E{n}" for n in sorted(names[i] for i in ids)]
    cited += [f"P{p + 1}" for p, prior in enumerate(priors) if not normal and _alike(text, prior)]
    region = f.region_of(text) if normal else cards[first - 1].region
    return Line("findings" if section == "F" else "impression", region, tuple(cited), follows, text)


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
    sentences: list[_Sentence] = []
    seen: set[tuple[str, str]] = set()
    for section, group in (("F", report.findings), ("I", report.impression)):
        for text in group:
            key = (section, text.lower())
            if (
                key in seen
                or len(text) > prompt.MAX_PRIOR * 2
                or f.has_comparison(text)
                or _CHANGE.search(text)
                or re.search(r"[{}<>]", text)
            ):
                continue
            seen.add(key)
            sentence = _stating(section, text, terms)
            if sentence is not None:
                sentences.append(sentence)
    if not terms and not any(s.normal for s in sentences):
        return None
    return (terms, sentences) if sentences else None


def _stating(section: str, text: str, terms: Sequence[str]) -> _Sentence | None:
    """The sentence with the headings that it states; None where it states something else, or nothing known."""
    if f.is_normal(text):
        return _Sentence(section, text, f.region_of(text), True, frozenset())
    affirmed = {m.concept for m in f.mentions(text) if m.polarity != "absent"}
    if not affirmed:
        return None
    sides = f.side_of(text)
    stated = frozenset(
        t
        for t, term in enumerate(terms)
        if f.concepts_of_term(term) & affirmed and (not sides or not f.side_of(term) or sides & f.side_of(term))
    )
    license_ = set().union(*(f.licensed(terms[t]) for t in stated)) if stated else set()
    if stated and affirmed <= license_:
        return _Sentence(section, text, f.region_of(text), False, stated)
    return None


def _denied(sentences: Iterable[str]) -> frozenset[str]:
    return frozenset(r.concept for text in sentences for r in f.readings(text) if r.polarity == "absent")


def _measurements(
    rng: random.Random, count: int, cards: list[prompt.Line], denied: frozenset[str] = frozenset()
) -> list[tuple[str, str, dict[str, int]]]:
    """Append measurement cards for `count` structures to `cards`; say which card holds which quantity.

    Args:
        denied: findings that the report says are not there: nothing that bears such a name is measured.
    """
    out = []
    if rng.random() < 0.35:
        drawn = list(ON_RADIOGRAPHS)
        rng.shuffle(drawn)
        chosen = drawn[: rng.randint(1, 4)]
    else:
        possible = [s for s in STRUCTURES if not denied & {m.concept for m in f.mentions(s[0])}]
        chosen = [(structure, region, _quantities(rng)) for structure, region in rng.sample(possible, count)]
    for structure, region, wanted in chosen:
        where = {}
        for quantity in wanted:
            where[quantity] = len(cards)
            cards.append(prompt.Line(region, card_text(structure, quantity), "measured"))
        out.append((structure, region, where))
    return out


def _quantities(rng: random.Random) -> tuple[str, ...]:
    """What is measured of one segment of a CT, an MR or a radiograph; sometimes not all of it."""
    kind = rng.random()
    if kind < 0.6:
        wanted = ("volume", "mean attenuation", "longest axial diameter")
    elif kind < 0.85:
        wanted = ("volume", "mean signal", "longest axial diameter")
    else:
        wanted = ("area", "longest axial diameter")
    if rng.random() < 0.3:
        wanted = tuple(sorted(rng.sample(wanted, rng.randint(1, len(wanted))), key=wanted.index))
    return wanted


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
