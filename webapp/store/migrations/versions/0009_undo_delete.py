"""Deleted segments and the cards that went with them are kept aside, so that undo brings both back."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("segments", sa.Column("deleted_at", sa.String(length=32), nullable=True))
    op.add_column("evidence", sa.Column("retired", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.execute("DELETE FROM segments WHERE deleted_at IS NOT NULL")  # else they would be there again
    op.execute(sa.delete(sa.table("evidence", sa.column("retired", sa.Boolean()))).where(sa.column("retired")))
    op.drop_column("evidence", "retired")
    op.drop_column("segments", "deleted_at")
