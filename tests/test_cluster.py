"""Maps made by several processes: a real Dask cluster on this machine, one worker killed midway, the same bytes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Salakseg, command, write_scene, write_tiny_onnx

from salakseg.errors import ClusterError, RasterError
from salakseg.mapping.cluster import OnCluster, _engine, _same_environment, connect
from salakseg.mapping.plan import Section
from salakseg.mapping.predict import predict_map
from salakseg.network.opening import EngineSpec, ModelFile, open_engine

TILE = 64


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An orthomosaic, a model and its map by a single process; not to be changed."""
    folder = tmp_path_factory.mktemp("field")
    write_scene(folder / "ortho.tif", 1400, 900)
    write_tiny_onnx(folder / "model.onnx", TILE)
    predict_map(folder / "ortho.tif", folder / "map.tif", open_engine(spec(folder)))
    return folder


def spec(field: Path) -> EngineSpec:
    return EngineSpec((ModelFile(field / "model.onnx", "model.onnx"),), tile=TILE, threads=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler and two worker processes."""
    from distributed import LocalCluster

    with _same_environment(), LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as running:
        yield running


def worker_pids(client: Any) -> set[int]:
    return set(client.run(os.getpid).values())


@pytest.mark.slow
def test_two_processes_make_the_map_of_one(field: Path, cluster: Any, tmp_path: Path) -> None:
    with connect(cluster.scheduler_address, None) as client:
        assert len(worker_pids(client) - {os.getpid()}) == 2
        runner = OnCluster(client, spec(field))
        engine = open_engine(spec(field))
        summary = predict_map(field / "ortho.tif", tmp_path / "map.tif", engine, runner=runner)
        opened = client.run(_engine.cache_info)
    assert (tmp_path / "map.tif").read_bytes() == (field / "map.tif").read_bytes()
    assert summary.tiles_run > 0
    assert [info.misses for info in opened.values()] == [1, 1], "each worker opens the model once"
    assert all(info.hits for info in opened.values())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_worker_that_is_killed_changes_nothing(field: Path, cluster: Any, tmp_path: Path) -> None:
    flags = ["predict", str(field / "ortho.tif"), "--model", str(field / "model.onnx"), "--device", "cpu"]
    flags += ["--out", str(tmp_path / "map.tif"), "--scheduler", cluster.scheduler_address]
    with connect(cluster.scheduler_address, None) as client:
        before = worker_pids(client)
        with subprocess.Popen([sys.executable, "-m", "salakseg", *flags], stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and not list(tmp_path.glob(".map.tif.unfinished/stripe-*.json")):
                time.sleep(0.002)
            assert process.poll() is None, "the map was made before a worker could be killed"
            os.kill(min(before), signal.SIGKILL)
            _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
        client.wait_for_workers(2, timeout=60)
        assert min(before) not in worker_pids(client)
    assert (tmp_path / "map.tif").read_bytes() == (field / "map.tif").read_bytes()


@pytest.mark.slow
def test_a_local_cluster_of_the_command(field: Path, salakseg: Salakseg, tmp_path: Path) -> None:
    done = salakseg(
        "predict", field / "ortho.tif", "--model", field / "model.onnx", "--out", tmp_path / "map.tif", "--workers", 2,
        "--device", "cpu",
    )  # fmt: skip
    assert "2 workers" in done.stderr
    assert (tmp_path / "map.tif").read_bytes() == (field / "map.tif").read_bytes()


def test_errors_on_a_worker_come_back_as_one_sentence(field: Path, cluster: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    whole = (field / "ortho.tif").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with (
        connect(cluster.scheduler_address, None) as client,
        pytest.raises(RasterError, match=r"broken\.tif cannot be read"),
    ):
        predict_map(broken, tmp_path / "map.tif", open_engine(spec(field)), runner=OnCluster(client, spec(field)))
    assert not (tmp_path / "map.tif").exists()


def test_a_local_cluster_leaves_the_environment_as_it_was(field: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with connect(None, 1) as client:
        assert client.run(os.getpid)
    assert dict(os.environ) == before


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salakseg.mapping.cluster._PATIENCE_S", 1)
    with pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:9 does not answer"), connect("tcp://127.0.0.1:9", None):
        pass


def test_a_cluster_without_workers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr("salakseg.mapping.cluster._PATIENCE_S", 1)
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as empty,
        pytest.raises(ClusterError, match="dask worker"),
        connect(empty.scheduler_address, None),
    ):
        pass


def test_sections_are_cut_without_loss(field: Path, cluster: Any) -> None:
    with connect(cluster.scheduler_address, None) as client:
        cut = OnCluster(client, spec(field)).cut([Section(0, 0, 100), Section(1, 3, 4)])
    assert [(part.panel, stripe) for part in cut for stripe in range(part.start, part.stop)] == [
        *((0, stripe) for stripe in range(100)),
        (1, 3),
    ]
    assert len(cut) > 4


def test_without_dask_the_remedy_is_told(field: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = command(
        "predict", field / "ortho.tif", "--model", field / "model.onnx", "--out", tmp_path / "m.tif", "--workers", 2,
        "--device", "cpu", status=1,
    )  # fmt: skip
    assert "pip install 'salakseg[cluster]'" in done.output
