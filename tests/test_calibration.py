"""Calibration beside torchmetrics, temperatures that are found again, and thresholds beside a plain count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from salakseg.classes import SALAK, ClassMap
from salakseg.evaluate.bootstrap import draw_units
from salakseg.evaluate.calibration import LogitSample, calibration_of
from salakseg.evaluate.tallies import BINS, ConfidenceTally
from salakseg.evaluate.thresholds import analyse_thresholds, present_thresholds, recipe_fragment
from salakseg.network.heads import Logits, combine_heads
from salakseg.train.recipe import load_recipe, recipe_names

K = len(SALAK)


def drawn(temperature: float, images: int = 6, side: int = 64, heads: int = 1) -> tuple[Logits, torch.Tensor]:
    """Logits, and labels drawn from their softmax at a temperature, which is therefore the right one."""
    generator = torch.Generator().manual_seed(4)
    values = 3 * torch.randn(images, heads, K, side, side, generator=generator)
    logits = Logits(values, values.mean(dim=1))
    prob = combine_heads(logits, "mean", temperature).permute(0, 2, 3, 1).reshape(-1, K)
    label = torch.multinomial(prob, 1, generator=generator).view(images, side, side)
    return logits, label


def tally(prob: torch.Tensor, label: torch.Tensor) -> ConfidenceTally:
    found = ConfidenceTally(K)
    for start in range(0, len(label), 4):
        photos = list(range(start, start + len(label[start : start + 4])))
        found.add(photos, label[start : start + 4], prob[start : start + 4])
    return found


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_error_equals_that_of_torchmetrics(temperature: float) -> None:
    logits, label = drawn(1.0)
    label[0, :20] = 255
    prob = combine_heads(logits, "mean", temperature)
    reliability = tally(prob, label).reliability_PB3
    calibration = calibration_of(reliability, draw_units(len(reliability)), temperature)
    oracle = multiclass_calibration_error(prob, label, K, n_bins=15, norm="l1", ignore_index=255)
    assert calibration.ece == pytest.approx(float(oracle), abs=1e-5)
    assert calibration.interval.low <= calibration.ece <= calibration.interval.high
    assert calibration.share.sum() == pytest.approx(1)
    if temperature == 1:
        assert calibration.ece < 0.02
    else:
        assert np.sign(calibration.bias) == (1 if temperature < 1 else -1)  # colder is surer


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("heads", ["mean", "1"])
def test_a_temperature_is_found_again(temperature: float, heads: str) -> None:
    logits, label = drawn(temperature)
    label[1] = 255  # a whole patch that nobody labelled
    sample = LogitSample(len(label))
    sample.add(logits, label)
    assert sample and sample.fit(heads) == pytest.approx(temperature, rel=0.05)


def test_the_sample_stays_small_and_takes_labelled_pixels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salakseg.evaluate.calibration._SAMPLE", 60)
    logits, label = drawn(1.0)
    label[:, 1:] = 255
    sample = LogitSample(len(label))
    sample.add(logits, label)
    assert len(torch.cat(sample._labels)) == 60
    assert int(torch.cat(sample._labels).max()) < K
    assert not LogitSample(3)


# ---- thresholds


def test_curves_beside_a_plain_count() -> None:
    logits, label = drawn(1.0)
    label[2, :30] = 255
    prob = combine_heads(logits, "prob")
    bins = tally(prob, label).bins_PKB2
    present = [0.0, 0.6, 0.65, 0.7, 0.65, 0.55, 0.6]
    analysis = analyse_thresholds(bins, draw_units(len(bins)), "student", present, wanted=0.8)
    confidence, guess = prob.max(dim=1)
    valid = label != 255
    for step in (0, 30, 60, 65, 90, 99):
        sure = (confidence >= step / 100 - 1e-9) & valid
        assert analysis.kept[step] == pytest.approx(float(sure.sum() / valid.sum()), abs=2e-3)
        for k in range(K):
            mine = (guess == k) & valid
            kept = mine & sure
            assert analysis.coverage[k, step] == pytest.approx(float(kept.sum() / mine.sum()), abs=2e-3)
            if kept.any():
                expected = float((kept & (label == k)).sum() / kept.sum())
                assert analysis.precision[k, step] == pytest.approx(expected, abs=2e-3)
    assert analysis.present is not None
    np.testing.assert_array_equal(analysis.present.precision[1], analysis.precision[1, 60])
    kept_now = sum(float(((guess == k) & valid & (confidence >= t)).sum()) for k, t in enumerate(present))
    assert analysis.present_kept == pytest.approx(kept_now / float(valid.sum()), abs=2e-3)


def test_the_recommendation_is_the_lowest_that_holds_what_is_wanted() -> None:
    logits, label = drawn(1.0, images=12)
    bins = tally(combine_heads(logits, "prob"), label).bins_PKB2
    analysis = analyse_thresholds(bins, draw_units(len(bins)), "ema", None, wanted=0.8)
    assert analysis.present is None and np.isnan(analysis.present_kept)
    for k in range(K):
        step = round(100 * analysis.recommended.threshold[k])
        assert analysis.recommended.precision[k] >= 0.8
        assert analysis.precision[k, step - 1] < 0.8  # one hundredth lower is not enough
        assert analysis.recommended.interval[k].low < analysis.recommended.precision[k]


def hopeless() -> np.ndarray:
    """Class 2 is wrong half the time however sure; class 0 is always right; the others never come up."""
    bins = np.zeros((5, K, BINS, 2), np.int64)
    bins[:, 0, 200:, 1] = 50
    bins[:, 2, 100:] = 50
    return bins


def test_a_class_that_never_reaches_it_keeps_nothing(tmp_path: Path) -> None:
    analysis = analyse_thresholds(hopeless(), draw_units(5), "ema", None, wanted=0.9)
    assert analysis.recommended.threshold.tolist() == [0.0] + [1.0] * (K - 1)
    assert np.isnan(analysis.recommended.precision[2]) and analysis.recommended.coverage[2] == 0
    assert analysis.recommended_kept == pytest.approx(100 / (100 + 400))
    text = recipe_fragment(analysis, SALAK, "phase2")
    assert text is not None
    assert "# 1.00 Bangunan is never as right as that" in text
    assert "# 0.90 Jalan is never predicted here" in text  # so nothing is known of its threshold
    assert "# 0.00 __background__ keeps 100 %, 100 % right (100 to 100)" in text
    path = tmp_path / "thresholds.toml"
    path.write_text(text, encoding="utf-8")
    recipe = load_recipe(str(path))
    assert recipe.selftraining.threshold_of_each(K) == [0.0, 0.9, 1.0, 0.9, 0.9, 0.9, 0.9]
    nothing = analyse_thresholds(hopeless()[:, 1:], draw_units(5), "ema", None, wanted=0.9)
    classes = ClassMap(tuple(replace(c, id=c.id - 1) for c in SALAK.classes[1:]))
    assert recipe_fragment(nothing, classes, "phase2") is None


def test_a_few_sure_pixels_of_one_photo_decide_nothing() -> None:
    bins = np.zeros((4, K, BINS, 2), np.int64)
    bins[:, 1, 150:240, 1] = 1000
    bins[0, 1, 299, 0] = 20  # 20 of 360,020 pixels, all wrong
    analysis = analyse_thresholds(bins, draw_units(4), "ema", None, wanted=0.9)
    assert analysis.recommended.threshold[1] == 0.0


@pytest.mark.parametrize("base", [name for name in recipe_names() if name != "quick"])
def test_the_fragment_is_a_recipe(base: str, tmp_path: Path) -> None:
    logits, label = drawn(1.0)
    bins = tally(combine_heads(logits, "prob"), label).bins_PKB2
    analysis = analyse_thresholds(bins, draw_units(len(bins)), "ema", None, wanted=0.8)
    path = tmp_path / "thresholds.toml"
    path.write_text(recipe_fragment(analysis, SALAK, base) or "", encoding="utf-8")
    changed, original = load_recipe(str(path)), load_recipe(base)
    found = changed.selftraining.threshold_of_each(K)
    np.testing.assert_allclose(found, analysis.recommended.threshold, atol=1e-9)
    same = changed.model_copy(update={"selftraining": original.selftraining, "name": original.name})
    assert same == original


def test_the_thresholds_of_a_recipe_are_read_as_training_reads_them() -> None:
    for name in recipe_names():
        recipe = load_recipe(name)
        found = present_thresholds(recipe.model_dump(mode="json"), K)
        fixed = recipe.selftraining.enabled and recipe.selftraining.keep == "fixed"
        assert found == (recipe.selftraining.threshold_of_each(K) if fixed else None)
    single = load_recipe("v3", [{"selftraining": {"thresholds": 0.9}}])
    assert present_thresholds(single.model_dump(mode="json"), 4) == [0.0, 0.9, 0.9, 0.9]
    assert present_thresholds(load_recipe("v3").model_dump(mode="json"), 4) is None
