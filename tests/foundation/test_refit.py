"""The refit head is kept where validation says it is better, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core_models.foundation import refit
from core_models.foundation.model import FoundationModel, new_encoder
from tests.foundation import pools


@pytest.fixture
def pool():
    """Twelve patients to learn from and twelve to validate on; the finding is at which side a square is."""
    one = pools.pool(refit.SOURCE, n=24)
    sides = tuple("train" if row < 12 else "validation" for row in range(24))
    findings = np.repeat(one.findings[:, :1], one.findings.shape[1], 1)
    return replace(one, sides=sides, findings=findings)


def test_ridge_regression_finds_the_line_and_a_strong_pull_flattens_it() -> None:
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, :1] > 0).float()
    weak, _ = refit.fit(x, y, 1e-3)
    strong, _ = refit.fit(x, y, 1.0)
    assert weak[0, 0] > 5 * weak[1:, 0].abs().max()
    assert strong.abs().max() < 0.3 < weak[0, 0]


def test_a_better_head_is_put_in_and_a_worse_one_is_not(pool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = FoundationModel(new_encoder("scratch"), ("findings",)).eval()
    told = torch.from_numpy(pool.findings[:, 0]).float()

    def features(_, one, rows, *__, **___):  # features that know the answer
        own = torch.zeros(len(rows), model.encoder.config.hidden_size)
        own[:, 7] = told[torch.from_numpy(np.asarray(rows))]
        return own

    monkeypatch.setattr(refit, "_features", features)
    monkeypatch.setattr(refit, "pooled", features)
    with torch.no_grad():
        model.tasks["findings"].linear.weight.zero_()
        model.tasks["findings"].linear.weight[:, 7] = -1.0  # exactly wrong
    done = refit.refit_findings(model, {refit.SOURCE: pool}, 64)
    assert (done.trained, done.kept) == (0.0, str(refit.PULLS[0]))
    assert max(done.tried.values()) == 1.0
    again = refit.refit_findings(model, {refit.SOURCE: pool}, 64)
    assert (again.trained, again.kept) == (1.0, "trained")
