"""Fixtures: the real command, a small patch folder, and a run on it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # before torch is loaded: they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import pytest
from exports import built_once
from helpers import TINY, Salakseg, command, write_plantation
from patch_sets import write_clean_set

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session", autouse=True)
def _graphs_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands in the tests' own processes export the same network once; `test_export_families.py` always does."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "graphs"  # one for all workers
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("salakseg.export.source.build_graph", built_once(folder))
        yield


@pytest.fixture(scope="session")
def salakseg() -> Salakseg:
    """Runs the real command in a process of its own."""

    def run(*arguments: object, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "salakseg", *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=1_800)  # hangs, not slowness
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def plantation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small patch folder; not to be changed."""
    return write_plantation(tmp_path_factory.mktemp("plantation") / "patches")


@pytest.fixture(scope="session")
def clean_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch folder with a split and without a fault; not to be changed."""
    return write_clean_set(tmp_path_factory.mktemp("clean") / "patches")


@pytest.fixture
def root(clean_set: Path, tmp_path: Path) -> Path:
    """A copy of the clean folder, to plant a fault in."""
    return Path(shutil.copytree(clean_set, tmp_path / "my pätches"))


@pytest.fixture(scope="session")
def tiny_run(plantation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of phase 2 on the small patch folder; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    data = tmp_path_factory.mktemp("data") / "patches"
    shutil.copytree(plantation, data)
    command("train", "--phase", 2, "--data-root", data, "--checkpoint-dir", run, "--num-steps", 8, "--gsd", 0.05, *TINY)
    return run


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run: Path) -> Path:
    """The best checkpoint of `tiny_run`."""
    return tiny_run / "checkpoints" / "best.pt"


@pytest.fixture(scope="session")
def untrained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights and a made-up validation, where no training is worth its time."""
    import torch  # not before the number of threads is set

    from salakseg.classes import SALAK
    from salakseg.network.checkpoint import Checkpoint, save_checkpoint
    from salakseg.network.config import NetworkConfig
    from salakseg.network.model import Segmenter

    torch.manual_seed(0)
    network = NetworkConfig(encoder="timm-tf_efficientnet_lite0", encoder_weights="none")
    weights = Segmenter(network, len(SALAK)).state_dict()
    matrix = [[90 if row == column else 2 * column + 1 for column in range(len(SALAK))] for row in range(len(SALAK))]
    path = tmp_path_factory.mktemp("untrained") / "untrained.pt"
    save_checkpoint(
        Checkpoint(
            network=network,
            classes=SALAK.to_records(),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            patch_size=32,
            student=weights,
            ema=weights,
            recipe_name="untrained",
            recipe={},
            gsd_m=0.05,
            evaluation={"part": "val", "patches": 1, "matrix": matrix},
        ),
        path,
    )
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """An installed Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
