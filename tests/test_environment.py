"""What a run was made with, what changed since, and algorithms that give the same bits."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import TINY, command

from salakseg.data.patches import index_patches
from salakseg.network.checkpoint import load_checkpoint
from salakseg.train.environment import (
    data_fingerprint,
    determinism,
    differences,
    environment,
    git_state,
    read_environment,
)
from salakseg.train.recipe import Recipe

CPU = torch.device("cpu")


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def test_the_state_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "work"
    folder.mkdir()
    assert git_state(folder) is None
    git(folder, "init", "-b", "trunk")
    assert git_state(folder) is None  # nothing committed
    (folder / "notes").write_text("a")
    git(folder, "add", "notes")
    git(folder, "commit", "-m", "one")
    state = git_state(folder)
    assert state is not None and len(state["commit"]) == 40
    assert (state["branch"], state["changed"]) == ("trunk", False)
    (folder / "patches").mkdir()
    (folder / "patches" / "new").write_text("untracked files do not count")
    assert git_state(folder) == state
    (folder / "notes").write_text("b")
    assert git_state(folder) == {**state, "changed": True}
    assert git_state(folder, tracked="notes") is not None
    assert git_state(folder / "patches", tracked="new") is None  # a package installed below somebody's repository
    git(folder, "checkout", "--detach")
    assert (git_state(folder) or {})["branch"] is None
    monkeypatch.setenv("PATH", "")
    assert git_state(folder) is None


def test_the_fingerprint_is_of_names_and_sizes(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    one = data_fingerprint(index_patches(data))
    assert one == data_fingerprint(index_patches(plantation)) and len(one) == 64
    found = [one]
    mask = next(data.rglob("masks/*.png"))
    mask.write_bytes(mask.read_bytes() + b"more")
    found.append(data_fingerprint(index_patches(data)))
    mask.unlink()
    found.append(data_fingerprint(index_patches(data)))
    image = next(data.rglob("images/*.png"))
    image.rename(image.with_name("other.png"))
    found.append(data_fingerprint(index_patches(data)))
    assert len(set(found)) == 4


def test_what_changed_is_named(plantation: Path) -> None:
    index = index_patches(plantation)
    now = environment(Recipe(), index, CPU)
    assert differences(now, now) == []
    assert differences({}, now) == []
    before = json.loads(json.dumps(now))
    before["versions"]["torch"] = "1.0"
    before["threads"] = 99
    before["data"]["fingerprint"] = "other"
    before["git"]["folder"] = {"commit": "a" * 40}
    now["git"]["folder"] = {"commit": "b" * 40}
    before["time"] = before["command"] = None
    told = differences(before, now)
    assert told == [
        "the names or sizes of the patches",
        f"torch (1.0, now {now['versions']['torch']})",
        f"threads (99, now {now['threads']})",
        "the commit of this folder (aaaaaaaaa, now bbbbbbbbb)",
    ]


def test_a_run_folder_says_what_the_run_was_made_with(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    run = tmp_path / "run"
    words = ["--data-root", data, "--checkpoint-dir", run, "--num-steps", 8, "--early-stop-patience", 1, *TINY]
    command("train", "--deterministic", "--set", "seed=7", "--set", "optimizer.learning_rate=1e-12", *words)
    content = read_environment(run / "environment.json")
    assert content is not None
    assert (content["seed"], content["deterministic"], content["device"]) == (7, True, "cpu")
    assert content["data"]["fingerprint"] == data_fingerprint(index_patches(data))
    assert (content["data"]["patches"], content["data"]["labelled"], content["data"]["pack"]) == (24, 16, None)
    assert set(content["git"]) == {"folder", "salakseg"}
    assert content["versions"]["torch"] and content["threads"] >= 1
    # Going on is added, with what differs
    checkpoint = run / "checkpoints" / "last.pt"
    state = torch.load(checkpoint, weights_only=True)
    state["iteration"], state["recipe"]["schedule"]["iterations"] = 8, 10
    torch.save(state, checkpoint)
    content["versions"]["timm"] = "0.0.1"
    (run / "environment.json").write_text(json.dumps(content))
    told = " ".join(command("train", "--resume", run, "--early-stop-patience", 9).output.split())
    assert "changed since the run was last begun: timm (0.0.1, now " in told
    again = read_environment(run / "environment.json")
    assert again is not None
    assert [entry["iteration"] for entry in again["resumed"]] == [8]
    assert again["versions"]["timm"] == "0.0.1", "what it was begun with stays"
    assert load_checkpoint(checkpoint).iteration == 10


def test_a_damaged_environment_is_none(tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    assert read_environment(path) is None
    for content in ("{", "[]", ""):
        path.write_text(content)
        assert read_environment(path) is None


def test_what_has_no_deterministic_algorithm_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    said: list[str] = []
    values, places = torch.zeros(4), torch.tensor([1, 1])
    with determinism(True, said.append):
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
        for _ in range(3):
            values.put_(places, torch.tensor([1.0, 2.0]))
    assert len(said) == 1 and "put_ has no deterministic algorithm on this device" in said[0]
    assert not torch.are_deterministic_algorithms_enabled()
    with determinism(False, said.append):
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_git_that_hangs_is_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> SimpleNamespace:
        raise subprocess.TimeoutExpired("git", 10)

    monkeypatch.setattr(subprocess, "run", hang)
    assert git_state(tmp_path) is None
