"""The report on paper: patient, indication, findings and impression with their evidence, the board, the signature.

Everything from headers and people is escaped: markup in it is shown as text.  The font is the one that reportlab
ships (Bitstream Vera: Western and Turkish, Polish in part, Czech in part); what it cannot draw becomes a box, and a
note names the characters.
"""

from __future__ import annotations

import io
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from xml.sax.saxutils import escape

import reportlab
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from core_models.drafting.evidence import Statement
from webapp.exports.bundle import ReportBundle
from webapp.store import Version

BOX = "◊"  # drawn for what the font lacks
MAX_WORD = 90  # a longer run without a space is broken, or it would leave the page
GREY = colors.HexColor("#666666")
EDGE = colors.HexColor("#bbbbbb")


def available(bundle: ReportBundle) -> str:
    """Always: an unsigned report prints as a draft."""
    return ""


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Register the fonts once; answer the code points they can draw."""
    folder = Path(reportlab.__file__).parent / "fonts"
    for name, file in (("Vera", "Vera.ttf"), ("Vera-Bold", "VeraBd.ttf")):
        pdfmetrics.registerFont(TTFont(name, str(folder / file)))
    pdfmetrics.registerFontFamily("Vera", normal="Vera", bold="Vera-Bold", italic="Vera", boldItalic="Vera-Bold")
    return frozenset(pdfmetrics.getFont("Vera").face.charToGlyph) - {0xFFFF}


class _Text:
    """Untrusted text → paragraph markup that draws exactly that text; remembers what could not be drawn."""

    def __init__(self) -> None:
        self.glyphs = _glyphs()
        self.missing: set[str] = set()

    def __call__(self, text: str) -> str:
        out = []
        for c in unicodedata.normalize("NFC", text):
            if c in "\n\t" or ord(c) in self.glyphs:
                out.append(c)
            elif unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co"):
                # Invisible or bidirectional controls could make the page read other than it is.
                out.append(" " if c.isspace() else "")
            elif c.isspace():
                out.append(" ")
            else:
                self.missing.add(c)
                out.append(BOX)
        broken = re.sub(rf"(\S{{{MAX_WORD}}})(?=\S)", r"\1 ", "".join(out))
        return escape(broken).replace("\n", "<br/>")


def _styles() -> dict[str, ParagraphStyle]:
    body = ParagraphStyle("body", fontName="Vera", fontSize=9, leading=12.5, spaceAfter=3)
    return {
        "body": body,
        "small": ParagraphStyle("small", parent=body, fontSize=7.5, leading=10, spaceAfter=0),
        "grey": ParagraphStyle("grey", parent=body, fontSize=7.5, leading=10, textColor=GREY),
        "title": ParagraphStyle("title", parent=body, fontName="Vera-Bold", fontSize=15, leading=19, spaceAfter=4),
        "head": ParagraphStyle(
            "head", parent=body, fontName="Vera-Bold", fontSize=10.5, leading=14, spaceBefore=9, keepWithNext=1
        ),
    }


def write(bundle: ReportBundle) -> bytes:
    """The report as PDF (A4), without the statements that stand struck out."""
    bundle = bundle.meant()
    text, styles, buffer = _Text(), _styles(), io.BytesIO()
    story = [
        Paragraph("Radiology report", styles["title"]),
        Paragraph(_status(bundle, text), styles["body"]),
        _patient(bundle, text, styles),
        *_block("Indication", bundle.indication, text, styles),
        *_statements("Findings", bundle.section("findings"), text, styles),
        *_statements("Impression", bundle.section("impression"), text, styles),
        *_block("Further text", bundle.report.free_text, text, styles),
        *_addenda(bundle, text, styles),
        *_evidence(bundle, text, styles),
        *_unseen(bundle, text, styles),
        *_model(bundle, text, styles),
    ]
    if not bundle.report.statements and not bundle.report.free_text.strip():
        story.insert(3, Paragraph("The report is still empty.", styles["body"]))
    if text.missing:
        listed = ", ".join(_name(c) for c in sorted(text.missing)[:20])
        more = " and others" if len(text.missing) > 20 else ""
        note = f"{BOX} stands for characters that this document's font cannot draw: {listed}{more}."
        story += [Spacer(1, 4 * mm), Paragraph(text(note), styles["grey"])]
    page = _page(bundle)
    SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=20 * mm,
        rightMargin=20 * mm,
        topMargin=18 * mm,
        bottomMargin=20 * mm,
        title="Radiology report" if bundle.signed else "Radiology report (draft)",
        author="Reading Room",
        subject=bundle.notice,
    ).build(story, onFirstPage=page, onLaterPages=page)
    return buffer.getvalue()


def _page(bundle: ReportBundle):
    def draw(canvas: Canvas, document: SimpleDocTemplate) -> None:
        width, height = A4
        canvas.saveState()
        if not bundle.signed:
            canvas.setFillColor(colors.Color(0.8, 0.1, 0.1, alpha=0.12))
            canvas.setFont("Vera-Bold", 110)
            canvas.translate(width / 2, height / 2)
            canvas.rotate(50)
            canvas.drawCentredString(0, -35, "DRAFT")
            canvas.restoreState()
            canvas.saveState()
        canvas.setFont("Vera", 7.5)
        canvas.setFillColor(GREY)
        canvas.drawString(20 * mm, 12 * mm, bundle.notice)
        canvas.drawRightString(width - 20 * mm, 12 * mm, f"Page {document.page}")
        canvas.restoreState()

    return draw


def _status(bundle: ReportBundle, text: _Text) -> str:
    report, signature = bundle.report, bundle.signature
    if signature is None or not isinstance(report, Version):
        return "<b>DRAFT, not signed.</b>"
    added = len(report.addenda)
    more = f", with {added} {'addendum' if added == 1 else 'addenda'} (version {report.number})" if added else ""
    when = _when(signature.created_at)
    return f"<b>Signed</b> by {text(signature.author)}, {when} (version {signature.number}){more}."


def _when(iso: str) -> str:
    return escape(iso[:16].replace("T", " ")) + " UTC"


def _date(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if re.fullmatch(r"\d{8}", value) else value


def _patient(bundle: ReportBundle, text: _Text, styles: dict[str, ParagraphStyle]) -> Flowable:
    s = bundle.study
    rows = [
        ("Patient", s.patient_name.replace("^", " ").strip() or "–", "Study", s.description or "–"),
        ("Patient ID", s.patient_id or "–", "Date", _date(s.date) or "–"),
        ("Born", _date(s.birth_date) or "–", "Modality", f"{s.modality} {s.body_part}".strip()),
        ("Sex, age", ", ".join(p for p in (s.patient_sex, s.age) if p) or "–", "Accession", s.accession or "–"),
    ]
    cells = [[Paragraph(text(c), styles["grey" if n % 2 == 0 else "small"]) for n, c in enumerate(row)] for row in rows]
    table = Table(cells, colWidths=[22 * mm, 63 * mm, 22 * mm, 63 * mm])
    table.setStyle(TableStyle([("BOX", (0, 0), (-1, -1), 0.5, EDGE), ("VALIGN", (0, 0), (-1, -1), "TOP")]))
    return table


def _block(title: str, body: str, text: _Text, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    if not body.strip():
        return []
    return [
        Paragraph(title, styles["head"]),
        *(Paragraph(text(p), styles["body"]) for p in re.split(r"\n\s*\n", body.strip())),
    ]


def _statements(
    title: str, statements: tuple[Statement, ...], text: _Text, styles: dict[str, ParagraphStyle]
) -> list[Flowable]:
    if not statements:
        return []
    out: list[Flowable] = [Paragraph(title, styles["head"])]
    for s in statements:
        marks = [", ".join(s.evidence)] if s.evidence else []
        if s.support != "supported":
            marks.append(s.support)
        if s.stale:
            marks.append("a number in it has changed since")
        mark = f' <font size="7.5" color="#666666">[{text("; ".join(marks))}]</font>' if marks else ""
        out.append(Paragraph(text(s.text) + mark, styles["body"]))
    return out


def _addenda(bundle: ReportBundle, text: _Text, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    out: list[Flowable] = []
    for a in bundle.report.addenda if isinstance(bundle.report, Version) else ():
        out += _block(f"Addendum, {_when(a.created_at)}", f"{a.text}\n\n{a.author}", text, styles)
    return out


def _evidence(bundle: ReportBundle, text: _Text, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    if not bundle.evidence:
        return []
    rows = [[Paragraph(f"<b>{h}</b>", styles["small"]) for h in ("Id", "What", "Value", "Source", "Status")]]
    for e in bundle.evidence:
        value = e.value_text or (f"p {e.probability:.2f}" if e.probability is not None else "")
        rows.append([Paragraph(text(c), styles["small"]) for c in (e.id, e.statement, value, e.source, e.status)])
    table = Table(rows, colWidths=[12 * mm, 73 * mm, 25 * mm, 40 * mm, 20 * mm], repeatRows=1, splitInRow=1)
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, GREY),
                ("LINEBELOW", (0, 1), (-1, -1), 0.3, EDGE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ]
        )
    )
    return [Paragraph("Evidence", styles["head"]), table]


def _unseen(bundle: ReportBundle, text: _Text, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    if not bundle.report.unseen:
        return []
    lines = [Paragraph("• " + text(u), styles["body"]) for u in bundle.report.unseen]
    return [Paragraph("What the model did not see", styles["head"]), *lines]


def _model(bundle: ReportBundle, text: _Text, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    m = bundle.report.model
    if m is None:
        return []
    line = (
        f"Drafted with {m.name}, adapter {m.adapter or 'none'}, index {m.index_digest[:12] or 'none'}, seed {m.seed}."
    )
    return [Spacer(1, 4 * mm), Paragraph(text(line), styles["grey"])]


def _name(c: str) -> str:
    return f"U+{ord(c):04X} {unicodedata.name(c, '')}".strip()
