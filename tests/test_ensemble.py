"""One pass over the patches beside running every variant by itself, and what else the pass counts."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from salakseg.data.masks import read_image, read_mask
from salakseg.data.patches import Patch, PatchIndex, Photo, index_patches
from salakseg.errors import CheckpointError, DataError, EngineError
from salakseg.evaluate.analyse import analyse
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.ensemble import Evaluation, evaluate
from salakseg.evaluate.examples import choose_pictures, draw_pictures
from salakseg.evaluate.inference import confusion_of
from salakseg.evaluate.subjects import Subject, held_out_patches, open_subjects
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.network.combine import MeanEngine, TurnedEngine
from salakseg.network.digest import sha256_of
from salakseg.network.heads import Logits
from salakseg.network.torch_engine import TorchEngine
from salakseg.network.variant import Variant

CPU = torch.device("cpu")
SIDE = 48  # of the patches of the small plantation


@pytest.fixture(scope="module")
def pair(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The best checkpoint, and the same run's last one with its heads stirred, so that they disagree."""
    folder = tmp_path_factory.mktemp("pair")
    generator = torch.Generator().manual_seed(0)
    for name in ("best.pt", "last.pt"):
        checkpoint = load_checkpoint(tiny_run / "checkpoints" / name)
        for weights in (checkpoint.ema, checkpoint.student):
            for key, tensor in weights.items():
                if key.startswith("heads.") and key.endswith("weight"):
                    weights[key] = tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        save_checkpoint(checkpoint, folder / name)
    return [folder / "best.pt", folder / "last.pt"]


@pytest.fixture(scope="module")
def subjects(pair: list[Path]) -> list[Subject]:
    return open_subjects(pair, CPU)


@pytest.fixture(scope="module")
def index(subjects: list[Subject]) -> PatchIndex:
    return index_patches(Path(subjects[0].checkpoint.data_root))


@pytest.fixture(scope="module")
def patches(subjects: list[Subject], index: PatchIndex) -> tuple[Patch, ...]:
    return held_out_patches(subjects, index, "test")[1]


@pytest.fixture(scope="module")
def evaluation(subjects: list[Subject], index: PatchIndex, patches: tuple[Patch, ...]) -> Evaluation:
    return evaluate(subjects, index, patches, tta=True, ensemble=True)


def row_of(evaluation: Evaluation, subject: int | None, weights: str, heads: str, tta: bool) -> int:
    (found,) = (
        v
        for v, row in enumerate(evaluation.rows)
        if (row.subject, row.way.variant.weights, row.way.variant.heads, row.way.tta) == (subject, weights, heads, tta)
    )
    return found


def matrix_by(
    engine: TorchEngine | TurnedEngine | MeanEngine, index: PatchIndex, patches: tuple[Patch, ...]
) -> NDArray[np.int64]:
    """The confusion matrix of an engine, as `salakseg predict` runs it."""
    matrix = ConfusionMatrix(len(engine.class_map))
    for patch in patches:
        image = read_image(index.image_path(patch)).transpose(2, 0, 1)[None]
        label = read_mask(index.mask_path(patch), engine.class_map).label_HW
        matrix.update(label, engine.predict(np.ascontiguousarray(image)).argmax(axis=1)[0])
    return matrix.counts


def nearly_equal(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> None:
    """Equal but for a pixel in a thousand, where rounding in another order decides a tie."""
    assert np.abs(ours - theirs).sum() <= 2e-3 * theirs.sum()
    assert ours.sum() == theirs.sum() > 0


@pytest.mark.parametrize("weights", ["ema", "student"])
@pytest.mark.parametrize("heads", ["mean", "prob", "vote", "diversenet", "2"])
@pytest.mark.parametrize("tta", [False, True])
def test_every_variant_is_what_predict_would_make_of_it(
    pair: list[Path],
    index: PatchIndex,
    patches: tuple[Patch, ...],
    evaluation: Evaluation,
    weights: str,
    heads: str,
    tta: bool,
) -> None:
    engine = TorchEngine(pair[0], "cpu", SIDE, "ema" if weights == "ema" else "student", heads)
    v = row_of(evaluation, 0, weights, heads, tta)
    nearly_equal(
        evaluation.counts_PVKK[:, v].sum(axis=0), matrix_by(TurnedEngine(engine) if tta else engine, index, patches)
    )


def test_an_engine_tells_the_digest_of_the_weights_that_it_has(
    pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training may replace a checkpoint while it is read."""
    path = tmp_path / "best.pt"
    shutil.copy(pair[0], path)
    read = []

    def load(path: Path) -> Any:
        read.append(load_checkpoint(path))
        if len(read) == 1:
            shutil.copy(pair[1], path)
        return read[-1]

    monkeypatch.setattr("salakseg.network.torch_engine.load_checkpoint", load)
    engine = TorchEngine(path, "cpu", SIDE)
    assert len(read) == 2 and engine.identity["model_sha256"] == sha256_of(pair[1])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("MPS backend out of memory (4 GB)")])
def test_a_batch_that_does_not_fit_into_memory_goes_in_parts(
    pair: list[Path], monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    image_BCHW = np.random.default_rng(0).integers(0, 256, (7, 3, SIDE, SIDE), dtype=np.uint8)
    whole, engine = (TorchEngine(pair[0], "cpu", SIDE) for _ in range(2))
    answer, sizes, most = TorchEngine._answer, [], 3

    def small(self: TorchEngine, image_BCHW: NDArray[np.uint8]) -> Logits:
        sizes.append(len(image_BCHW))
        if len(image_BCHW) > most:
            raise error
        return answer(self, image_BCHW)

    logits, features = whole.inspect(image_BCHW)
    expected = whole.predict(image_BCHW)
    monkeypatch.setattr(TorchEngine, "_answer", small)
    np.testing.assert_allclose(engine.predict(image_BCHW), expected, atol=1e-5)
    assert sizes == [7, 3, 3, 1]
    found = engine.inspect(image_BCHW)
    torch.testing.assert_close(found[0].heads_BNKHW, logits.heads_BNKHW, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], features, atol=1e-4, rtol=1e-4)
    assert sizes[4:] == [3, 3, 1]
    most = 0
    with pytest.raises(EngineError, match=r"does not fit into the memory of the cpu device .* smaller --tile"):
        engine.predict(image_BCHW)


def test_other_checkpoints_and_their_mean(
    pair: list[Path], index: PatchIndex, patches: tuple[Patch, ...], evaluation: Evaluation
) -> None:
    engines = [TorchEngine(path, "cpu", SIDE) for path in pair]
    totals = evaluation.counts_PVKK.sum(axis=0)
    nearly_equal(totals[row_of(evaluation, 1, "ema", "mean", False)], matrix_by(engines[1], index, patches))
    nearly_equal(totals[row_of(evaluation, None, "ema", "mean", False)], matrix_by(MeanEngine(engines), index, patches))
    assert (totals[0] != totals[row_of(evaluation, 1, "ema", "mean", False)]).any()


def test_the_first_row_is_what_training_validates_by(
    subjects: list[Subject], index: PatchIndex, patches: tuple[Patch, ...], evaluation: Evaluation
) -> None:
    first = subjects[0]
    expected = confusion_of(first.model("ema"), index, patches, first.checkpoint.class_map, CPU)
    np.testing.assert_array_equal(evaluation.counts_PVKK[:, 0].sum(axis=0), expected.counts)


def test_photos_are_counted_apart(
    subjects: list[Subject], index: PatchIndex, patches: tuple[Patch, ...], evaluation: Evaluation
) -> None:
    assert set(evaluation.photos) == {patch.photo_key for patch in patches}
    assert evaluation.patches_P.sum() == len(patches)
    photo = evaluation.photos[1]
    alone = evaluate(subjects[:1], index, [patch for patch in patches if patch.photo_key == photo])
    np.testing.assert_array_equal(alone.counts_PVKK[0, 0], evaluation.counts_PVKK[1, 0])
    np.testing.assert_array_equal(alone.edges.counts_PK3[0], evaluation.edges.counts_PK3[1])
    np.testing.assert_array_equal(alone.labeller.bins_PKB2[0], evaluation.labeller.bins_PKB2[1])


def test_the_batch_size_does_not_matter(
    subjects: list[Subject],
    index: PatchIndex,
    patches: tuple[Patch, ...],
    evaluation: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("salakseg.evaluate.inference._PIXELS", SIDE * SIDE)
    single = evaluate(subjects[:1], index, patches)
    nearly_equal(single.counts_PVKK[:, 0].sum(axis=0), evaluation.counts_PVKK[:, 0].sum(axis=0))


def test_confidence_and_disagreement_beside_a_plain_count(
    subjects: list[Subject], pair: list[Path], index: PatchIndex, patches: tuple[Patch, ...], evaluation: Evaluation
) -> None:
    first = subjects[0]
    class_map = first.checkpoint.class_map
    labeller = TorchEngine(pair[0], "cpu", SIDE, "student", "prob")  # phase 2 labels by the student
    assert evaluation.labeller_weights == "student"
    heads = [TorchEngine(pair[0], "cpu", SIDE, "ema", str(head)) for head in (1, 2, 3)]
    kept = right = different = total = 0
    for patch in patches:
        image = np.ascontiguousarray(read_image(index.image_path(patch)).transpose(2, 0, 1)[None])
        label = read_mask(index.mask_path(patch), class_map).label_HW
        prob = labeller.predict(image)[0]
        sure = (prob.max(axis=0) >= 0.3) & (label != 255)
        kept += int(sure.sum())
        right += int((sure & (prob.argmax(axis=0) == label)).sum())
        ids = [head.predict(image)[0].argmax(axis=0) for head in heads]
        different += int(((ids[0] != ids[2]) & (label != 255)).sum())
        total += int((label != 255).sum())
    bins = evaluation.labeller.bins_PKB2.sum(axis=(0, 1))
    assert bins.sum() == total
    assert bins[90:].sum() == pytest.approx(kept, abs=3) and bins[90:, 1].sum() == pytest.approx(right, abs=3)
    share = evaluation.disagreement["ema"].share_NN
    assert share[0, 2] == share[2, 0] == pytest.approx(different / total, abs=1e-3) and share[0, 2] > 0.01
    assert (np.diag(share) == 0).all()


def test_thresholds_are_measured_on_the_labels_that_the_run_s_labeller_gives(
    pair: list[Path], index: PatchIndex, patches: tuple[Patch, ...], tmp_path: Path
) -> None:
    """DiverseNet's labeller votes: its confidence is a share of votes, not a probability."""
    checkpoint = load_checkpoint(pair[0])
    checkpoint.recipe["selftraining"]["labeller_heads"] = "diversenet"
    save_checkpoint(checkpoint, tmp_path / "votes.pt")
    evaluation = evaluate(open_subjects([tmp_path / "votes.pt"], CPU), index, patches)
    labeller = TorchEngine(pair[0], "cpu", SIDE, "student", "diversenet")
    images = [np.ascontiguousarray(read_image(index.image_path(patch)).transpose(2, 0, 1)[None]) for patch in patches]
    masks = [read_mask(index.mask_path(patch), checkpoint.class_map).label_HW for patch in patches]
    sure = [labeller.predict(image)[0].max(axis=0) for image in images]
    bins = evaluation.labeller.bins_PKB2.sum(axis=(0, 1))
    for least in (0.5, 0.9):  # between the shares that three heads and a favourite can have
        kept = sum(
            int(((prob_HW >= least) & (label_HW != 255)).sum()) for prob_HW, label_HW in zip(sure, masks, strict=True)
        )
        assert bins[round(least * len(bins)) :].sum() == pytest.approx(kept, abs=3)
    full = np.flatnonzero(bins.sum(axis=1))
    assert len(full) <= 20  # a probability fills nearly all


def test_findings_hold_together(subjects: list[Subject], evaluation: Evaluation) -> None:
    findings = analyse(evaluation, subjects, unit="photo")
    assert findings.units == findings.photos == len(evaluation.photos)
    assert len(findings.variants) == 28 and len(findings.runs) == 3
    assert [variant.is_subject for variant in findings.variants].index(True) == 0
    best = max(variant.metrics.miou_without_background.value for variant in findings.variants)
    assert findings.best.metrics.miou_without_background.value == best
    assert findings.runs[2].name == "mean of the 2"
    assert np.isnan(findings.intervals["iou"].low).all()  # of three photos
    assert sum(place.pixels for place in findings.places) == evaluation.counts_PVKK[:, 0].sum()
    assert sum(place.patches for place in findings.folders) == evaluation.patches_P.sum()
    whole = evaluation.counts_PVKK[:, 0].sum(axis=0)
    largest = findings.pairs[0]
    assert largest.pixels == whole[largest.truth, largest.prediction] == (whole - np.diag(np.diag(whole))).max()
    blocks = analyse(evaluation, subjects, unit="block")
    assert blocks.unit_text.endswith("photos")  # the tiny run has no gap, so a block is a photo
    folders = analyse(evaluation, subjects, unit="folder")
    assert folders.units == len({photo.folder for photo in evaluation.photos})


def some_evaluation(evaluation: Evaluation, counts_PVKK: NDArray[np.int64]) -> Evaluation:
    """The evaluation with other confusion matrices, each of a photo of its own."""
    photos = tuple(Photo("a", f"photo {number}") for number in range(len(counts_PVKK)))
    repeat = np.arange(len(photos)) % len(evaluation.photos)
    return replace(
        evaluation,
        photos=photos,
        patches_P=np.ones(len(photos), np.int64),
        counts_PVKK=counts_PVKK,
        edges=tally_of_photos(evaluation.edges, repeat),
        confidence=tally_of_photos(evaluation.confidence, repeat),
        labeller=tally_of_photos(evaluation.labeller, repeat),
    )


def tally_of_photos(tally: Any, numbers: NDArray[np.intp]) -> Any:
    """A tally whose photos are some of another's, again and again."""
    some = copy.copy(tally)
    for name, values in vars(tally).items():
        if isinstance(values, list):
            setattr(some, name, [values[number] for number in numbers])
    return some


def test_a_class_of_one_photo_has_no_interval_and_blurs_no_mean(
    subjects: list[Subject], evaluation: Evaluation
) -> None:
    """Replicates without that photo would be means of the other classes, here about twice as high."""
    generator = np.random.default_rng(0)
    counts = np.zeros((12, len(evaluation.rows), 7, 7), np.int64)
    counts[:, :, 1, 1] = generator.integers(900, 1000, (12, 1))
    counts[:, :, 1, 2] = generator.integers(0, 100, (12, 1))
    counts[3, :, 4, 4], counts[3, :, 4, 1] = 50, 200
    findings = analyse(some_evaluation(evaluation, counts), subjects, unit="photo")
    iou = findings.variants[0].metrics.iou
    assert findings.rare == (4,)
    assert np.isnan(findings.intervals["iou"].low[4]) and not np.isnan(findings.intervals["iou"].low[1])
    low, high = findings.intervals["miou_without_background"].ends
    assert low <= np.nanmean(iou[1:]) <= high < np.nanmean(iou[1:]) + 0.15


def test_a_single_invented_pixel_does_not_choose(subjects: list[Subject], evaluation: Evaluation) -> None:
    """The second row is better on the one true class, but calls one pixel by a name that nothing here has."""
    counts = np.zeros((8, len(evaluation.rows), 7, 7), np.int64)
    counts[:, :, 1, 1], counts[:, :, 1, 0] = 500, 500
    counts[:, 1, 1, 1], counts[:, 1, 1, 0] = 600, 400
    counts[0, 1, 1, 1], counts[0, 1, 1, 6] = 599, 1
    findings = analyse(some_evaluation(evaluation, counts), subjects, unit="photo")
    better = findings.variants[1]
    assert better.metrics.miou_without_background.value < findings.variants[0].metrics.miou_without_background.value
    assert better.is_best and better.difference == pytest.approx(0.1, abs=1e-3) and better.interval.decided


def test_photos_without_a_labelled_pixel_are_no_units(subjects: list[Subject], evaluation: Evaluation) -> None:
    counts = np.zeros((9, len(evaluation.rows), 7, 7), np.int64)
    counts[:6, :, 1, 1] = 10
    findings = analyse(some_evaluation(evaluation, counts), subjects, unit="photo")
    assert findings.units == findings.photos == 6


def cold_copy(path: Path, folder: Path) -> Path:
    """The same checkpoint, which prefers the mean of probabilities, at a temperature that changes classes."""
    checkpoint = load_checkpoint(path)
    checkpoint.variant = Variant("ema", "prob", 0.06)
    save_checkpoint(checkpoint, folder / "cold.pt")
    return folder / "cold.pt"


def test_another_checkpoint_is_measured_at_its_own_temperature(
    pair: list[Path], index: PatchIndex, patches: tuple[Patch, ...], tmp_path: Path
) -> None:
    """With the mean of probabilities a temperature changes the class."""
    subjects = open_subjects([pair[0], cold_copy(pair[1], tmp_path)], CPU)
    beside = evaluate(subjects, index, patches)
    alone = evaluate(subjects[1:], index, patches)
    np.testing.assert_array_equal(beside.counts_PVKK[:, -1], alone.counts_PVKK[:, 0])


def test_flips_and_turns_of_its_own_variant_are_at_its_own_temperature(
    pair: list[Path], index: PatchIndex, patches: tuple[Patch, ...], tmp_path: Path
) -> None:
    colder = cold_copy(pair[0], tmp_path)
    turned = evaluate(open_subjects([colder], CPU), index, patches, tta=True)
    own = turned.counts_PVKK[:, row_of(turned, 0, "ema", "prob", True)].sum(axis=0)
    cold, plain = (
        matrix_by(TurnedEngine(TorchEngine(path, "cpu", SIDE, "ema", "prob")), index, patches)
        for path in (colder, pair[0])
    )
    nearly_equal(own, cold)
    assert np.abs(cold - plain).sum() > 4e-3 * plain.sum()


def test_pictures_show_the_worst_patches(
    subjects: list[Subject], index: PatchIndex, patches: tuple[Patch, ...], evaluation: Evaluation
) -> None:
    findings = analyse(evaluation, subjects)
    wanted = choose_pictures(evaluation.worst, findings.pairs, findings.variants[0].metrics.iou)
    pictures = draw_pictures(subjects[0], index, wanted, subjects[0].checkpoint.class_map)
    assert len(pictures) == len(wanted) >= 7
    wrong: dict[tuple[int, Patch], int] = {}
    for patch in patches:
        alone = evaluate(subjects[:1], index, [patch]).counts_PVKK[0, 0]
        for k in range(len(alone)):
            wrong[k, patch] = int(alone[k].sum() + alone[:, k].sum() - 2 * alone[k, k])
    for picture in pictures:
        one = picture.wanted
        if one.kind == "class":
            (k,) = one.classes
            assert one.pixels == wrong[k, one.patch]
            better = [pixels for (c, patch), pixels in wrong.items() if c == k and pixels > one.pixels]
            assert len(better) < 3
            shown = (picture.label_HW == k) != (picture.prediction_HW == k)
            assert int((shown & (picture.label_HW != 255)).sum()) == one.pixels  # small patches are shown whole
        assert picture.confidence_HW.max() <= 100
        assert picture.disagreement_HW is not None and picture.disagreement_HW.max() <= 67


def test_of_a_large_patch_the_part_with_most_errors_is_shown(
    subjects: list[Subject], index: PatchIndex, patches: tuple[Patch, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salakseg.evaluate.examples.LARGEST", 20)
    evaluation = evaluate(subjects[:1], index, patches[:4])
    findings = analyse(evaluation, subjects[:1])
    wanted = choose_pictures(evaluation.worst, findings.pairs, findings.variants[0].metrics.iou)
    whole = {patch: read_mask(index.mask_path(patch), subjects[0].checkpoint.class_map).label_HW for patch in patches}
    for picture in draw_pictures(subjects[0], index, wanted, subjects[0].checkpoint.class_map):
        assert picture.label_HW.shape == (20, 20)
        label = whole[picture.wanted.patch][picture.top : picture.top + 20, picture.left : picture.left + 20]
        np.testing.assert_array_equal(picture.label_HW, label)
        assert ("from row" in picture.name) == bool(picture.top or picture.left)


# ---- what cannot be measured


def test_weights_that_are_no_numbers_are_told(
    pair: list[Path], index: PatchIndex, patches: tuple[Patch, ...], tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(pair[0])
    checkpoint.student["heads.0.1.bias"][0] = torch.nan
    save_checkpoint(checkpoint, tmp_path / "spoilt.pt")
    with pytest.raises(DataError, match=r"spoilt\.pt answers with values that are no numbers"):
        evaluate(open_subjects([tmp_path / "spoilt.pt"], CPU), index, patches)


def test_a_corrupt_picture_and_a_mask_of_another_size_are_named(
    subjects: list[Subject], index: PatchIndex, patches: tuple[Patch, ...], tmp_path: Path
) -> None:
    shutil.copytree(index.root, tmp_path / "patches")
    copy = index_patches(tmp_path / "patches")
    last = copy.image_path(patches[-1])
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(DataError, match=patches[-1].image):
        evaluate(subjects[:1], copy, patches)
    shutil.copy(index.image_path(patches[-1]), last)
    Image.fromarray(np.zeros((SIDE, SIDE + 1), np.uint8)).save(copy.mask_path(patches[-1]))
    with pytest.raises(DataError, match="make both the same size"):
        evaluate(subjects[:1], copy, patches)


def test_patches_that_another_checkpoint_was_trained_with_are_left_out(
    pair: list[Path], index: PatchIndex, patches: tuple[Patch, ...], tmp_path: Path
) -> None:
    other = load_checkpoint(pair[1])
    folder, photo, _ = next(row for row in other.split if row[2] == "test")
    other.split = [[f, p, "labelled" if (f, p) == (folder, photo) else r] for f, p, r in other.split]
    save_checkpoint(other, tmp_path / "other.pt")
    _, common, left_out = held_out_patches(open_subjects([pair[0], tmp_path / "other.pt"], CPU), index, "test")
    assert left_out > 0 and len(common) + left_out == len(patches)
    assert all(patch.photo_key != (folder, photo) for patch in common)
    other.split = [[f, p, "labelled" if r == "test" else r] for f, p, r in other.split]
    save_checkpoint(other, tmp_path / "none.pt")
    with pytest.raises(DataError, match="have no test patch in common"):
        held_out_patches(open_subjects([pair[0], tmp_path / "none.pt"], CPU), index, "test")


def test_checkpoints_of_other_classes_or_named_twice_are_refused(pair: list[Path], tmp_path: Path) -> None:
    other = load_checkpoint(pair[1])
    other.classes = [{**record, "name": f"Class {record['id']}"} for record in other.classes]
    save_checkpoint(other, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="compare checkpoints of the same classes"):
        open_subjects([pair[0], tmp_path / "other.pt"], CPU)
    with pytest.raises(CheckpointError, match="named twice"):
        open_subjects([pair[0], pair[0].parent / "." / "best.pt"], CPU)


def test_a_single_head_has_no_heads_to_combine(tiny_checkpoint: Path, index: PatchIndex, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.network = checkpoint.network.model_copy(update={"head_dropout": (0.1,)})
    for name in ("student", "ema"):
        kept = {k: v for k, v in getattr(checkpoint, name).items() if not k.startswith(("heads.1", "heads.2"))}
        setattr(checkpoint, name, kept)
    save_checkpoint(checkpoint, tmp_path / "one.pt")
    subjects = open_subjects([tmp_path / "one.pt"], CPU)
    assert subjects[0].variant == Variant()
    _, patches, _ = held_out_patches(subjects, index, "test")
    evaluation = evaluate(subjects, index, patches)
    assert [row.way.text for row in evaluation.rows] == ["EMA, mean of the logits", "student, mean of the logits"]
    assert not analyse(evaluation, subjects).disagreement
