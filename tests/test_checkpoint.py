from pathlib import Path
from typing import IO, Any

import pytest
import torch

from salakseg.classes import SALAK
from salakseg.errors import CheckpointError
from salakseg.network.checkpoint import SCHEMA_VERSION, load_checkpoint, save_checkpoint


def test_a_checkpoint_says_what_it_is(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    assert checkpoint.class_map.names == SALAK.names
    assert checkpoint.recipe_name == "phase2"
    assert checkpoint.recipe["selftraining"]["weight"] == 1.5
    assert checkpoint.gsd_m == 0.05
    assert checkpoint.patch_size == 32
    assert checkpoint.iteration in (4, 8)
    assert checkpoint.history[-1]["iteration"] == checkpoint.iteration
    assert len(checkpoint.history[-1]["iou"]) == 7
    assert {role for _, _, role in checkpoint.split} >= {"labelled", "val", "test", "unlabelled"}
    assert checkpoint.versions["torch"] == str(torch.__version__).split("+")[0]
    assert checkpoint.created.endswith("+00:00")
    assert sum(map(sum, checkpoint.evaluation["matrix"])) > 0


def test_it_loads_without_running_code(tiny_checkpoint: Path) -> None:
    content = torch.load(tiny_checkpoint, weights_only=True)
    assert content["schema"] == "salakseg.checkpoint"


def test_both_weights_are_built(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        ema, student = (checkpoint.build(weights)(image).mean_BKHW for weights in ("ema", "student"))
    assert ema.shape == (1, 7, 64, 64)
    assert not torch.equal(ema, student)


def test_it_goes_to_disk_and_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    save_checkpoint(checkpoint, tmp_path / "again.pt")
    again = load_checkpoint(tmp_path / "again.pt")
    assert again.recipe == checkpoint.recipe
    assert again.history == checkpoint.history
    assert all(torch.equal(again.ema[name], value) for name, value in checkpoint.ema.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.pt"]


class Surprise:
    """What a checkpoint from a stranger might hold: unpickling it runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("foreign code ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "no checkpoint of salakseg"),
        ([1, 2], "no checkpoint of salakseg"),
        ({"schema": "salakseg.checkpoint", "schema_version": SCHEMA_VERSION + 1}, "update salakseg"),
        ({"schema": "salakseg.checkpoint", "schema_version": 0}, "train it anew"),
        ({"schema": "salakseg.checkpoint", "schema_version": SCHEMA_VERSION}, "incomplete checkpoint"),
        ({"schema": Surprise()}, "was not run for safety"),
    ],
)
def test_foreign_files_are_told(
    tmp_path: Path, content: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "foreign.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "foreign code ran" not in capsys.readouterr().out


def test_damaged_files_are_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    whole = tiny_checkpoint.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            load_checkpoint(path)
    path.write_text("a letter to my aunt")
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nowhere.pt")


def test_a_full_disk_leaves_the_old_file(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(tiny_checkpoint.read_bytes())

    def fail(content: object, file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match="is the disk full"):
        save_checkpoint(load_checkpoint(path), path)
    assert path.read_bytes() == tiny_checkpoint.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]
