"""The way of patches from disk to batches: workers, packs, memory, and which patch is drawn when."""

import math
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, command, write_patch, write_plantation
from hypothesis import given
from hypothesis import strategies as st
from training import quiet, tiny_request

import salakseg.train.in_memory as in_memory
from salakseg.classes import SALAK
from salakseg.data.pack import Codec, Pack
from salakseg.data.packing import pack_patches
from salakseg.data.patches import PatchIndex, index_patches
from salakseg.data.splits import Role
from salakseg.errors import DataError
from salakseg.network.checkpoint import load_checkpoint
from salakseg.train.data import Batch, PatchStream, Steps, step_batches
from salakseg.train.sampling import ByFolder, ByRarity, Shuffled, class_probabilities
from salakseg.train.start import Request, start_run


def two_streams(index: PatchIndex) -> Steps:
    labelled = [patch for patch in index.patches if patch.mask is not None]
    unlabelled = [patch for patch in index.patches if patch.mask is None]
    streams: list[tuple[PatchStream, int | None]] = [
        (PatchStream(index, labelled, SALAK, 32, seed=0, part="labelled"), 0),
        (PatchStream(index, unlabelled, None, 32, seed=1, part="unlabelled"), 2),
    ]
    return Steps(streams, batch_size=3)


def drawn(steps: Steps, workers: int, start_method: str | None = None) -> list[list[Batch | None]]:
    return list(step_batches(steps, 0, 5, workers, pin_memory=False, start_method=start_method))


def assert_same(one: list[list[Batch | None]], other: list[list[Batch | None]]) -> None:
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("workers", "start_method"), [(1, None), (2, None), (2, "spawn")])
@pytest.mark.parametrize("packed", [False, True])
def test_workers_bring_what_the_process_itself_reads(
    plantation: Path, tmp_path: Path, workers: int, start_method: str | None, packed: bool
) -> None:
    """Also started as on Windows, where all that a worker knows is sent to it."""
    index = index_patches(plantation)
    alone = drawn(two_streams(index), 0)
    assert [[batch is not None for batch in step] for step in alone] == [[True, False]] * 2 + [[True, True]] * 3
    if packed:
        pack_patches(index, tmp_path / "pack", SALAK)
        index = replace(index, pack=Pack(tmp_path / "pack"))
    assert_same(alone, drawn(two_streams(index), workers, start_method))


def test_two_processes_read_one_pack(plantation: Path, tmp_path: Path) -> None:
    """And both may make it: the second waits for the first, and finds it whole."""
    data = shutil.copytree(plantation, tmp_path / "patches")
    code = (
        "import sys, zlib; from pathlib import Path\n"
        "from salakseg.classes import SALAK; from salakseg.data.packing import cache_patches, packed_index\n"
        "from salakseg.data.patches import index_patches\n"
        f"index = index_patches(Path({str(data)!r}))\n"
        "cache_patches(index, SALAK, lambda _: None, lambda *_: None)\n"
        "pack = packed_index(index, SALAK)[0].pack\n"
        "print(zlib.crc32(b''.join(pack.image(p).tobytes() for _ in range(20) for p in index.patches)))"
    )
    readers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [reader.communicate(timeout=120)[0].strip() for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0]
    assert found[0] and found[0] == found[1]


def test_cache_packs_on_first_use(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    states = []
    for name, flags in (("files", []), ("first", ["--cache"]), ("again", ["--cache"])):
        words = ["--data-root", data, "--checkpoint-dir", tmp_path / name, "--num-steps", 3, *TINY]
        told = " ".join(command("train", "--phase", 2, *words, *flags).output.split())
        assert ("packing 24 patches into" in told and "about 0.00 GB" in told) is (name == "first")
        assert ("patches are read from" in told) is (name != "files")
        states.append(load_checkpoint(tmp_path / name / "checkpoints" / "last.pt").student)
    assert all(torch.equal(states[0][key], state[key]) for state in states[1:] for key in states[0])
    # Older patches are packed anew, as they were packed
    command("pack", data, "--codec", "webp", "--overwrite")
    next(data.rglob("images/*.png")).touch()
    words = ["--data-root", data, "--checkpoint-dir", tmp_path / "newer", "--num-steps", 3, *TINY]
    assert "packing 24 patches" in command("train", "--cache", *words).output
    assert Pack(data / "pack").codec is Codec.WEBP


def test_a_dry_run_with_cache_packs_nothing(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    command("train", "--dry-run", "--cache", "--data-root", data, "--num-steps", 3, *TINY)
    assert not list(data.glob("*pack*"))


def request(data: Path, run: Path, **settings: Any) -> Request:
    return tiny_request(data, run, iterations=4, start=1, every=4, **settings)


def test_patches_in_memory_are_those_on_disk(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    said: list[str] = []
    from_disk = start_run(request(data, tmp_path / "disk"), quiet, quiet)
    in_ram = start_run(request(data, tmp_path / "ram", data__in_memory=True, data__workers=2), said.append, quiet)
    assert any("GB in memory" in line for line in said)
    # Nothing is read any more: the files may go
    for role in (Role.LABELLED, Role.UNLABELLED, Role.VAL):
        for patch in in_ram.data.part(role):
            in_ram.data.index.image_path(patch).rename(tmp_path / f"{patch.folder}-{patch.image}")
    in_ram.run(quiet)
    for moved in tmp_path.glob("salak-*.png"):
        folder, _, name = moved.name.partition("-DJI")
        moved.rename(data / folder / "images" / f"DJI{name}")
    from_disk.run(quiet)
    own, other = in_ram.network.state_dict(), from_disk.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in other.items())
    assert in_ram.validation.history == from_disk.validation.history


def test_too_little_memory_is_one_sentence(plantation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    assert (in_memory.free_memory() or 2**40) > 2**20
    monkeypatch.setattr(in_memory, "free_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"would take about 0\.0 GB of memory, and 0\.0 GB are free; leave data\."):
        start_run(request(data, tmp_path / "run", data__in_memory=True), quiet, quiet)
    assert not (tmp_path / "run").exists()


# ---- which patch is drawn when


@given(st.integers(1, 40), st.integers(0, 2**31), st.data())
def test_every_patch_once_before_any_again(count: int, seed: int, data: st.DataObject) -> None:
    order = Shuffled(count, seed)
    positions = data.draw(st.permutations(range(2 * count)))
    found = {position: order.draw(position, 0) for position in positions}
    for epoch in range(2):
        assert sorted(found[p] for p in range(epoch * count, (epoch + 1) * count)) == list(range(count))
    attempts = [order.draw(positions[0], attempt) for attempt in range(count)]
    assert sorted(attempts) == list(range(count)), "attempts reach every patch"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 2**31), st.data())
def test_every_folder_once_a_round_and_of_each_every_patch_once_before_any_again(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    folders = [f"flight {number}" for number, size in enumerate(sizes) for _ in range(size)]
    folders = data.draw(st.permutations(folders))
    order, rounds = ByFolder(folders, seed), 2 * max(sizes)
    positions = data.draw(st.permutations(range(rounds * len(sizes))))
    found = {position: order.draw(position, 0) for position in positions}
    by_round = [[found[r * len(sizes) + place] for place in range(len(sizes))] for r in range(rounds)]
    assert all(sorted(folders[n] for n in drawn) == sorted(set(folders)) for drawn in by_round)
    for folder in set(folders):
        mine = [n for drawn in by_round for n in drawn if folders[n] == folder]
        own = [n for n, name in enumerate(folders) if name == folder]
        for start in range(0, rounds - len(own) + 1, len(own)):
            assert sorted(mine[start : start + len(own)]) == own
    first = folders[found[positions[0]]]
    attempts = [order.draw(positions[0], attempt) for attempt in range(len(folders))]
    assert {folders[n] for n in attempts[: folders.count(first)]} == {first}
    assert sorted(attempts) == list(range(len(folders))), "attempts reach every patch, also of a folder that is damaged"


def test_small_folders_are_not_pushed_aside_where_the_recipe_says_so(tmp_path: Path) -> None:
    root = write_plantation(tmp_path / "patches")
    write_patch(root, "salak-1-3", "DJI_0900_patch_000_000.png", np.zeros((48, 48), np.uint8), labelled=False)

    def drawn_from(sampling: str) -> Counter[str]:
        wanted = request(root, tmp_path / sampling, selftraining__sampling=sampling)
        stream = start_run(wanted, quiet, quiet)._stream(Role.UNLABELLED)
        return Counter(stream.patches[stream.order.draw(position, 0)].folder for position in range(90))

    assert drawn_from("folders") == {"salak-1-2": 45, "salak-1-3": 45}
    assert drawn_from("patches") == {"salak-1-2": 80, "salak-1-3": 10}


PIXELS = st.lists(st.lists(st.integers(0, 1000), min_size=3, max_size=3), min_size=1, max_size=12).filter(
    lambda rows: sum(map(sum, rows)) > 0
)


@given(PIXELS, st.sampled_from([0.01, 0.1, 1.0]), st.integers(0, 2**20), st.integers(0, 3))
def test_what_is_drawn_by_rarity_shows_a_class_and_depends_on_the_position_alone(
    rows: list[list[int]], temperature: float, position: int, attempt: int
) -> None:
    pixels_NK = np.array(rows, np.int64)
    order = ByRarity(pixels_NK, temperature, seed=1)
    first = order.draw(position, attempt)
    assert 0 <= first < len(rows) and pixels_NK[first].sum() > 0, "an empty or damaged patch is never drawn"
    for other in range(5):
        order.draw(other, 0)
    assert order.draw(position, attempt) == first == ByRarity(pixels_NK, temperature, seed=1).draw(position, attempt)


def test_the_probabilities_of_daformer() -> None:
    """By the formula in plain arithmetic, and for the shares of the field data."""
    shares = [0.2945, 0.0022, 0.1383, 0.0287, 0.0469, 0.4054, 0.0840]
    pixels_K = np.array([round(1e6 * share) for share in shares], np.int64)
    for temperature in (0.01, 0.1, 0.5):
        weights = [math.exp((1 - pixels / pixels_K.sum()) / temperature) for pixels in pixels_K.tolist()]
        expected = [weight / sum(weights) for weight in weights]
        np.testing.assert_allclose(class_probabilities(pixels_K, temperature), expected, rtol=1e-9)
    warm = class_probabilities(pixels_K, 1e6)
    np.testing.assert_allclose(warm, 1 / 7, rtol=1e-5)
    assert class_probabilities(np.array([5, 0, 1]), 1e-4).tolist() == [0, 0, 1]


def test_rare_classes_come_as_often_as_they_should() -> None:
    pixels_NK = np.array([[100, 0, 0]] * 8 + [[60, 40, 0], [99, 0, 1], [9999, 0, 1]], np.int64)
    order = ByRarity(pixels_NK, 0.5, seed=0)
    found = Counter(order.draw(position, 0) for position in range(20_000))
    probability_K = class_probabilities(pixels_NK.sum(axis=0), 0.5)
    # Class 1 is in patch 8 alone; class 2 shows clearly in patch 9 alone, and a single pixel in 10,000 is not clear
    expected = {n: probability_K[0] / 11 for n in range(11)}
    expected[8] += probability_K[1]
    expected[9] += probability_K[2]
    for n, share in expected.items():
        assert found[n] / 20_000 == pytest.approx(share, abs=4 * math.sqrt(share / 20_000))


def test_sampling_by_rarity_reaches_the_batches(tmp_path: Path) -> None:
    """A class that one patch in ten shows is in more batches than by chance, and a damaged mask is never drawn."""
    data = tmp_path / "patches"
    rows = ["folder,photo,role"]
    for number in range(40):
        label_HW = np.zeros((32, 32), np.uint8)
        label_HW[:, 16:] = 1
        if number % 10 == 0:
            label_HW[:8] = 2
        write_patch(data, "a", f"DJI_{number:04d}_patch_000_000.png", label_HW, True)
        rows.append(f"a,DJI_{number:04d},{'val' if number in (20, 21) else 'labelled'}")
    (data / "splits.csv").write_text("\n".join(rows) + "\n")
    shares = {}
    for sampling in ("uniform", "rarity"):
        wanted = request(data, tmp_path / sampling, data__sampling=sampling, data__batch_size=4)
        changes = {**wanted.changes[0], "selftraining": {"enabled": False}, "schedule": {"iterations": 60, "warmup": 2}}
        trainer = start_run(replace(wanted, changes=[changes]), quiet, quiet)
        batches = list(trainer.labelled_batches())
        shares[sampling] = float(np.mean([(b.label_BHW == 2).any(dim=2).any(dim=1).float().mean() for b in batches]))
        assert trainer.data.patch_pixels.sum(axis=0).tolist() == trainer.data.class_pixels.tolist()
    assert shares["uniform"] == pytest.approx(3 / 38, abs=0.03)
    assert shares["rarity"] > 0.5


def test_a_system_that_says_nothing_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", nothing)
    assert in_memory.free_memory() is None
