"""The doctor: every check stands for itself, and what is broken is named with a remedy."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from salakseg import replacing
from salakseg.cli import doctoring
from salakseg.doctor import libraries, places, torch_build
from salakseg.doctor.examine import examine
from salakseg.doctor.finding import Finding, Status, good
from salakseg.errors import SalaksegError

BLOCKED = """
import sys
for name in ("torch", "rasterio", "onnxruntime", "segmentation_models_pytorch"):
    sys.modules[name] = None
from salakseg.cli.main import main
main()
"""


def test_it_starts_without_the_libraries_and_names_each_on_a_cp1252_terminal(tmp_path: Path) -> None:
    """Their imports fail for real, and what is whole is still examined."""
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "doctor", "--json"], capture_output=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout.decode("cp1252"))
    found = {one["check"]: one for one in told["checks"]}
    assert not told["ok"]
    for name in ("torch", "ONNX Runtime", "GDAL", "loader worker", "training step", "tile"):
        assert found[name]["status"] == "broken", found[name]
        assert found[name]["remedy"]
    assert "pytorch.org/get-started" in found["torch"]["remedy"]
    assert found["tile"] == {
        "check": "tile", "status": "broken", "found": "cannot be tried without torch", "remedy": "see torch above"
    }  # fmt: skip
    assert found["Python"]["status"] == found["disk for cache"]["status"] == "ok"


def test_a_remedy_stays_in_one_line_for_it_may_hold_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    remedy = "without internet take --set network.encoder=timm-tf_efficientnet_lite0, " * 3
    doctoring.tell("weights", Finding(Status.WARNING, "not there", remedy))
    assert remedy.strip() in capsys.readouterr().out


def test_a_torch_that_breaks_while_it_is_imported_is_the_one_fault(tmp_path: Path) -> None:
    """As it does where its GPU libraries are missing; a second import fails with other words."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import builtins\n"
        "if hasattr(builtins, 'tried'):\n"
        "    raise ImportError('torch can only be initialized once')\n"
        "builtins.tried = True\n"
        "raise ImportError('libcudnn.so.9: cannot open shared object file')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from salakseg.cli.main import main; main()", "doctor", "--json"],
        capture_output=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
    assert "libcudnn.so.9" in found["torch"]["found"]
    for name in ("encoder weights", "loader worker", "training step", "tile"):
        assert found[name]["remedy"] == "see torch above", found[name]


def test_what_a_check_raises_hides_no_other() -> None:
    def failing() -> Finding:
        raise RuntimeError("no such thing\nsecond line")

    found = dict(examine({"one": failing, "two": lambda: good("fine")}))
    assert found["one"].status is Status.BROKEN
    assert "no such thing" in found["one"].found
    assert "second line" not in found["one"].found
    assert found["two"].status is Status.OK


def test_a_torch_without_cuda_beside_a_driver_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch_build, "find_driver", lambda: "a card")
    found = torch_build.torch_build()
    assert found.status is Status.WARNING
    assert torch_build.TORCH_PAGE in found.remedy
    monkeypatch.setattr(torch_build, "find_driver", lambda: None)
    assert torch_build.torch_build().status is Status.OK


def test_both_runtime_packages_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "version", lambda _: "1.0")
    found = libraries.runtime_packages()
    assert found.status is Status.BROKEN
    assert "both installed" in found.found


def test_gdal_and_the_session_work_here(tmp_path: Path) -> None:
    assert libraries.gdal().status is Status.OK
    assert "ran on" in libraries.session().found
    (tmp_path / "file").touch()
    assert places.room(tmp_path / "file" / "runs", "move").status is Status.BROKEN


def test_a_file_in_use_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("whole")
    real, left = os.replace, [2]

    def in_use(source: Path, target: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        real(source, target)

    monkeypatch.setattr(os, "replace", in_use)
    monkeypatch.setattr(replacing, "WAIT_S", 0)
    replacing.replace(old, new)
    assert new.read_text() == "whole"
    old.write_text("newer")
    left[0] = 99
    with pytest.raises(SalaksegError, match=r"new cannot be replaced .*close it") as caught:
        replacing.replace(old, new)
    assert isinstance(caught.value, OSError)
    assert new.read_text() == "whole"


def test_fetched_weights_lie_where_the_hub_s_client_puts_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    script = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    known = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert str(tmp_path) in known and known in places.cache_disk().found
