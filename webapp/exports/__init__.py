"""Name → export.  A new format is one small module with `available` and `write`, and one line here.

One whose form depends on what is there also has `named`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from core_models.errors import NotFound, Refused
from webapp.exports.bundle import RESEARCH_USE, ReportBundle, collect


@dataclass(frozen=True)
class Export:
    """One format; its module is imported at first use, so that starting the page need not load DICOM writers.

    Attributes:
        filename: fixed, because a patient's name has no place in a list of downloads.
    """

    name: str
    media_type: str
    suffix: str
    filename: str
    module: str

    def _module(self) -> ModuleType:
        return import_module(f"webapp.exports.{self.module}")

    def available(self, bundle: ReportBundle) -> str:
        """Why this study cannot be exported so, in one sentence; "" when it can be."""
        reason: Callable[[ReportBundle], str] = self._module().available
        return reason(bundle)

    def named(self, bundle: ReportBundle) -> tuple[str, str]:
        """(media type, file name) of what `write` gives for this study."""
        named = getattr(self._module(), "named", None)
        return named(bundle) if named is not None else (self.media_type, self.filename)

    def write(self, bundle: ReportBundle) -> bytes:
        """The file's bytes.  Raises Refused with the reason where `available` gives one."""
        if reason := self.available(bundle):
            raise Refused(reason)
        return self._module().write(bundle)


EXPORTS: dict[str, Export] = {
    e.name: e
    for e in (
        Export("pdf", "application/pdf", ".pdf", "report.pdf", "pdf"),
        Export("sr", "application/dicom", ".dcm", "report.dcm", "sr"),
        Export("seg", "application/dicom", ".dcm", "segments.dcm", "seg"),
        Export("rtstruct", "application/dicom", ".dcm", "structures.dcm", "rtstruct"),
        Export("nifti", "application/zip", ".zip", "segments-nifti.zip", "nifti"),
        Export("stl", "application/zip", ".zip", "surfaces.zip", "stl"),
        Export("fhir", "application/fhir+json", ".json", "fhir.json", "fhir"),
        Export("json", "application/json", ".json", "report.json", "json_report"),
    )
}


def export(name: str) -> Export:
    """The export of that name.  Raises NotFound."""
    if name not in EXPORTS:
        raise NotFound(f"There is no export {name!r}; there are {', '.join(EXPORTS)}.")
    return EXPORTS[name]


__all__ = ["EXPORTS", "RESEARCH_USE", "Export", "ReportBundle", "collect", "export"]
