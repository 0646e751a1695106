"""Fixtures of the drafting tests, and no deadline for generated cases: a busy machine is not a fault."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import hypothesis
import pytest

from core_models.drafting.dataset import SourceReport
from retrieval.training import source_reports

hypothesis.settings.register_profile("drafting", deadline=None)
hypothesis.settings.load_profile("drafting")


@pytest.fixture(scope="session")
def open_i() -> tuple[list[SourceReport], list[SourceReport]]:
    """The corpus's (training, test) reports."""
    if importlib.util.find_spec("torchxrayvision") is None:
        pytest.skip("torchxrayvision, which carries the Open-i reports, is not installed")
    return source_reports("open-i")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: tiny models are slower on more, above all beside other work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
