"""report.json holds what the design promises, and the numbers of the store."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from tests.store.samples import series, study
from webapp.exports import EXPORTS


def test_report_json_holds_everything(ct):
    bundle = ct.bundle()
    data = json.loads(EXPORTS["json"].write(bundle))
    assert {
        "study", "receipt", "segments", "evidence", "priors", "statements", "reasoning", "unseen", "model",
    } <= set(data)  # fmt: skip
    assert data["study"]["patient"]["name"] == "Müller^Anna"
    assert data["study"]["indication"] == "Husten seit 3 Wochen & <i>Fieber</i>"
    assert data["receipt"]["loaded"] == 6
    liver = data["segments"][0]
    assert (liver["label"], liver["engine"]) == ("liver", "watershed")
    assert liver["volume_ml"] == bundle.mask(bundle.segments[0]).count * bundle.volume().voxel_ml
    assert [e["id"] for e in data["evidence"]] == ["E1", "E2", "E3", "P1"]
    assert data["evidence"][0]["value"] == 1512.0
    assert data["priors"][0]["score"] == 0.83
    assert data["statements"][0]["evidence"] == ["E1"]
    assert data["reasoning"] == [{"statement": "s3", "considered": ["E2"], "follows": "a nodule"}]
    assert data["model"] == {"name": "small-model", "adapter": "adapter-1", "index_digest": "abc", "seed": 7}
    assert data["state"] == {"kind": "draft", "revision": 1}


def test_images_that_arrive_after_signing_are_in_no_export(ct):
    def exported():
        bundle = ct.bundle()
        return replace(bundle, volume=None, mask=None), bundle.volume().shape, EXPORTS["json"].write(bundle)

    ct.sign()
    before = exported()
    more = series(uid="2.25.9", seed=1)
    larger = replace(more, volume=replace(more.volume, array=np.zeros((30, 40, 40), np.int16)))
    ct.store.add_study(study(uid=ct.store.study(ct.study_id).uid, series=(larger,)))
    assert len(ct.store.study(ct.study_id).series) == 2
    assert exported() == before


def test_what_stands_struck_out_is_marked_and_not_in_the_text(ct):
    ct.doubt()
    data = json.loads(EXPORTS["json"].write(ct.bundle()))
    marks = {s["text"]: (s["support"], s["struck_out"], s["restored"]) for s in data["statements"]}
    assert marks["Pneumothorax."] == ("unsupported", True, False)
    assert marks["Old fracture."] == ("unsupported", False, True)
    assert marks["No nodule."] == ("contradicted", False, False)
    assert marks["Lung nodule."] == ("unsupported", False, False), "the reader's own words are not struck"
    left = [text for text, (_, struck, _) in marks.items() if not struck]
    assert all(text in data["text"] for text in left)
    assert "Pneumothorax" not in data["text"]


def test_a_signed_report_exports_what_was_signed(ct):
    ct.sign()
    signed = json.loads(EXPORTS["json"].write(ct.bundle()))
    assert signed["state"]["kind"] == "signed"
    ct.store.addendum(ct.study_id, author="Dr B", text="Seen again.")
    added = json.loads(EXPORTS["json"].write(ct.bundle()))
    assert added["statements"] == signed["statements"]
    assert added["evidence"] == signed["evidence"]
    assert [a["text"] for a in added["state"]["addenda"]] == ["Seen again."]
    old = json.loads(EXPORTS["json"].write(ct.bundle(version=signed["state"]["version"])))
    assert old["state"]["addenda"] == []
