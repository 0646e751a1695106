"""A setting → what writes the drafts; each kind of writer as one row of plain data.  Importing this loads no model.

"" is the model that ships here; "folder:PATH" any image-text-to-text model of a local folder, on the GPU where there is
one; "server:ADDRESS#MODEL" a language model server.  Nothing is ever fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core_models.errors import Refused

if TYPE_CHECKING:
    from core_models.drafting.drafter import Drafter

EMBEDDED = "embedded"


@dataclass(frozen=True)
class WriterRow:
    """What the page and the README need to know of a kind of writer.

    Attributes:
        form: how it is set, as READING_ROOM_WRITER.
        licence: what a reader is told before it is used.
        needs: what must be there; `cost`: memory and time, for a person to read.
        sends: where the study's text and image go.
    """

    name: str
    form: str
    licence: str
    needs: str
    cost: str
    sends: str


WRITERS: tuple[WriterRow, ...] = (
    WriterRow(
        name=EMBEDDED,
        form="",
        licence="Gemma terms of use; the adapter was trained on Open-i reports (CC BY-NC-ND 4.0): for research, not "
        "for commercial use",
        needs="`python app.py prepare`, once",
        cost="some seconds a draft on two cores; measured figures are in the README",
        sends="nothing leaves the process",
    ),
    WriterRow(
        name="folder",
        form="folder:PATH",
        licence="that of the model in the folder: google/medgemma-4b-it under the Health AI Developer Foundations "
        "terms, Qwen2.5-VL under Apache 2.0 (7B) or Qwen's research licence, non-commercial (3B); read it before use",
        needs="a folder with config.json, safetensors, a chat template and a processor, as published; "
        "READING_ROOM_ADAPTER may name a LoRA adapter for it",
        cost="memory of its weights and a tenth, 9.5 GB for 4.3 billion parameters in bf16; time was not measured here",
        sends="nothing leaves the process",
    ),
    WriterRow(
        name="server",
        form="server:http://127.0.0.1:8000/v1#MODEL",
        licence="that of the model on the server",
        needs="a server with OpenAI's chat interface, best vLLM 0.12 or later; READING_ROOM_WRITER_KEY where it "
        "wants a key; READING_ROOM_WRITER_ALLOW_REMOTE=1 where it is another machine",
        cost="nothing here; the server's own",
        sends="cards, indication, a sentence of each prior and the image's pixels go to the server, with whatever "
        "is written in them; no field of the patient's record does",
    ),
)


def row(setting: str) -> WriterRow:
    """The row of a setting.  Raises Refused where no writer has this form."""
    kind = setting.partition(":")[0] or EMBEDDED
    for known in WRITERS:
        if kind == known.name and (kind == EMBEDDED or setting != kind):
            return known
    forms = ", ".join(known.form for known in WRITERS if known.form)
    raise Refused(f"READING_ROOM_WRITER is set to {setting[:40]!r}; {forms} or nothing is expected.")


def open_writer(
    setting: str,
    models: Path,
    adapter: Path | None = None,
    threads: int | None = None,
    *,
    key: str = "",
    allow_remote: bool = False,
) -> Drafter:
    """What writes the drafts; it answers `stream` and `many`.

    Args:
        setting: as in the rows.
        models: where the embedded model was prepared.
        adapter: LoRA adapter for the embedded model (None: the one that ships here) or the folder's (None: none).
        key, allow_remote: of a server.

    Raises:
        ModelMissing: the model or the adapter is not there.
        Refused: another form; an adapter beside a server; what the opened model refuses.
    """
    kind, where = row(setting).name, setting.partition(":")[2].strip()
    if kind == "server":
        from core_models.drafting import remote

        if adapter is not None:
            raise Refused("An adapter cannot be sent to a server: load it there, and set its name as the model's.")
        return remote.Remote(remote.server(where, key, allow_remote))
    if kind == "folder":
        from core_models.drafting import instructed

        return instructed.load(Path(where).expanduser(), adapter, threads)
    from core_models.drafting import drafter, promotion

    return drafter.load(models, promotion.SHIPPED_FOLDER if adapter is None else adapter, threads)
