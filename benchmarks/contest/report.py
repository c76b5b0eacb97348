"""Tables and pictures of all that lies in the folder of results."""

from collections.abc import Callable, Mapping
from typing import Any

from contest.bars import bar_lines
from contest.groups import Group, groups_of
from contest.pictures import draw_curves, draw_pseudo_labels
from contest.records import Store, write_json
from contest.tables import ablation_lines, decline_lines, main_lines, strategy_lines, summary_of, tuning_lines
from salakseg.errors import DataError
from salakseg.evaluate.chart_style import save_figure

INTRODUCTION = """\
# Self-training methods against each other

A stand-in for the field data: aerial images of eight scenes with water, buildings, roads, vegetation and land, **no
salak palm**; 8 labelled images, 24 unlabelled ones, 8 for validation. mIoU is given without class 0 (`Unlabeled`, 0.5 %
of the pixels) first. All methods share encoder (EfficientNet-Lite0, ImageNet), decoder (DeepLabV3+), AdamW, schedule,
batches of 8 + 8, views of the labelled patches and the moving average that is judged; each keeps its own heads, losses
and all that is self-training. Class 0 is the rarest class here and the second most frequent in the field: V3's balanced
weights and its threshold of 0 for it do more harm here than there.

Settings of phase4 were chosen among some thirty variants on the eight validation images, mostly by seed 0, so its
figures there flatter; those of the other methods are their authors' but for the moving average that unimatch2 labels
with, which is the shared one, and v3 is there tuned, too (v3-tuned). Masks of
the unlabelled images helped to find out why recipes fall, never to train; test images have chosen nothing. phase4 has
a guard that looks at validation, see the table of decline. Intervals are of images, or of scenes, drawn anew; that
other seeds give other networks is not in them.

Figures are points. "Images alike" is the mIoU without class 0 as if all images had as many pixels: two of the eight
scenes have 63 % of them. The spread is the standard deviation over seeds; "best - end" the fall on validation from the
best evaluation to the last; "kept" and "right" are the share of the validation pixels that the run's labeller would
keep, and how many of these are right: nothing learns from them.
"""


def write_report(store: Store, test: bool, say: Callable[[str], None]) -> None:
    """Writes ``report/results.md``, ``results.json`` and the pictures.

    Args:
        store: The results.
        test: Whether the scores of test images are shown, which nobody may see while something is still chosen.
        say: Called with a line worth reading.

    Raises:
        DataError: There is no finished run.
    """
    groups = groups_of(store, test)
    if not groups:
        raise DataError(f"{store.out} holds no finished run; train first, or name another --out.")
    folder = store.out / "report"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [INTRODUCTION]
    summary: dict[str, Any] = {}
    for group in groups:
        lines += _section(group)
        summary[group.name] = summary_of(group)
        for picture, figure in {"curves": draw_curves(group), "pseudo-labels": draw_pseudo_labels(group)}.items():
            if figure is not None:
                save_figure(figure, folder, f"{picture}-{group.name}")
                lines.append(f"![{picture}]({picture}-{group.name}.png)\n")
    lines += decline_lines(groups)
    (folder / "results.md").write_text("\n".join(lines), encoding="utf-8")
    write_json(folder / "results.json", summary)
    say(f"written to {folder}")


def _section(group: Group) -> list[str]:
    lines = [f"## {group.title}\n", _conditions(group)]
    for images in group.image_sets:
        lines += main_lines(group, images)
        if images != "validation" and group.is_table:
            lines += bar_lines(group, images)
    return lines + ablation_lines(group) + strategy_lines(group) + tuning_lines(group)


def _conditions(group: Group) -> str:
    places: Mapping[str, None] = dict.fromkeys(
        f"{record['environment']['device_name']} ({record['environment']['device']}, "
        f"torch {record['environment']['versions']['torch']})"
        for record in group.records
    )
    return f"Run on {'; '.join(places)}. Seconds of a step are of `--timing`, alternating, where that was done.\n"
