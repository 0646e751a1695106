"""Which series came to a study after its report was signed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("series", sa.Column("after_signing", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    # Not in batch mode: SQLite would make the table anew, and dropping the old one would cascade to the segments.
    op.drop_column("series", "after_signing")
