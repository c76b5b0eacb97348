"""Where ONNX Runtime runs, and what a user is told if that is not where they wanted.

No machine of ours that runs these tests has a GPU: a session that really runs on CUDA is not among them.
"""

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from helpers import command, write_scene, write_tiny_onnx

from salakseg.errors import EngineError
from salakseg.network import processor, sessions
from salakseg.network.sessions import nvidia_driver_present, open_session, why_not

CPU = "CPUExecutionProvider"


def install(folder: Path, *packages: str) -> None:
    """Makes packages known to importlib.metadata, by the record that pip leaves."""
    for package in packages:
        record = folder / f"{package.replace('-', '_')}-1.20.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.20\n", encoding="utf-8")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_onnx(tmp_path / "model.onnx", 64)


def test_a_session_on_the_cpu(model: Path) -> None:
    session = open_session(model)
    assert session.get_providers() == [CPU]
    assert why_not("cpu", CPU) is None
    assert why_not("cuda", "CUDAExecutionProvider") is None


@pytest.mark.skipif(nvidia_driver_present(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_fallback_is_found_out(
    model: Path, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sessions, "_installed", lambda package: package == "onnxruntime-gpu")
    provider = open_session(model, device).get_providers()[0]
    assert provider == CPU
    assert "ExecutionProvider" not in "".join(capfd.readouterr()), "ONNX Runtime's own words reach the terminal"
    told = why_not(device, provider)
    assert told is not None
    assert f"cannot use {device} and runs on {CPU}: " in told
    assert "no NVIDIA driver" in told or "built without it" in told


def test_both_packages_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "onnxruntime", "onnxruntime-gpu")
    monkeypatch.syspath_prepend(str(tmp_path))
    told = why_not("cuda", CPU)
    assert told is not None
    assert "onnxruntime and onnxruntime-gpu are both installed" in told
    assert "`pip uninstall onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`" in told


def test_an_emptied_package() -> None:
    """Uninstalling one of two packages can leave an empty folder, which Python imports."""
    code = (
        "import sys, types; sys.modules['onnxruntime'] = types.ModuleType('onnxruntime'); "
        "import salakseg.network.sessions"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "EngineError: ONNX Runtime cannot be imported" in done.stderr


@pytest.mark.parametrize(
    ("providers", "driver", "device", "words"),
    [
        ([CPU], True, "cuda", "`pip install onnxruntime-gpu`"),
        (["CUDAExecutionProvider", CPU], False, "cuda", "no NVIDIA driver; install it, or choose --device cpu"),
        (["CUDAExecutionProvider", CPU], True, "cuda", "`pip install 'onnxruntime-gpu[cuda,cudnn]'`"),
        (["TensorrtExecutionProvider", CPU], True, "tensorrt", "install the TensorRT"),
    ],
)
def test_the_remedy_for_each_cause(
    monkeypatch: pytest.MonkeyPatch, providers: list[str], driver: bool, device: str, words: str
) -> None:
    monkeypatch.setattr(sessions, "_installed", lambda package: package == "onnxruntime-gpu")
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    monkeypatch.setattr(sessions, "nvidia_driver_present", lambda: driver)
    told = why_not(device, CPU)
    assert told is not None
    assert words in told
    assert "\n" not in told


@pytest.mark.skipif(nvidia_driver_present(), reason="there is a GPU")
def test_predict_tells_of_the_fallback_and_goes_on(model: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "field.tif", 70, 80)
    flags = ["--model", model, "--out", tmp_path / "map.tif", "--device", "cuda", "--dry-run"]
    told = " ".join(command("predict", tmp_path / "field.tif", *flags).output.split())
    assert "attention: ONNX Runtime cannot use cuda and runs on CPUExecutionProvider: " in told


def test_threads_follow_what_the_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(processor, "_CGROUP_QUOTA", quota)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert sessions._threads() == 0, "every physical core, as ONNX Runtime counts them"
    quota.write_text("max 100000\n")
    assert sessions._threads() == 0
    quota.write_text("150000 100000\n")
    assert sessions._threads() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert sessions._threads() == 1


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(EngineError, match=r"text\.onnx is no model that ONNX Runtime can load .*; export it anew"):
        open_session(tmp_path / "text.onnx")
