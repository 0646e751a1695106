"""Studies through the store: what goes in comes out, whole or not at all."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from core_models.errors import Conflict, NotFound, ReadingRoomError, Refused, TooLarge
from core_models.study.study import Patient
from tests.store.samples import add_segment, series, settings_in, statement, study
from webapp.store import Store, files


def test_a_study_comes_back_as_it_was_also_in_another_process(store, tmp_path):
    study_id = store.add_study(study())
    again = Store(settings_in(tmp_path))
    row = again.study(study_id)
    assert (row.patient_name, row.patient_id, row.birth_date, row.state) == ("Müller^Anna", "P1", "19600102", "new")
    one = row.series[0]
    assert one.receipt == series().receipt
    assert one.shape == (4, 6, 8)
    assert one.has_sources
    volume, expected = again.volume(one.id), series().volume
    assert np.array_equal(volume.array, expected.array)
    assert isinstance(volume.array, np.memmap)
    assert not volume.array.flags.writeable
    assert np.array_equal(volume.affine, expected.affine)
    assert (volume.modality, volume.unit, volume.window, volume.layout) == ("CT", "HU", (40.0, 400.0), expected.layout)
    assert [p.read_bytes() for p in again.sources(one.id)] == [b"first", b"second"]
    assert again.series(one.id) == (row, one)
    again.close()


def test_ids_are_never_taken_from_the_header(store):
    hostile = study(uid="../../etc", patient="x", series=(series(uid="/etc/passwd"),))
    row = store.study(store.add_study(hostile))
    assert len(row.id) == 32
    assert row.id.isalnum()
    assert row.series[0].id.isalnum()


def test_the_same_upload_twice_is_one_study(store):
    first = store.add_study(study())
    assert store.add_study(study()) == first
    more = study(series=(series(), series(uid="1.2.3.2", seed=1)))
    assert store.add_study(more) == first
    assert [s.uid for s in store.study(first).series] == ["1.2.3.1", "1.2.3.2"]


def test_what_an_upload_brought_is_taken_back_and_what_was_here_stays(store):
    first = store.take_in(study())
    assert (first.new, len(first.series)) == (True, 1)
    more = store.take_in(study(series=(series(), series(uid="1.2.3.2", seed=1))))
    assert (more.study_id, more.new, len(more.series)) == (first.study_id, False, 1)
    store.volume(more.series[0])
    store.take_back(more)
    assert [s.id for s in store.study(first.study_id).series] == list(first.series)
    assert [p.name for p in (store._files.root / first.study_id).iterdir()] == list(first.series)
    with pytest.raises(NotFound):
        store.volume(more.series[0])
    store.take_back(first)
    assert store.studies() == ()


def test_a_series_that_comes_to_a_signed_study_is_marked_and_what_was_signed_stays(store):
    study_id = store.add_study(study())
    store.save_report(study_id, statements=[statement()], free_text="", base_revision=0)
    more = series(uid="1.2.3.2", seed=1)
    assert not store.take_in(study(series=(more,))).signed
    signed = store.sign(study_id, author="Dr A", base_revision=store.report(study_id).revision)
    report = store.report(study_id)
    late = store.take_in(study(series=(series(uid="1.2.3.3", seed=2),)))
    assert (late.study_id, late.signed) == (study_id, True)
    assert [(s.uid, s.after_signing) for s in store.study(study_id).series] == [
        ("1.2.3.1", False),
        ("1.2.3.2", False),
        ("1.2.3.3", True),
    ]
    assert store.versions(study_id)[-1] == signed
    assert store.report(study_id) == report


def test_the_same_series_with_other_voxels_is_a_conflict(store):
    study_id = store.add_study(study())
    with pytest.raises(Conflict):
        store.add_study(study(series=(series(seed=5),)))
    assert np.array_equal(store.volume(store.study(study_id).series[0].id).array, series().volume.array)


def test_another_patient_under_the_same_study_is_refused(store):
    study_id = store.add_study(study())
    with pytest.raises(Refused, match="mixed patients"):
        store.add_study(study(patient="P2", series=(series(uid="9"),)))
    assert len(store.study(study_id).series) == 1


def test_studies_without_uid_are_separate(store):
    assert store.add_study(study(uid="")) != store.add_study(study(uid=""))


def test_a_full_disk_leaves_nothing_and_says_so(store, monkeypatch):
    real, calls = files.write_whole, []

    def fails_at_second(path, data):
        calls.append(path)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(files, "write_whole", fails_at_second)
    with pytest.raises(ReadingRoomError, match="disk is full") as caught:
        store.add_study(study())
    assert caught.value.status == 507
    assert store.studies() == ()
    assert list(store._files.root.iterdir()) == []


def test_a_failing_transaction_leaves_no_files(store, monkeypatch):
    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(store, "_audit", broken)
    with pytest.raises(RuntimeError):
        store.add_study(study())
    assert store.studies() == ()
    assert list(store._files.root.iterdir()) == []


def test_the_worklist_filters_by_text_modality_and_state(store):
    a = store.add_study(study())
    b = store.add_study(study(uid="2", patient="P_2", description="MR head", series=(mr_series(),)))
    assert [s.id for s in store.studies()] == [b, a]
    assert [s.id for s in store.studies(text="MÜLLER anna p_2")] == [b]
    assert store.studies(text="%") == ()
    assert [s.id for s in store.studies(modality="MR")] == [b]
    store.save_report(a, statements=[statement()], free_text="", base_revision=0)
    assert [s.id for s in store.studies(state="drafted")] == [a]
    assert [s.id for s in store.studies(state="new")] == [b]


def mr_series():
    one = series(uid="7")
    return replace(one, modality="MR", volume=replace(one.volume, modality="MR", unit="1"))


def test_the_indication_is_stored_searched_and_limited(store):
    study_id = store.add_study(study())
    store.set_indication(study_id, "Husten\x00 seit\ud800 3 Wochen")
    assert store.study(study_id).indication == "Husten seit? 3 Wochen"
    assert [s.id for s in store.studies(text="husten")] == [study_id]
    with pytest.raises(TooLarge):
        store.set_indication(study_id, "x" * 20_001)


def test_delete_removes_rows_and_files(store):
    study_id = store.add_study(study())
    segment = add_segment(store, study_id)
    store.delete_study(study_id)
    for call in (lambda: store.study(study_id), lambda: store.segment(segment.id), lambda: store.report(study_id)):
        with pytest.raises(NotFound):
            call()
    assert list(store._files.root.iterdir()) == []
    assert store.add_study(study()) != study_id


def test_unknown_ids_are_not_found(store):
    for call in (store.study, store.series, store.volume, store.segment, store.mask, store.evidence, store.report):
        with pytest.raises(NotFound):
            call("../../etc/passwd")


def test_orphans_are_swept_at_start_but_not_what_another_process_may_be_writing(store, tmp_path):
    study_id = store.add_study(study())
    segment = add_segment(store, study_id)
    root = store._files.root
    old = [root / "nobody" / "x.npy", root / study_id / "lost" / "volume.npy", root / study_id / "masks" / "a.npz"]
    fresh = root / study_id / "masks" / ".b.tmp"
    for path in [*old, fresh]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    past = time.time() - 2 * files.ORPHAN_AGE_S
    for path in [*old, old[0].parent, old[1].parent]:
        os.utime(path, (past, past))
    again = Store(settings_in(tmp_path))
    assert not any(p.exists() for p in old)
    assert fresh.exists()
    assert again.mask(segment.id).count > 0
    assert again.volume(store.study(study_id).series[0].id).array.size
    again.close()


def test_header_text_that_databases_refuse_is_cleaned(store):
    row = store.study(store.add_study(study(patient="A\x00B", description="a\udfffb")))
    assert row.patient_id == "AB"
    assert row.description == "a?b"
    assert Patient().id == ""
