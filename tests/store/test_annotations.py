"""What a reader measured by hand outlives the process, keeps its number, and stays as it is once signed."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from core_models.errors import Conflict, NotFound, Refused, TooLarge
from core_models.segmentation.lines import Number
from tests.store.samples import MODEL, add_segment, settings_in, statement, study
from webapp.store import Store, annotations

POINTS = ((1.0, 2.5, 3.0), (4.0, 2.5, 3.0))
NUMBERS = (Number("length", "length", 1.5, "mm"),)


@pytest.fixture
def study_id(store) -> str:
    return store.add_study(study())


def add(store, study_id, **changes):
    values = {"kind": "length", "plane": "axial", "points": POINTS, "numbers": NUMBERS, **changes}
    return store.add_annotation(store.study(study_id).series[0].id, **values)


def test_it_survives_a_new_start_and_keeps_its_order(tmp_path):
    first = Store(settings_in(tmp_path))
    study_id = first.add_study(study())
    rows = (add(first, study_id, label="nodule"), add(first, study_id, kind="probe", points=POINTS[:1]))
    first.close()
    again = Store(settings_in(tmp_path))
    assert again.annotations(study_id) == rows
    assert [row.number for row in rows] == [1, 2]
    assert [row.title(flat=False) for row in rows] == ["nodule", f"axial slice {round(POINTS[0][2]) + 1}"]
    assert rows[1].title(flat=True) == "image"
    again.close()


def test_a_deleted_ones_number_is_not_given_again(store, study_id):
    gone = add(store, study_id)
    store.delete_annotation(gone.id)
    assert add(store, study_id).number == 2
    with pytest.raises(NotFound):
        store.annotation(gone.id)
    with pytest.raises(NotFound):
        store.delete_annotation(gone.id)


def test_points_and_label_change_apart(store, study_id):
    row = add(store, study_id)
    moved = store.edit_annotation(row.id, points=POINTS[::-1], numbers=(Number("length", "length", 9.0, "mm"),))
    assert (moved.points, moved.numbers[0].value, moved.label) == (POINTS[::-1], 9.0, "")
    assert store.edit_annotation(row.id, label="cyst").points == POINTS[::-1]
    with pytest.raises(TooLarge):
        store.edit_annotation(row.id, label="x" * 201)


def test_a_signed_study_takes_no_change(store, study_id):
    row = add(store, study_id)
    store.save_report(study_id, statements=[statement()], free_text="", base_revision=0, model=MODEL)
    store.sign(study_id, author="Dr A", base_revision=1)
    for change in (
        lambda: add(store, study_id),
        lambda: store.edit_annotation(row.id, label="cyst"),
        lambda: store.delete_annotation(row.id),
    ):
        with pytest.raises(Conflict):
            change()
    assert store.annotations(study_id) == (row,)


def test_it_goes_with_its_study(store, study_id):
    row = add(store, study_id)
    store.delete_study(study_id)
    with pytest.raises(NotFound):
        store.annotation(row.id)
    with pytest.raises(NotFound):
        add(store, store.add_study(study(uid="1.2.4")), points=POINTS) and store.annotations(study_id)


def test_there_is_an_end_to_how_many(store, study_id, monkeypatch):
    monkeypatch.setattr(annotations, "MAX_ANNOTATIONS", 2)
    add(store, study_id)
    add(store, study_id)
    with pytest.raises(Refused, match="at most 2"):
        add(store, study_id)


def test_a_database_of_before_gains_the_tables_and_keeps_its_segments(tmp_path):
    store = Store(settings_in(tmp_path))
    study_id = store.add_study(study())
    segment = add_segment(store, study_id)
    store._db.migrate("0005")
    assert "annotations" not in sa.inspect(store._db.engine).get_table_names()
    store.close()
    again = Store(settings_in(tmp_path))
    assert again.segments(study_id) == (segment,)
    assert not again.segment(segment.id).outline
    assert again.edit_segment(segment.id, outline=True).outline
    assert add(again, study_id).number == 1
    again.close()
