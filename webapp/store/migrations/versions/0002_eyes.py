"""What the image models need: a projection's view, and the mask that a model drew beneath a segment's clicks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("series", sa.Column("view", sa.Text(), nullable=False, server_default=""))
    op.add_column("segments", sa.Column("base_file", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    # Not in batch mode: SQLite would make the table anew, and dropping the old one would cascade to the segments.
    op.drop_column("segments", "base_file")
    op.drop_column("series", "view")
