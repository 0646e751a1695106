"""A job in → what its draft reads like without the image, the priors and each card, and a faithfulness score.

Leave-one-out erasure (Li et al. 2016, arXiv:1612.08220), read as ERASER's comprehensiveness (DeYoung et al., ACL 2020):
evidence that a sentence truly rests on must change the sentence when it is taken away.  It is asked of the written
reasoning as Lanham et al. 2023 (arXiv:2307.13702) do: a step that can go without changing what follows is not what led
there.  Compared is what a sentence says, not its probability: a model that words a normal heart otherwise each time has
not changed its mind.  A claim is a finding that is affirmed, left open or denied, with side, degree and place
(`findings.readings`), or a card's number; a sentence that holds none claims its own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Protocol

from core_models.drafting import findings as f
from core_models.drafting import prompt
from core_models.drafting.drafter import BATCH, OWN_WORDS, UNNAMED, Job, Omission, quotes
from core_models.drafting.evidence import Draft, Evidence, Statement
from core_models.drafting.statements import placeholders
from core_models.drafting.vision_language import VisionLanguage

READ = ("finding", "measurement", "comparison")  # kinds of cards that a draft is written from
AFFORDED = 64  # cards written about in one go, all redrafts together: at most 20 s on two cores
FEWEST = 2  # redrafts in one go, however long each is

Claim = tuple[Any, ...]
NORMAL: Claim = ("normal",)  # that nothing is wrong, of nothing in particular


class Writer(Protocol):
    """What is asked of `drafter.Drafter`."""

    model: VisionLanguage

    def many(self, jobs: Sequence[Job]) -> list[Draft]: ...


@dataclass(frozen=True)
class Change:
    """A statement of the draft (its id) that has other words in a redraft."""

    statement: str
    old: str
    new: str


@dataclass(frozen=True)
class Effect:
    """What one omission does.

    Attributes:
        changed: statements that say something else.
        gone: ids of those that are not said any more.
        reworded: what is said in other words or in the other section, and does not count as a change.
        appeared: texts that claim what the draft does not.
    """

    omission: Omission
    changed: tuple[Change, ...] = ()
    gone: tuple[str, ...] = ()
    reworded: tuple[Change, ...] = ()
    appeared: tuple[str, ...] = ()

    def touches(self, statement_id: str) -> bool:
        return statement_id in self.gone or any(c.statement == statement_id for c in self.changed)


@dataclass(frozen=True)
class Share:
    """`changed` of `of`; the rate is None where nothing was to be counted."""

    changed: int
    of: int

    @property
    def rate(self) -> float | None:
        return self.changed / self.of if self.of else None


@dataclass(frozen=True)
class Explanation:
    """A draft and what each omission does to it.

    The scores count the sentences that the model wrote itself and the check found supported.  They cannot show that the
    model reasoned as its steps say, nor that a card is right.  Part of them is so by make: the form offers only cards
    that are on the board, so that a finding rarely outlives its only card.  Two cards that say the same thing make each
    other look idle.  Which normal structures are named is the model's choice; cards are numbered anew without the one
    that is left out, and a batch sums in another order, so that a sentence may change for no reason: `elsewhere` counts
    that, and only a score well above it means something.

    Attributes:
        statements: the draft with nothing left out, from the same batch.
        untried: what was not left out yet.
    """

    statements: tuple[Statement, ...]
    effects: tuple[Effect, ...]
    untried: tuple[Omission, ...] = ()

    @property
    def faithfulness(self) -> Share:
        """Of all (sentence, cited card): those where the sentence changes or goes without the card."""
        return self._share((s, e) for s in self._own for e in self._cards if e.omission.id in s.evidence)

    @property
    def elsewhere(self) -> Share:
        """The same of all (sentence, card that it does not cite): what the score would be of citations at random."""
        return self._share((s, e) for s in self._own for e in self._cards if e.omission.id not in s.evidence)

    @property
    def priors(self) -> Share:
        """Of the sentences that cite a prior: those that change or go without the priors."""
        return self._share((s, e) for s in self._own if _cites_prior(s) for e in self._of("priors"))

    @property
    def image(self) -> Share:
        """Of all sentences: those that change or go without the image."""
        return self._share((s, e) for s in self._own for e in self._of("image"))

    def idle(self, statement: Statement) -> tuple[str, ...]:
        """What the statement cites and says the same without; of priors, they all together."""
        cards = [e.omission.id for e in self._cards if e.omission.id in statement.evidence and not _hit(e, statement)]
        if any(not _hit(e, statement) for e in self._of("priors")):
            cards += [ident for ident in statement.evidence if _is_prior(ident)]
        return tuple(cards)

    @property
    def _own(self) -> list[Statement]:
        written = [s for s in self.statements if s.origin == "model" and s.support == "supported"]
        return [s for s in written if s.step is None or s.step.follows not in (OWN_WORDS, UNNAMED)]

    @property
    def _cards(self) -> list[Effect]:
        return self._of("card")

    def _of(self, kind: str) -> list[Effect]:
        return [e for e in self.effects if e.omission.kind == kind]

    @staticmethod
    def _share(pairs: Iterable[tuple[Statement, Effect]]) -> Share:
        hits = [_hit(effect, statement) for statement, effect in pairs]
        return Share(sum(hits), len(hits))


def read(job: Job) -> tuple[Evidence, ...]:
    """The cards that the job's draft is written from."""
    return tuple(c for c in job.cards if c.status != "rejected" and c.kind in READ)[: prompt.MAX_CARDS]


def omissions(job: Job, sees: bool) -> list[Omission]:
    """All that can be left out: the image where the model sees one, the priors where one is quoted, each card.

    Args:
        sees: whether the model is given the job's picture.
    """
    cards = read(job)
    out = [Omission("image")] if sees and job.picture is not None else []
    out += [Omission("priors")] if any(quotes(p, cards) for p in job.priors) else []
    return [*out, *(Omission("card", c.id) for c in cards)]


def explain(writer: Writer, job: Job, known: Explanation | None = None, first: Sequence[str] = ()) -> Explanation:
    """Write the draft again in one batch, each time with one thing left out, and compare.

    A board of many cards takes several goes: what is left stands in `untried`.

    Args:
        known: of an earlier go on the same job, which this one goes on with.
        first: cards to leave out before all else, such as those that the sentence in question cites.

    Raises:
        Refused: the job has no card to write from.
    """
    wanted = list(known.untried) if known else omissions(job, writer.model.sees)
    wanted.sort(key=lambda o: o.id not in first)
    tried = wanted[: max(FEWEST, min(BATCH - 1, AFFORDED // max(1, len(read(job))) - 1))]
    jobs = [o.of(job) for o in tried]
    full, *others = writer.many([job, *(j for j in jobs if read(j))])  # nothing can be written from no card
    drafts = iter(others)
    effects = tuple(
        compared(o, full.statements, next(drafts).statements if read(j) else ())
        for o, j in zip(tried, jobs, strict=True)
    )
    new = Explanation(full.statements, effects, tuple(wanted[len(tried) :]))
    return new if known is None else _joined(known, new)


def compared(omission: Omission, draft: Sequence[Statement], redraft: Sequence[Statement]) -> Effect:
    """Match statements by their words, by what they claim, else by what they are about.

    A finding that the redraft affirms once stands for one statement of the draft: two fractures are two findings.
    What moved to the other section is still said; what is about the same is looked for in the same one.
    About the same are two that share a finding, or cite the same card and are no statements that things are normal
    (those all cite one card).  Of several, the one that shares most is taken.
    """
    used: set[str] = set()  # ids of the redraft's statements that have their match
    taken: set[tuple[str, Claim]] = set()  # what they affirm
    other: list[Statement] = []
    for statement in draft:
        if found := same(statement, redraft):
            used.add(found.id)
            taken |= {(found.id, c) for c in _claims(found)}
        else:
            other.append(statement)
    reworded: list[Change] = []
    for statement in sorted(other, key=lambda s: -max((_shared_cards(r, s) for r in redraft), default=0.0)):
        found = {}
        for claim in _claims(statement):
            there = [r for r in redraft if claim in _claims(r)]
            if free := [r for r in there if _denies(claim) or (r.id, claim) not in taken]:
                found[claim] = max(free, key=lambda r: (r.section == statement.section, _shared_cards(r, statement)))
        if len(found) == len(_claims(statement)):
            used |= {r.id for r in found.values()}
            taken |= {(r.id, claim) for claim, r in found.items()}
            best = max(found.values(), key=lambda r: _overlap(_claims(r), _claims(statement)))
            moved = "" if best.section == statement.section else f"{best.section.capitalize()}: "
            reworded.append(Change(statement.id, statement.text, moved + best.text))
            other.remove(statement)
    left = [r for r in redraft if r.id not in used]
    changed: list[Change] = []
    for likeness in (_shared_findings, _shared_cards):
        for statement in [*other]:
            alike = [r for r in left if r.section == statement.section and likeness(r, statement) > 0]
            if alike:
                best = max(alike, key=lambda r: likeness(r, statement))
                changed.append(Change(statement.id, statement.text, best.text))
                other.remove(statement)
                left.remove(best)
    said = {claim for s in draft for claim in _claims(s)}
    appeared = tuple(r.text for r in left if not _claims(r) <= said)
    return Effect(omission, tuple(changed), tuple(s.id for s in other), tuple(reworded), appeared)


def same(statement: Statement, others: Iterable[Statement]) -> Statement | None:
    """The one that reads the same in the same section."""
    return next((o for o in others if _key(o) == _key(statement)), None)


def _joined(known: Explanation, new: Explanation) -> Explanation:
    """Both goes, about the sentences that both of them wrote: of any other the second says nothing."""
    ids = {s.id: found.id for s in new.statements if (found := same(s, known.statements))}
    both = set(ids.values())
    effects = (*(_of(e, {i: i for i in both}) for e in known.effects), *(_of(e, ids) for e in new.effects))
    return Explanation(tuple(s for s in known.statements if s.id in both), effects, new.untried)


def _of(effect: Effect, ids: dict[str, str]) -> Effect:
    """The effect on the statements that are named, under their other names."""

    def renamed(changes: tuple[Change, ...]) -> tuple[Change, ...]:
        return tuple(replace(c, statement=ids[c.statement]) for c in changes if c.statement in ids)

    gone = tuple(ids[i] for i in effect.gone if i in ids)
    return replace(effect, changed=renamed(effect.changed), gone=gone, reworded=renamed(effect.reworded))


def _hit(effect: Effect, statement: Statement) -> bool:
    return effect.touches(statement.id)


def _key(statement: Statement) -> tuple[str, str]:
    return statement.section, " ".join(statement.text.casefold().split())


def _claims(statement: Statement) -> frozenset[Claim]:
    """What a statement says, so that two wordings of it are equal."""
    words = statement.template or statement.text
    found = {(r.concept, r.polarity, r.sides, r.degrees, r.places) for r in f.readings(words)}
    numbers = {(ident,) for ident in placeholders(words)}
    if not found and not numbers:
        return frozenset({NORMAL if f.is_normal(words) else _key(statement)[1:]})
    return frozenset(found | numbers)


def _denies(claim: Claim) -> bool:
    """Whether a claim says that something is as it should be: one sentence may say so for many."""
    return claim == NORMAL or "absent" in claim[1:2]


def _overlap(a: Set[Any], b: Set[Any]) -> float:
    """Jaccard's."""
    return len(a & b) / len(a | b) if a | b else 0.0


def _shared_findings(a: Statement, b: Statement) -> float:
    return _overlap({claim[0] for claim in _claims(a)}, {claim[0] for claim in _claims(b)})


def _shared_cards(a: Statement, b: Statement) -> float:
    return 0.0 if f.is_normal(a.text) or f.is_normal(b.text) else _overlap(set(a.evidence), set(b.evidence))


def _is_prior(ident: str) -> bool:
    return ident.startswith("P")


def _cites_prior(statement: Statement) -> bool:
    return any(map(_is_prior, statement.evidence))
