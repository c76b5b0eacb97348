"""Runs that were killed, and what goes on from what they left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cutting import ArrayLabels, label_source, random_image, random_label, tree, write_mosaic, write_photo
from filelock import FileLock
from helpers import command

from salakseg.errors import DataError
from salakseg.prepare.record import StripRecord, read_record
from salakseg.prepare.request import Request
from salakseg.prepare.run import prepare

PATCH = 32


def run(source: Path, root: Path, **more: Any) -> Any:
    return prepare(Request(sources=[source], root=root, **({"patch": PATCH} | more)))


def records(root: Path) -> list[Path]:
    return list((root / ".prepare").rglob("*.jsonl"))


def kill_in_the_middle(sources: list[Path], root: Path, strips: int) -> None:
    """Starts the real command and kills it as soon as so many strips are noted."""
    words = [sys.executable, "-m", "salakseg", "prepare", *sources, "--out", root, "--patch", PATCH]
    process = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while sum(record.read_bytes().count(b"\n") - 1 for record in records(root)) < strips:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows kills otherwise")
def test_killed_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    sources = [write_mosaic(tmp_path / "a" / "o.tif", random_image(2560, 1600)), tmp_path / "a" / "p.png"]
    write_photo(sources[1], random_image(100, 100))
    kill_in_the_middle(sources, tmp_path / "killed", strips=5)
    (record,) = records(tmp_path / "killed")
    begun = len(read_record(record)[1])
    assert 5 <= begun < 80
    said = command("prepare", *sources, "--out", tmp_path / "killed", "--patch", PATCH, status=1).output
    assert "holds a part of the patches of a/o from a run that was stopped; go on with --resume" in said
    first = tmp_path / "killed" / "a" / "images" / "o_patch_000_000.png"
    before = first.stat().st_mtime_ns
    command("prepare", *sources, "--out", tmp_path / "killed", "--patch", PATCH, "--resume")
    assert first.stat().st_mtime_ns == before  # taken over
    command("prepare", *sources, "--out", tmp_path / "unbroken", "--patch", PATCH)
    assert tree(tmp_path / "killed") == tree(tmp_path / "unbroken")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_mosaic(tmp_path / "site.tif", random_image(150, 210))


class Failing(ArrayLabels):
    """Labels that break at a row."""

    broken = True

    def read(self, row: int, col: int, height: int, width: int) -> Any:
        if self.broken and row >= 64:
            raise DataError("the labels are gone")
        return super().read(row, col, height, width)


@pytest.fixture
def stopped(tmp_path: Path, site: Path) -> tuple[Path, Failing]:
    """A root of which two of five strips are cut."""
    labels = Failing(random_label(150, 210))
    with pytest.raises(DataError, match="the labels are gone"):
        run(site, tmp_path / "root", labels=label_source(lambda grid, path: labels))
    labels.broken = False
    assert len(read_record(records(tmp_path / "root")[0])[1]) == 2
    return tmp_path / "root", labels


def finish(site: Path, stopped: tuple[Path, Failing], tmp_path: Path) -> None:
    """Goes on, and compares with an unbroken run."""
    root, labels = stopped
    run(site, root, labels=label_source(lambda grid, path: labels), resume=True)
    run(site, tmp_path / "unbroken", labels=label_source(lambda grid, path: labels))
    assert tree(root) == tree(tmp_path / "unbroken")


def test_stopped_by_an_error(tmp_path: Path, site: Path, stopped: tuple[Path, Failing]) -> None:
    finish(site, stopped, tmp_path)


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path, site: Path, stopped: tuple[Path, Failing]) -> None:
    (record,) = records(stopped[0])
    record.write_bytes(record.read_bytes()[:-9])
    assert len(read_record(record)[1]) == 1
    finish(site, stopped, tmp_path)


@pytest.mark.parametrize("content", [b"", b"{\n", b"\xff\xfe"])
def test_a_record_that_is_no_record(tmp_path: Path, site: Path, stopped: tuple[Path, Failing], content: bytes) -> None:
    records(stopped[0])[0].write_bytes(content)
    finish(site, stopped, tmp_path)


def test_files_that_a_power_cut_damaged_are_cut_anew(tmp_path: Path, site: Path, stopped: tuple[Path, Failing]) -> None:
    folder = stopped[0] / tmp_path.name
    empty, zeros, gone = (folder / "images" / f"site_patch_000_{col:03d}.png" for col in range(3))
    empty.write_bytes(b"")
    zeros.write_bytes(bytes(zeros.stat().st_size))
    gone.unlink()
    (folder / "masks" / "site_patch_001_000.png").write_bytes(b"x")
    finish(site, stopped, tmp_path)


def test_half_files_are_swept_up(tmp_path: Path, site: Path, stopped: tuple[Path, Failing]) -> None:
    for kind in ("images", "masks"):
        (stopped[0] / tmp_path.name / kind / ".site_patch_002_000.png.part").write_bytes(b"half")
    other = stopped[0] / tmp_path.name / "images" / ".site2_patch_002_000.png.part"
    other.write_bytes(b"of another run")
    run(site, stopped[0], labels=label_source(lambda grid, path: stopped[1]), resume=True)
    assert [path for path in stopped[0].rglob("*.part")] == [other]


def test_begun_from_something_else(tmp_path: Path, site: Path, stopped: tuple[Path, Failing]) -> None:
    root, labels = stopped
    source = label_source(lambda grid, path: labels, layer="other")
    before = tree(root)
    with pytest.raises(DataError, match=r"cannot be gone on with, .*options: layer was not given, is other"):
        run(site, root, labels=source, resume=True)
    assert tree(root) == before
    run(site, root, labels=source, overwrite=True)
    run(site, tmp_path / "fresh", labels=source)
    assert tree(root) == tree(tmp_path / "fresh")


def test_two_runs_at_once(tmp_path: Path, site: Path) -> None:
    hidden = tmp_path / "root" / ".prepare"
    hidden.mkdir(parents=True)
    with FileLock(hidden / "lock"), pytest.raises(DataError, match="is being written by another process"):
        run(site, tmp_path / "root")
    assert os.listdir(tmp_path / "root") == [".prepare"]


def test_lines_that_are_none() -> None:
    for line in ("", "3", "{}", "[1]", "[1,2,3,4,[[1]]]", "[1,2,3,4,5]", '[1,2,3,4,[[0,1,{"a":1},[1,2],null]]]'):
        with pytest.raises(ValueError):
            StripRecord.from_line(line)
