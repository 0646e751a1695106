"""The tables → SQLAlchemy metadata.  Portable types only, so that PostgreSQL works by URL; voxels live in files.

Changing a table here needs a new revision in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = sa.String(32)  # uuid4 hex, never from a header
TIME = sa.String(32)  # ISO 8601, UTC


def _study_fk(**options: object) -> sa.Column:
    return sa.Column("study_id", ID, sa.ForeignKey("studies.id", ondelete="CASCADE"), nullable=False, **options)


studies = sa.Table(
    "studies",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("uid", sa.String(128), unique=True, nullable=True),
    sa.Column("accession", sa.Text, nullable=False),
    sa.Column("patient_id", sa.Text, nullable=False),
    sa.Column("patient_name", sa.Text, nullable=False),
    sa.Column("patient_sex", sa.Text, nullable=False),
    sa.Column("birth_date", sa.Text, nullable=False),
    sa.Column("age", sa.Text, nullable=False),
    sa.Column("date", sa.Text, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("body_part", sa.Text, nullable=False),
    sa.Column("indication", sa.Text, nullable=False),
    sa.Column("notes", sa.JSON, nullable=False),
    sa.Column("search", sa.Text, nullable=False),  # case-folded words of the worklist's text filter
    sa.Column("created_at", TIME, nullable=False),
    # Counters, so that a number or an id is never given twice.
    sa.Column("last_segment", sa.Integer, nullable=False),
    sa.Column("last_evidence", sa.Integer, nullable=False),
    sa.Column("last_prior", sa.Integer, nullable=False),
    sa.Column("last_annotation", sa.Integer, nullable=False, server_default="0"),
)

series = sa.Table(
    "series",
    metadata,
    sa.Column("id", ID, primary_key=True),
    _study_fk(index=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("uid", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # of the voxels and the geometry
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("volume_modality", sa.Text, nullable=False),
    sa.Column("shape", sa.JSON, nullable=False),
    sa.Column("affine", sa.JSON, nullable=False),
    sa.Column("window", sa.JSON, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("spacing_known", sa.Boolean, nullable=False),
    sa.Column("layout", sa.JSON, nullable=False),
    sa.Column("receipt", sa.JSON, nullable=False),
    sa.Column("sources", sa.Integer, nullable=False),
    sa.Column("view", sa.Text, nullable=False, server_default=""),
    sa.Column("after_signing", sa.Boolean, nullable=False, server_default=sa.false()),  # it came to a signed study
)

segments = sa.Table(
    "segments",
    metadata,
    sa.Column("id", ID, primary_key=True),
    _study_fk(index=True),
    sa.Column("series_id", ID, sa.ForeignKey("series.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("suggested", sa.JSON, nullable=False),
    sa.Column("colour", sa.String(7), nullable=False),
    sa.Column("visible", sa.Boolean, nullable=False),
    sa.Column("clicks", sa.JSON, nullable=False),  # prompts and edits of every kind
    sa.Column("undone", sa.JSON, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("engine_version", sa.Text, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("measurement", sa.JSON, nullable=True),
    sa.Column("mask_file", sa.Text, nullable=False),
    sa.Column("box", sa.JSON, nullable=False),
    # The mask that a model drew, on which the clicks act; "" for a segment made by clicks alone.
    sa.Column("base_file", sa.Text, nullable=False, server_default=""),
    sa.Column("outline", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("hint", sa.JSON, nullable=True),  # the next click that the engine would ask for
    sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("deleted_at", TIME, nullable=True),  # kept aside for undo, see `store/deleted`
)

# What a reader measured by hand.
annotations = sa.Table(
    "annotations",
    metadata,
    sa.Column("id", ID, primary_key=True),
    _study_fk(index=True),
    sa.Column("series_id", ID, sa.ForeignKey("series.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("plane", sa.String(16), nullable=False),
    sa.Column("points", sa.JSON, nullable=False),  # (i, j, k) each
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("numbers", sa.JSON, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
)

evidence = sa.Table(
    "evidence",
    metadata,
    _study_fk(primary_key=True),
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("card", sa.JSON, nullable=False),
    sa.Column("prior", sa.JSON, nullable=True),  # the prior report behind a P card
    sa.Column("retired", sa.Boolean, nullable=False, server_default=sa.false()),  # its cause is gone, for now
)

reports = sa.Table(
    "reports",
    metadata,
    _study_fk(primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("statements", sa.JSON, nullable=False),
    sa.Column("free_text", sa.Text, nullable=False),
    sa.Column("unseen", sa.JSON, nullable=False),
    sa.Column("model", sa.JSON, nullable=True),
    sa.Column("signed_version", sa.Integer, nullable=True),
)

# Reports of a study that came from elsewhere.
received = sa.Table(
    "received",
    metadata,
    sa.Column("id", ID, primary_key=True),
    _study_fk(index=True),
    sa.Column("uid", sa.String(64), nullable=False),
    sa.Column("date", sa.String(8), nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
)

versions = sa.Table(
    "versions",
    metadata,
    _study_fk(primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)

# What signing teaches: no patient identifiers in any text.
signed_cases = sa.Table(
    "signed_cases",
    metadata,
    _study_fk(primary_key=True),
    sa.Column("signed_at", TIME, nullable=False),
    sa.Column("indication", sa.Text, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("cards", sa.JSON, nullable=False),
    sa.Column("statements", sa.JSON, nullable=False),
)

corrections = sa.Table(
    "corrections",
    metadata,
    _study_fk(primary_key=True),
    sa.Column("statement_id", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("section", sa.String(16), nullable=False),
    sa.Column("region", sa.String(16), nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("drafted", sa.Text, nullable=False),
    sa.Column("template", sa.Text, nullable=False),
    sa.Column("signed", sa.Text, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("concepts", sa.JSON, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("adapter", sa.Text, nullable=False),
    sa.Column("index_digest", sa.Text, nullable=False),
    sa.Column("signed_at", TIME, nullable=False),
)

# How a draft's version reads without each thing it was written from.
explanations = sa.Table(
    "explanations",
    metadata,
    _study_fk(primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("adapter", sa.Text, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("faithfulness", sa.Float, nullable=True),
    sa.Column("content", sa.JSON, nullable=False),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", ID, nullable=False),  # no foreign key: "deleted" outlives its study
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("done_at", TIME, nullable=True),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("study_id", ID, nullable=True),
    sa.Column("detail", sa.String(200), nullable=False),
)
