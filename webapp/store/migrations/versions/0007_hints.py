"""Where the segmentation engine would have the next click, and whether it expects anything of one."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("segments", sa.Column("hint", sa.JSON(), nullable=True))
    op.add_column("segments", sa.Column("settled", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("segments", "settled")
    op.drop_column("segments", "hint")
