"""Segments and masks through the store."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from core_models.errors import Conflict, NotFound, ReadingRoomError, Refused
from core_models.segmentation.edits import Grow, Interpolation, Stroke
from core_models.segmentation.engine import Alternative, Box, Click, Lasso, Mask, Scribble
from core_models.segmentation.history import Step
from tests.store.samples import add_segment, mask, settings_in, statement, study
from webapp.store import Store, encoding, schema
from webapp.store.segments import MAX_STEPS, PALETTE


@pytest.fixture
def study_id(store):
    return store.add_study(study())


def save(store, segment, **changes):
    values = {"steps": (Step(Click((1, 1, 1))),), "undone": (), "mask": mask(seed=3), "confidence": 0.5}
    return store.save_segment(segment.id, **{**values, **changes})


def mask_files(store, study_id):
    return sorted(p.name for p in (store._files.root / study_id / "masks").iterdir())


def long_deleted(store):
    """All that is deleted now was deleted long ago."""
    t = schema.segments
    with store._db.write() as c:
        c.execute(t.update().where(t.c.deleted_at.is_not(None)).values(deleted_at="2020-01-01T00:00:00.000+00:00"))


def again(store):
    """Another process opens the same home."""
    Store(settings_in(store._files.root.parents[1])).close()


def test_a_segment_comes_back_as_it_was(store, study_id):
    row = add_segment(store, study_id, suggested="liver?")
    assert row == store.segment(row.id) == store.segments(study_id)[0]
    assert row.clicks == (Click((1, 2, 3)), Click((4, 5, 1), False))
    assert (row.number, row.colour, row.suggested, row.measurement) == (1, PALETTE[0], "liver?", {"volume_ml": 1.5})
    assert np.array_equal(store.mask(row.id).full(), mask().full())
    z, y, x = mask().offset
    assert row.box == (x, y, z, *mask().voxels.shape[::-1])


def test_a_models_drawing_stays_beneath_every_later_mask_and_goes_with_its_segment(store, study_id):
    by_clicks = add_segment(store, study_id)
    assert (by_clicks.based, store.base(by_clicks.id)) == (False, None)
    row = add_segment(store, study_id, steps=(), based=True)
    assert row.based
    after = save(store, row)
    assert after.mask_file != row.mask_file
    assert np.array_equal(store.mask(row.id).full(), mask(seed=3).full())
    assert np.array_equal(store.base(row.id).full(), mask().full())
    for path in (store._files.root / study_id / "masks").iterdir():
        os.utime(path, (0, 0))
    store._sweep()
    assert len(mask_files(store, study_id)) == 3, "a drawing is no orphan"
    store.delete_segment(row.id)
    store.delete_segment(by_clicks.id)
    assert len(mask_files(store, study_id)) == 3, "kept for undo"
    long_deleted(store)
    again(store)
    assert mask_files(store, study_id) == []


def test_a_save_replaces_the_mask_and_its_file(store, study_id):
    row = add_segment(store, study_id)
    before = mask_files(store, study_id)
    changed = save(store, row, undone=(Step(Click((0, 0, 0))),), measurement=None, label="spleen")
    assert np.array_equal(store.mask(row.id).full(), mask(seed=3).full())
    assert (changed.label, changed.measurement, changed.undone) == ("spleen", None, (Step(Click((0, 0, 0))),))
    after = mask_files(store, study_id)
    assert len(after) == 1
    assert after != before


def test_an_empty_mask_is_kept(store, study_id):
    row = add_segment(store, study_id, mask=Mask.from_full(np.zeros((4, 6, 8), bool)))
    assert store.mask(row.id).empty
    assert row.box == (0, 0, 0, 0, 0, 0)


def test_a_mask_of_another_volume_or_out_of_it_is_refused(store, study_id):
    for wrong in (mask((5, 6, 8)), Mask((3, 0, 0), np.ones((2, 1, 1), bool), (4, 6, 8))):
        with pytest.raises(Refused):
            add_segment(store, study_id, mask=wrong)
    assert store.segments(study_id) == ()
    assert not (store._files.root / study_id / "masks").exists()


def test_a_series_of_another_study_is_not_found(store, study_id):
    other = store.add_study(study(uid="other"))
    with pytest.raises(NotFound):
        store.add_segment(
            study_id,
            store.study(other).series[0].id,
            label="",
            suggested=False,
            steps=(),
            mask=mask(),
            engine="",
            engine_version="",
            confidence=0.0,
        )


def test_numbers_and_colours_are_not_given_again(store, study_id):
    first, second = add_segment(store, study_id), add_segment(store, study_id)
    store.delete_segment(second.id)
    third = add_segment(store, study_id)
    assert (first.number, third.number) == (1, 3)
    assert store.segments(study_id) == (first, third)
    assert store.restore_segment(second.id) == second
    assert store.segments(study_id) == (first, second, third)
    assert add_segment(store, study_id).number == 4


def test_a_deleted_segment_comes_back_exactly_as_it_was(store, study_id):
    row = add_segment(store, study_id, steps=(), based=True, suggested="liver?")
    row = save(store, row, undone=(Step(Click((0, 0, 0))),), hint=Click((3, 2, 1)), measurement={"volume_ml": 2.5})
    row = store.edit_segment(row.id, colour="#102030", visible=False, outline=True)
    store.delete_segment(row.id)
    assert store.segments(study_id) == ()
    assert store.restore_segment(row.id) == row == store.segment(row.id)
    assert store.segments(study_id) == (row,)
    assert np.array_equal(store.mask(row.id).full(), mask(seed=3).full())
    assert np.array_equal(store.base(row.id).full(), mask().full())


def test_a_deleted_segment_is_not_found_by_anything_else(store, study_id):
    row = add_segment(store, study_id, based=True)
    store.delete_segment(row.id)
    asks = (
        lambda: store.segment(row.id),
        lambda: store.mask(row.id),
        lambda: store.base(row.id),
        lambda: save(store, row),
        lambda: store.edit_segment(row.id, label="x"),
        lambda: store.delete_segment(row.id),
    )
    for ask in asks:
        with pytest.raises(NotFound):
            ask()
    assert len(mask_files(store, study_id)) == 2, "a refused save leaves no file"


def test_only_what_is_deleted_can_be_restored(store, study_id):
    row = add_segment(store, study_id)
    for which in (row.id, "none"):
        with pytest.raises(NotFound):
            store.restore_segment(which)
    store.delete_segment(row.id)
    store.restore_segment(row.id)
    with pytest.raises(NotFound, match="here already"):
        store.restore_segment(row.id)


def test_of_many_deleted_ones_the_oldest_go_with_their_files(store, study_id, monkeypatch):
    monkeypatch.setattr("webapp.store.deleted.KEPT", 2)
    other = store.add_study(study(uid="other"))
    elsewhere = add_segment(store, other)
    store.delete_segment(elsewhere.id)
    first, second, third = (add_segment(store, study_id, based=n == 0) for n in range(3))
    for row in (second, first, third):
        store.delete_segment(row.id)
    assert {name.partition("-")[0] for name in mask_files(store, study_id)} == {first.id, third.id}
    with pytest.raises(NotFound, match="gone for good"):
        store.restore_segment(second.id)
    assert store.restore_segment(elsewhere.id) == elsewhere, "each study has its own"
    assert (store.restore_segment(first.id), store.restore_segment(third.id)) == (first, third)


def test_signing_lets_go_of_what_was_deleted(store, study_id):
    kept, gone = add_segment(store, study_id), add_segment(store, study_id, based=True)
    store.delete_segment(gone.id)
    store.save_report(study_id, statements=[statement()], free_text="", base_revision=0)
    store.sign(study_id, author="Dr A", base_revision=1)
    assert mask_files(store, study_id) == [kept.mask_file]
    with pytest.raises(Conflict):
        store.restore_segment(gone.id)
    with pytest.raises(NotFound):
        store.restore_segment(kept.id)


def test_opening_the_store_forgets_old_deletions_and_no_others(store, study_id):
    old, new = add_segment(store, study_id), add_segment(store, study_id)
    store.delete_segment(old.id)
    long_deleted(store)
    store.delete_segment(new.id)
    again(store)
    assert mask_files(store, study_id) == [new.mask_file]
    with pytest.raises(NotFound):
        store.restore_segment(old.id)
    assert store.restore_segment(new.id) == new


def test_deleting_a_study_takes_its_deleted_segments_along(store, study_id):
    row = add_segment(store, study_id)
    store.delete_segment(row.id)
    store.delete_study(study_id)
    assert not (store._files.root / study_id).exists()
    with pytest.raises(NotFound):
        store.restore_segment(row.id)
    with store._db.read() as c:
        assert c.execute(schema.segments.select()).all() == []


def test_looks_can_be_edited_and_a_readers_label_is_no_suggestion(store, study_id):
    row = add_segment(store, study_id)
    edited = store.edit_segment(row.id, label="left kidney", colour="#A0B0c0", visible=False)
    assert (edited.label, edited.suggested, edited.colour, edited.visible) == ("left kidney", False, "#a0b0c0", False)
    with pytest.raises(Refused):
        store.edit_segment(row.id, colour="red;background:url(x)")


def test_the_number_of_clicks_is_limited(store, study_id):
    with pytest.raises(Refused):
        add_segment(store, study_id, steps=(Step(Click((0, 0, 0))),) * (MAX_STEPS + 1))


def test_a_signed_study_keeps_its_segments(store, study_id):
    row = add_segment(store, study_id)
    store.save_report(study_id, statements=[statement()], free_text="", base_revision=0)
    store.sign(study_id, author="Dr A", base_revision=1)
    changes = (
        lambda: save(store, row),
        lambda: add_segment(store, study_id),
        lambda: store.delete_segment(row.id),
        lambda: store.edit_segment(row.id, label="x"),
    )
    for change in changes:
        with pytest.raises(Conflict):
            change()
    assert np.array_equal(store.mask(row.id).full(), mask().full())
    assert len(mask_files(store, study_id)) == 1
    assert store.edit_segment(row.id, visible=False).visible is False


def test_a_damaged_mask_file_is_an_error_with_a_sentence(store, study_id):
    row = add_segment(store, study_id)
    path = store._files.root / study_id / "masks" / mask_files(store, study_id)[0]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ReadingRoomError, match="damaged"):
        store.mask(row.id)


def test_readers_see_a_whole_mask_while_another_thread_saves(store, study_id):
    row = add_segment(store, study_id)
    wanted = {mask(seed=s).full().tobytes() for s in range(5)}
    failures = []

    def saves():
        try:
            for n in range(20):
                save(store, row, mask=mask(seed=n % 5))
        except Exception as e:
            failures.append(e)

    thread = threading.Thread(target=saves)
    thread.start()
    while thread.is_alive():
        assert store.mask(row.id).full().tobytes() in wanted
    thread.join()
    assert not failures


EVERY = (
    Step(Click((1, 2, 3), False), 12.5, 1.25, 0.5, "ml"),
    Step(Scribble(((1, 2, 3), (4, 2, 3)), False)),
    Step(Box((1, 2, 3), (4, 5, 3))),
    Step(Lasso(((1, 2, 3), (4, 2, 3), (4, 5, 3)))),
    Step(Alternative()),
    Step(Stroke(((1, 2, 3), (4, 2, 3)), 2.5, 1, False), 3.0),
    Step(Interpolation(0)),
    Step(Grow((1, 2, 3), -50.0, 12.5, False)),
)


def test_steps_of_every_kind_come_back_as_they_were(store, study_id):
    row = add_segment(store, study_id, steps=EVERY[:4], undone=EVERY[4:])
    assert (row.steps, row.undone) == (EVERY[:4], EVERY[4:])
    assert {type(step.action) for step in EVERY} == set(encoding.ACTIONS.values())


def test_a_row_of_an_older_version_holds_clicks_alone(store, study_id):
    row = add_segment(store, study_id)
    with store._db.write() as c:
        c.execute(schema.segments.update().values(clicks=[[1, 2, 3, True], [4, 5, 1, False]], undone=[[0, 0, 0, True]]))
    assert store.segment(row.id).steps == (Step(Click((1, 2, 3))), Step(Click((4, 5, 1), False)))
    assert store.segment(row.id).undone == (Step(Click((0, 0, 0))),)


def test_what_the_engine_expects_of_another_click_is_kept_with_the_mask(store, study_id):
    row = add_segment(store, study_id, hint=Click((3, 2, 1), False), settled=True)
    assert (row.hint, row.settled) == (Click((3, 2, 1), False), True)
    assert (save(store, row).hint, save(store, row).settled) == (None, False)


def test_the_points_of_all_lines_together_are_limited(store, study_id, monkeypatch):
    monkeypatch.setattr("webapp.store.segments.MAX_POINTS", 6)
    line = Step(Scribble(((0, 0, 0),) * 3))
    row = add_segment(store, study_id, steps=(line, line))
    with pytest.raises(Refused, match="too many points"):
        save(store, row, steps=(line, line), undone=(line,))


def test_a_mask_file_of_an_older_version_is_read(store, study_id):
    row = add_segment(store, study_id)
    found = store.mask(row.id)
    (path,) = store._files.root.glob(f"{study_id}/masks/*.npz")
    np.savez_compressed(path, offset=found.offset, shape=found.shape, voxels=found.voxels)
    assert np.array_equal(store.mask(row.id).full(), found.full())
