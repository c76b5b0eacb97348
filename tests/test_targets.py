"""What a model is compared with: the target's file, how classes are matched, and the gaps."""

import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.errors import SalaksegError, TargetError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.metrics import compute_metrics
from salakseg.evaluate.targets import Target, TargetClass, TargetComparison, compare, load_target

GOOD = """
name = "Goal"
headline_miou = 0.5
headline_with_background = true
estimates = false
source = "a test"
[[classes]]
name = "Water"
iou = 0.25
aliases = ["Badan Air"]
"""


def class_map(*names: str) -> ClassMap:
    return ClassMap(tuple(LandClass(i, name, (i, i, i)) for i, name in enumerate(names)))


def comparison_of(target: Target, classes: ClassMap, counts: list[list[int]]) -> TargetComparison:
    return compare(target, classes, compute_metrics(ConfusionMatrix.from_counts(counts)))


def test_diversenet_holds_the_project_s_figures() -> None:
    target = load_target("diversenet")
    assert {c.name: c.iou for c in target.classes} == {
        "Background": 0.95,
        "Badan Air": 0.50,
        "Bangunan": 0.72,
        "Jalan": 0.80,
        "Pohon Berinang": 0.70,
        "Snake Fruit": 0.90,
        "Tanah Terbuka": 0.75,
    }
    assert target.headline_miou == 0.70
    assert not target.headline_with_background
    assert target.estimates


def test_the_means_in_the_remark_are_those_of_the_figures() -> None:
    target = load_target("diversenet")
    expected = target.expected_iou(SALAK)
    assert f"{expected.mean():.3f} with and {expected[1:].mean():.3f} without background" in target.remark
    assert (f"{expected.mean():.3f}", f"{expected[1:].mean():.3f}") == ("0.760", "0.728")
    assert "estimates" in target.remark and "leak" in target.remark


@pytest.mark.parametrize("name", ["DiverseNet", " diversenet "])
def test_a_builtin_name_is_forgiving(name: str) -> None:
    assert load_target(name) == load_target("diversenet")


def test_gap_is_measured_minus_expected() -> None:
    target = Target.model_validate(
        {
            "name": "Goal",
            "headline_miou": 0.5,
            "headline_with_background": False,
            "estimates": True,
            "source": "a test",
            "classes": [{"name": "Water", "iou": 0.25}, {"name": "Road", "iou": 0.9}, {"name": "Rest", "iou": 0.8}],
        }
    )
    classes = class_map("rest", " WATER ", "Grass", "Road")
    comparison = comparison_of(target, classes, [[8, 2, 0, 0], [0, 6, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(comparison.expected, [0.8, 0.25, np.nan, 0.9])
    np.testing.assert_allclose(comparison.gap, [0.8 - 0.8, 0.6 - 0.25, np.nan, np.nan], atol=1e-12)
    assert comparison.matched == 3
    assert comparison.unnamed == ("Grass",)
    assert comparison.headline_measured.value == pytest.approx(0.3)  # water 0.6, grass 0.0, road undefined
    assert comparison.headline_gap == pytest.approx(-0.2)
    assert comparison.headline_text == "mIoU 0.50 est. without background: gap -20.0 points"
    assert comparison.figure_text(1) == "0.25 est." and comparison.figure_text(2) == ""
    assert comparison.remarks == ("The Goal target has no figure for Grass.",)


def test_the_headline_is_compared_with_the_mean_it_names(tmp_path: Path) -> None:
    path = tmp_path / "goal.toml"
    path.write_text(GOOD, encoding="utf-8")
    comparison = comparison_of(load_target(path), class_map("Rest", "badan air"), [[3, 1], [0, 4]])
    assert comparison.headline_measured.value == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert comparison.headline_gap == pytest.approx(0.275)
    assert comparison.gap[1] == pytest.approx(0.8 - 0.25)
    assert comparison.figure_text(1) == "0.25"  # not an estimate
    assert load_target(str(path)) == load_target(path)


@pytest.mark.parametrize("names", [("Water", "Building", "Road"), ("Background", "Building", "Road")])
def test_another_class_map_leaves_the_headline_alone(names: tuple[str, ...]) -> None:
    comparison = comparison_of(load_target("diversenet"), class_map(*names), [[5, 0, 0], [0, 5, 0], [0, 0, 5]])
    assert comparison.matched == 0
    assert np.isnan(comparison.gap).all()
    assert comparison.headline_gap == pytest.approx(0.3)
    assert "only its headline 0.70 is compared" in comparison.remarks[0]


def test_a_headline_without_classes_is_for_any_class_map(tmp_path: Path) -> None:
    path = tmp_path / "goal.toml"
    path.write_text(GOOD.split("[[classes]]")[0], encoding="utf-8")
    comparison = comparison_of(load_target(path), class_map("Rest", "Water"), [[3, 1], [0, 4]])
    assert not comparison.is_of_other_classes and comparison.matched == 0
    assert comparison.remarks == ()


def test_nothing_measured_has_no_gap() -> None:
    comparison = comparison_of(load_target("diversenet"), SALAK, np.zeros((7, 7), dtype=np.int64).tolist())
    assert math.isnan(comparison.headline_gap)
    assert comparison.headline_text.endswith("nothing measured")
    assert comparison.to_dict()["headline_gap"] is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("iou = 0.25", "iou = 25", "classes.0.iou"),
        ("iou = 0.25", 'iou = "much"', "classes.0.iou"),
        ("iou = 0.25", "iou = nan", "classes.0.iou"),
        ("iou = 0.25", "iou = true", "classes.0.iou"),
        ("headline_miou = 0.5", "headline_miou = -0.1", "headline_miou"),
        ("headline_miou = 0.5", "", "headline_miou"),
        ("estimates = false", "estimates = false\ncolour = 1", "colour"),
        ('aliases = ["Badan Air"]', 'aliases = [" water"]', "'water' stands twice"),
        ("iou = 0.25", "iou = ", "not valid TOML"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "goal.toml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(TargetError) as caught:
        load_target(path)
    sentence = str(caught.value)
    assert message in sentence and str(path) in sentence
    assert "\n" not in sentence and sentence.endswith(".") and sentence[0].isupper()


def test_a_missing_target_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SalaksegError, match=r"no built-in target 'diverse'; use one of diversenet"):
        load_target("diverse")
    with pytest.raises(SalaksegError, match=r"missing\.toml does not exist"):
        load_target(tmp_path / "missing.toml")
    with pytest.raises(SalaksegError, match="cannot be read"):
        load_target(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(SalaksegError, match="UTF-8"):
        load_target(str(tmp_path / "latin.toml"))


def test_a_target_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(TargetClass(name="Water", iou=0.5), "iou", 0.6)  # noqa: B010 - the type checker knows it is frozen
