import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import TINY, command, write_patch
from PIL import Image

import salakseg.data.packing as packing
from salakseg.classes import SALAK, ClassMap
from salakseg.data.masks import read_image, read_mask
from salakseg.data.pack import Codec, Pack
from salakseg.data.packing import PackWriter, cache_patches, fingerprint_of, pack_patches, packed_index
from salakseg.data.patches import PatchIndex, index_patches
from salakseg.errors import DataError
from salakseg.network.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> PatchIndex:
    """Patches of two sizes with odd names, some without a mask; not to be changed."""
    root = tmp_path_factory.mktemp("pack") / "patches"
    generator = np.random.default_rng(0)
    for number in range(20):
        side = 48 if number % 3 else 32
        label_HW = generator.integers(0, 7, (side, side)).astype(np.uint8)
        label_HW[:4, :4] = 255
        write_patch(
            root, "salak, 1" if number % 2 else "ünï", f"a{number:02d}_patch_000_000.png", label_HW, number % 4 > 0
        )
    return index_patches(root)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD_BYTES", 30_000)


def assert_same(pack: Pack, index: PatchIndex, most: int = 0) -> None:
    assert pack.patches == index.patches
    for patch in index.patches:
        image_HWC = read_image(index.image_path(patch))
        difference = np.abs(pack.image(patch).astype(int) - image_HWC).mean()
        assert difference <= most
        if patch.mask is not None:
            np.testing.assert_array_equal(pack.label(patch), read_mask(index.mask_path(patch), SALAK).label_HW)


@pytest.mark.parametrize("codec", list(Codec))
def test_everything_comes_back(patches: PatchIndex, codec: Codec, small_shards: None, tmp_path: Path) -> None:
    done = pack_patches(patches, tmp_path / "pack", SALAK, codec)
    pack = Pack(tmp_path / "pack")
    assert (done.patches, done.resumed) == (20, 0)
    assert_same(pack, patches, most=12 if codec is Codec.JPEG else 0)  # noise is the worst case for JPEG
    assert len(list((tmp_path / "pack").glob("shard-*.bin"))) > 2 or codec is not Codec.RAW
    assert {path.name.split("-")[0] for path in (tmp_path / "pack").iterdir()} == {
        "pack.json", "names.csv", "table.npy", "shard",
    }  # fmt: skip
    unlabelled = next(patch for patch in patches.patches if patch.mask is None)
    with pytest.raises(ValueError, match="is unlabelled"):
        pack.label(unlabelled)


def test_it_travels_to_other_processes(patches: PatchIndex, tmp_path: Path) -> None:
    pack_patches(patches, tmp_path / "pack", SALAK)
    pack = Pack(tmp_path / "pack")
    pack.image(pack.patches[0])
    sent = pickle.dumps(pack)
    assert len(sent) < 5_000, "neither pixels nor names travel"
    np.testing.assert_array_equal(pickle.loads(sent).image(pack.patches[3]), pack.image(pack.patches[3]))


def test_a_second_call_changes_nothing(patches: PatchIndex, tmp_path: Path) -> None:
    pack_patches(patches, tmp_path / "pack", SALAK)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pack").iterdir()}
    done = pack_patches(patches, tmp_path / "pack", SALAK)
    assert (done.patches, done.resumed) == (20, 20)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pack").iterdir()} == before


def test_a_killed_pack_goes_on(patches: PatchIndex, tmp_path: Path) -> None:
    code = (
        "import sys, time; import salakseg.data.packing as p; from pathlib import Path\n"
        "from salakseg.classes import SALAK; from salakseg.data.patches import index_patches\n"
        "p.SHARD_BYTES = 30_000\n"
        f"p.pack_patches(index_patches(Path({str(patches.root)!r})), Path({str(tmp_path / 'pack')!r}), SALAK,\n"
        "               progress=lambda *_: time.sleep(0.05))\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", code])
    work = tmp_path / "pack.unfinished"
    deadline = time.monotonic() + 60
    while not list(work.glob("shard-00001.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "pack").exists()
    seen: list[int] = []
    done = pack_patches(patches, tmp_path / "pack", SALAK, progress=lambda n, _: seen.append(n))
    assert done.patches == 20 and 0 < done.resumed < 20
    assert seen == list(range(done.resumed + 1, 21)), "what was packed is not packed again"
    assert_same(Pack(tmp_path / "pack"), patches)
    assert not work.exists()


def test_an_unfinished_pack_of_other_patches_is_not_gone_on_with(
    patches: PatchIndex, small_shards: None, tmp_path: Path
) -> None:
    with PackWriter(tmp_path / "pack", SALAK, Codec.RAW, "other") as writer:
        for patch in patches.patches[:10]:
            writer.add(patch, np.zeros((64, 64, 3), np.uint8), None)
    assert list((tmp_path / "pack.unfinished").glob("shard-*.bin"))
    assert pack_patches(patches, tmp_path / "pack", SALAK).resumed == 0
    assert_same(Pack(tmp_path / "pack"), patches)


def test_another_split_leaves_a_pack_as_it_is(patches: PatchIndex, tmp_path: Path) -> None:
    """Blocks of ground give patches other photos, and no other pixels."""
    other = replace(patches, patches=tuple(replace(patch, photo=f"{patch.photo}.000") for patch in patches.patches))
    assert packing.fingerprint_of(patches, SALAK, Codec.RAW) == packing.fingerprint_of(other, SALAK, Codec.RAW)


def test_patches_that_changed(patches: PatchIndex, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    for patch in patches.patches:
        for path in (patches.image_path(patch), *([patches.mask_path(patch)] if patch.mask else [])):
            copy = folder / path.relative_to(patches.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    index = index_patches(folder)
    pack_patches(index, tmp_path / "pack", SALAK)
    side = read_image(index.image_path(index.patches[1])).shape[0]
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(index.image_path(index.patches[1]))
    assert fingerprint_of(index, SALAK, Codec.RAW) != Pack(tmp_path / "pack").fingerprint
    with pytest.raises(DataError, match="holds a pack of other or older patches; add --overwrite"):
        pack_patches(index, tmp_path / "pack", SALAK)
    pack_patches(index, tmp_path / "pack", SALAK, overwrite=True)
    assert not Pack(tmp_path / "pack").image(index.patches[1]).any()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("pack.json", None, "is no finished pack"),
        ("pack.json", b"{", "is no finished pack"),
        ("pack.json", b'{"schema": "salakseg.pack", "version": 9}', "of another version"),
        ("pack.json", b'{"schema": "salakseg.pack", "version": 1}', "cannot be read"),
        ("shard-00000.bin", b"short", "is missing or cut off"),
        ("names.csv", b"folder,image,mask,photo\n", "is missing or cut off"),
        ("table.npy", b"short", "is missing or cut off"),
    ],
)
def test_damage_is_told(patches: PatchIndex, tmp_path: Path, name: str, change: bytes | None, words: str) -> None:
    pack_patches(patches, tmp_path / "pack", SALAK)
    path = tmp_path / "pack" / name
    path.unlink() if change is None else path.write_bytes(change)
    with pytest.raises(DataError, match=words):
        pack = Pack(tmp_path / "pack")
        pack.image(pack.patches[0])


def test_a_damaged_pack_is_made_anew(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    index = index_patches(data)
    command("pack", data)
    for by_hand in (True, False):
        shard = data / "pack" / "shard-00000.bin"
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(DataError, match="is missing or cut off"):
            packed_index(index, SALAK)
        if by_hand:
            command("pack", data, "--overwrite")
        else:  # what `train --cache` does
            cache_patches(index, SALAK, lambda _: None, lambda *_: None)
        assert packed_index(index, SALAK)[0].pack is not None
    assert not (data / ".pack.old").exists()


@pytest.mark.parametrize("codec", list(Codec))
def test_a_flipped_bit_is_told(patches: PatchIndex, codec: Codec, tmp_path: Path) -> None:
    pack_patches(patches, tmp_path / "pack", SALAK, codec)
    path = tmp_path / "pack" / "shard-00000.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    pack = Pack(tmp_path / "pack")
    with pytest.raises(DataError, match=f"is damaged at the patch {pack.patches[0].folder}/"):
        pack.image(pack.patches[0])
    assert pack.image(pack.patches[1]).any()


def test_room_and_places(patches: PatchIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="exists and is no pack; name another folder"):
        pack_patches(patches, tmp_path / "mine", SALAK, overwrite=True)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"would need about 0\.0 GB, and 0\.0 GB are free"):
        pack_patches(patches, tmp_path / "pack", SALAK)
    assert not (tmp_path / "pack").exists()


def test_the_command(patches: PatchIndex, tmp_path: Path) -> None:
    told = command("pack", patches.root, "--out", tmp_path / "pack", "--dry-run").output
    assert "20 patches, 15 with a mask, about 0.00 GB as raw" in told
    assert not (tmp_path / "pack").exists()
    assert "20 patches, 0.00 GB" in command("pack", patches.root, "--out", tmp_path / "pack", "--codec", "webp").output
    told = command("pack", patches.root, "--out", tmp_path / "pack", "--codec", "webp").output
    assert "is there already and up to date" in told
    assert json.loads((tmp_path / "pack" / "pack.json").read_text())["codec"] == "webp"
    assert "Where are the patches?" in command("pack", cwd=tmp_path, status=1).output


@pytest.mark.parametrize("workers", [0, 1])
def test_training_from_a_pack_is_the_same(plantation: Path, tmp_path: Path, workers: int) -> None:
    data = tmp_path / "patches"
    shutil.copytree(plantation, data)
    states = []
    for name in ("files", "pack"):
        if name == "pack":
            command("pack", data)
        flags = ["--data-root", data, "--checkpoint-dir", tmp_path / name, "--num-steps", 3, *TINY]
        told = command("train", "--phase", 2, *flags, "--set", f"data.workers={workers}").output
        assert ("patches are read from" in told) is (name == "pack")
        states.append(load_checkpoint(tmp_path / name / "checkpoints" / "last.pt").student)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_pack_that_does_not_fit_is_not_used(plantation: Path, tmp_path: Path) -> None:
    data = tmp_path / "patches"
    shutil.copytree(plantation, data)
    index = index_patches(data)
    assert packed_index(index, SALAK) == (index, None)
    command("pack", data)
    found, told = packed_index(index, SALAK)
    assert found.pack is not None and "patches are read from" in str(told)
    colors = [one["color"] for one in SALAK.to_records()]
    swapped = ClassMap.from_records(
        [one | {"color": color} for one, color in zip(SALAK.to_records(), [*colors[1:], colors[0]], strict=True)], "x"
    )
    found, told = packed_index(index, swapped)  # masks in colours would be read otherwise now
    assert found.pack is None and "is not used" in str(told)
    others = ClassMap.from_records([one | {"name": f"class {one['id']}"} for one in SALAK.to_records()], "others")
    assert "holds labels of other classes and is not used" in str(packed_index(index, others)[1])
    index.image_path(index.patches[0]).touch()
    found, told = packed_index(index, SALAK)
    assert found.pack is None and "is of other or older patches and is not used" in str(told)
