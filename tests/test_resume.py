"""Maps that were interrupted: killed from outside at any moment, gone on with, and the same to the byte."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import Salakseg, write_scene, write_tiny_onnx

SIZE = 1400, 1100
TILE = 64


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An orthomosaic and a model; not to be changed."""
    folder = tmp_path_factory.mktemp("field")
    write_scene(folder / "ortho.tif", *SIZE)
    write_tiny_onnx(folder / "model.onnx", TILE)
    return folder


def arguments(field: Path, folder: Path) -> list[str]:
    """Maps in two panels, with all layers."""
    flags = ["--out", "map.tif", "--confidence", "conf.tif", "--probabilities", "prob.tif", "--device", "cpu"]
    return ["predict", str(field / "ortho.tif"), "--model", str(field / "model.onnx"), *(
        str(folder / flag) if flag.endswith(".tif") else flag for flag in flags
    ), "--max-memory", "145"]  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(field: Path, salakseg: Salakseg, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("unbroken")
    salakseg(*arguments(field, folder))
    return content(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def done(folder: Path) -> int:
    return len(list(folder.glob(".map.tif.unfinished/stripe-*.json")))


def kill_after(command: list[str], folder: Path, stripes: int, delay: float) -> bool:
    """Starts a mapping and kills it some time after so many more stripes are done; says if it was still running."""
    before = done(folder)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and done(folder) < before + stripes:
            time.sleep(0.002)
        time.sleep(delay)
        running = process.poll() is None
        process.kill()
        process.communicate()
        assert process.returncode == (-signal.SIGKILL if running else 0)
    return running


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_map_killed_at_random_moments_ends_the_same(
    field: Path, unbroken: dict[str, bytes], salakseg: Salakseg, tmp_path: Path
) -> None:
    random = np.random.default_rng(11)
    command = [sys.executable, "-m", "salakseg", *arguments(field, tmp_path)]
    killed = 0
    for _ in range(4):
        running = kill_after(
            [*command, "--resume"], tmp_path, int(random.integers(1, 8)), float(random.uniform(0, 0.06))
        )
        if not running:
            break
        killed += 1
        assert not (tmp_path / "map.tif").exists()
        assert not any(path.suffix == ".tif" and not path.name.startswith(".") for path in tmp_path.iterdir())
    assert killed >= 2
    finished = done(tmp_path)
    assert finished
    resumed = salakseg(*arguments(field, tmp_path), "--resume")
    assert f"{finished} stripes from before" in " ".join(resumed.stderr.split())
    assert content(tmp_path) == unbroken
    assert not (tmp_path / ".map.tif.unfinished").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_stopped_map_is_not_begun_anew_by_accident(field: Path, salakseg: Salakseg, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "salakseg", *arguments(field, tmp_path)]
    assert kill_after(command, tmp_path, 2, 0.0)
    refused = salakseg(*arguments(field, tmp_path), check=False)
    assert refused.returncode == 1
    for word in (".map.tif.unfinished", "--resume", "--overwrite"):
        assert word in refused.stderr
    other = salakseg(*arguments(field, tmp_path), "--resume", "--overlap", 8, check=False)
    assert other.returncode == 1
    assert "overlap was 12, is 8" in " ".join(other.stderr.split())
    assert done(tmp_path)


def test_ctrl_c_keeps_what_is_done(field: Path, unbroken: dict[str, bytes], salakseg: Salakseg, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "salakseg", *arguments(field, tmp_path)]
    # A job in the background of a shell has Ctrl-C switched off, and hands that down.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=listening) as process:
        while process.poll() is None and not done(tmp_path):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert b"Traceback" not in told
    assert done(tmp_path)
    assert b"--resume" in told
    salakseg(*arguments(field, tmp_path), "--resume")
    assert content(tmp_path) == unbroken
