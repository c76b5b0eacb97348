"""The watch in a real run: what it measures, that it goes back, and that a resumed run knows of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_plantation
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from training import quiet, records, tiny_request

from salakseg.classes import SALAK
from salakseg.data.patches import Patch
from salakseg.data.splits import Role
from salakseg.errors import TrainingError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.history import Plan
from salakseg.evaluate.inference import Example
from salakseg.network.checkpoint import load_checkpoint
from salakseg.network.heads import Logits
from salakseg.train.alarms import alarms_of, replay
from salakseg.train.board_pictures import class_picture, draw_confusion, draw_predictions
from salakseg.train.calibration import pseudo_label_precision
from salakseg.train.loop import Trainer
from salakseg.train.measuring import draw_samples
from salakseg.train.pseudo import Labeller, Target
from salakseg.train.readings import readings_of
from salakseg.train.settings_selftraining import SelfTrainingConfig
from salakseg.train.skipping import step_if_finite
from salakseg.train.start import Request, resume_run, start_run


def request(data: Path, run: Path, **settings: Any) -> Request:
    return tiny_request(data, run, iterations=8, start=2, every=2, **{"health__sample": 2} | settings)


def events(run: Path, event: str) -> list[dict[str, Any]]:
    return [record for record in records(run, "event") if record["event"] == event]


def give_scores(trainer: Trainer, scores: list[float]) -> None:
    """Lets the validation come out as wanted, whatever the network says."""
    left = iter(scores)

    def scripted(*_: Any) -> ConfusionMatrix:
        right = round(1000 * next(left))
        counts = np.diag([right] * 7)
        counts[range(7), [1, 2, 3, 4, 5, 6, 0]] = (1000 - right) // 2
        return ConfusionMatrix.from_counts(counts)

    trainer.validation.confusion = scripted  # type: ignore[method-assign,assignment]


def test_a_run_measures_judges_and_shows_itself(tmp_path: Path) -> None:
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    said: list[str] = []
    wanted = request(data, run, schedule__iterations=4, selftraining__thresholds=0.0)
    trainer = start_run(wanted, said.append, quiet)
    assert len(trainer.data.part(Role.CALIBRATION)) >= 1
    trainer.run(quiet)
    written = records(run)
    watched = [record for record in written if record["kind"] == "watch"]
    assert [record["iteration"] for record in watched] == [2, 4]
    latest = watched[-1]
    assert latest["pseudo_precision_part"] == "calibration"
    assert latest["classes"] == list(SALAK.names)
    assert sum(latest["labelled_share"]) == pytest.approx(1)
    assert latest["pseudo_divergence"] > 0 and latest["images_per_second"] > 0 and latest["memory_gib"] > 0
    for name in ("train_miou", "student_miou", "teacher_miou", "pseudo_precision", "calibration_kept_share"):
        assert latest[name] is not None and 0 <= latest[name] <= 1, name
    # Two networks after four steps are not the same, and the average was looked at on the same patches
    assert latest["student_miou"] != latest["teacher_miou"]
    # What was said while it went is what a replay says
    raised = [(e["iteration"], e["quantity"], e["level"], e["seen"]) for e in events(run, "alarm")]
    plan = Plan.from_recipe(trainer.recipe.model_dump(mode="json"))
    again = alarms_of(replay(written, plan, trainer.recipe.health.falling))
    assert raised == [(alarm.iteration, alarm.quantity, alarm.level, alarm.seen) for alarm in again]
    assert sum(line.startswith("attention, ") for line in said) == len(raised)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    tags = board.Tags()
    assert {"val/confusion", "val/predictions"} <= set(tags["images"])
    assert not any(tag.startswith("event/") for tag in tags["scalars"])
    assert {"iou_of_class/Snake Fruit", "watch/train_miou", "watch/pseudo_precision", "train/loss"} <= set(
        tags["scalars"]
    )


def test_guard_goes_back_and_a_resumed_run_knows(tmp_path: Path) -> None:
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    said: list[str] = []
    guard = {"health__action": "guard", "health__falling": 2, "health__rollbacks": 1}
    trainer = start_run(request(data, run, selftraining__start=1, schedule__iterations=10, **guard), said.append, quiet)
    give_scores(trainer, [0.5, 0.6, 0.4, 0.4, 0.4])
    best: dict[str, Tensor] = {}

    def stop(done: int, _total: int) -> None:
        if done == 4:
            best.update({name: value.clone() for name, value in trainer.network.state_dict().items()})
        if done == 8:
            assert all(torch.equal(value, best[name]) for name, value in trainer.network.state_dict().items())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop)
    assert trainer.iteration == 8  # the count went on
    (event,) = events(run, "rollback")
    assert (event["iteration"], event["to"], event["weight_factor"], event["rollbacks"]) == (8, 4, 0.5, 1)
    assert "evaluations in a row" in event["reason"]
    assert any("back to the network of step 4" in line for line in said)
    last = load_checkpoint(run / "checkpoints" / "last.pt")
    assert (last.iteration, last.training["watch"]["weight_factor"], len(last.history)) == (8, 0.5, 4)
    assert all(torch.equal(value, best[name]) for name, value in last.student.items())


def test_at_the_end_guard_has_nothing_left_to_go_back_for(tmp_path: Path) -> None:
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    wanted = request(data, run, health__action="guard", health__falling=2, selftraining__start=1)
    trainer = start_run(wanted, quiet, quiet)
    give_scores(trainer, [0.5, 0.6, 0.4, 0.4])
    trainer.run(quiet)
    assert (trainer.iteration, events(run, "rollback")) == (8, [])


def test_half_the_weight_is_what_the_next_step_learns_with(tmp_path: Path) -> None:
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    wanted = request(data, run, health__action="guard", health__falling=2, selftraining__start=1)
    trainer = start_run(wanted, quiet, quiet)
    give_scores(trainer, [0.6, 0.4, 0.4, 0.4])

    def stop(done: int, _total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop)
    assert len(events(run, "rollback")) == 1
    resumed = resume_run(run, None, None, "cpu", quiet, quiet)
    assert (resumed.iteration, resumed.watch.rollbacks, resumed.watch.weight_factor) == (6, 1, 0.5)
    labelled, unlabelled = next(iter(resumed.batches()))
    assert labelled is not None
    record = resumed.step(labelled, unlabelled)
    assert float(record["loss"]) == pytest.approx(float(record["loss_sup"] + 0.5 * record["loss_unsup"]), rel=1e-5)


def test_the_guard_acts_also_where_the_best_came_before_self_training(tmp_path: Path) -> None:
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    wanted = tiny_request(data, run, 16, start=8, every=2, health__sample=2, health__action="guard", health__falling=2)
    trainer = start_run(wanted, quiet, quiet)
    give_scores(trainer, [0.5, 0.6, 0.599, 0.599, 0.4, 0.4, 0.5, 0.5])
    trainer.run(quiet)
    (event,) = events(run, "rollback")
    assert (event["iteration"], event["to"]) == (12, 4)


def test_stop_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    said: list[str] = []
    trainer = start_run(request(data, run, health__action="stop", health__falling=2), said.append, quiet)
    give_scores(trainer, [0.6, 0.4, 0.4, 0.4])
    trainer.run(quiet)
    assert trainer.iteration == 6
    (event,) = events(run, "stopped by the watch")
    assert "2 evaluations in a row" in event["reason"]
    assert any("stopped by the watch: " in line for line in said)


def spoil(trainer: Trainer, when: set[int]) -> None:
    """Makes the loss of some steps no number."""
    backward = trainer.fabric.backward

    def broken(loss: Tensor) -> None:
        backward(loss * torch.nan if trainer.iteration in when else loss)

    trainer.fabric.backward = broken  # type: ignore[assignment,method-assign]


def test_a_broken_step_moves_nothing(tmp_path: Path) -> None:
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    trainer = start_run(request(data, run), quiet, quiet)
    spoil(trainer, {0})
    before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
    labelled, unlabelled = next(iter(trainer.batches()))
    assert labelled is not None
    record = trainer.step(labelled, unlabelled)
    assert float(record["skipped_share"]) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


def test_a_breakdown_leads_back_once_also_where_an_evaluation_follows_at_once(tmp_path: Path) -> None:
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    trainer = start_run(request(data, run, health__action="guard"), quiet, quiet)
    objective = trainer.objective

    def broken(*arguments: Any) -> Any:
        loss, record = objective(*arguments)
        spoilt = torch.nan if trainer.iteration in (4, 5) else 1.0
        return loss * spoilt, {name: value * spoilt for name, value in record.items()}

    trainer.objective = broken  # type: ignore[assignment]
    trainer.run(quiet)
    (event,) = events(run, "rollback")
    assert (event["iteration"], event["weight_factor"]) == (6, 0.5)
    readings = readings_of(records(run))
    assert [(reading.iteration, reading.rolled_back) for reading in readings][2] == (6, True)
    assert not readings[2].loss_broken


def test_running_statistics_that_broke_are_noticed_at_the_next_record(tmp_path: Path) -> None:
    """A step without a finite gradient moves no weight, but its pass may have moved what batch normalisation knows."""
    data, run = write_plantation(tmp_path / "patches"), tmp_path / "run"
    trainer = start_run(tiny_request(data, run, 80, start=2, every=80, health__sample=2), quiet, quiet)
    learn = trainer.learn

    def with_a_broken_pass(branches: Any) -> Any:
        record = learn(branches)
        if trainer.iteration == 10:
            record["skipped_share"] = torch.tensor(1.0)
            trainer._norms[0].running_mean.fill_(torch.nan)  # type: ignore[union-attr]
        return record

    trainer.learn = with_a_broken_pass  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="Before step 50 a weight is no longer finite"):
        trainer.run(quiet)


def test_many_broken_steps_lead_back_under_guard_and_end_the_run_else(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "warned"), quiet, quiet)
    spoil(trainer, {4, 5})
    with pytest.raises(TrainingError, match=r"100 % of the steps had no finite gradient.*lower --learning-rate"):
        trainer.run(quiet)
    run = tmp_path / "guarded"
    trainer = start_run(request(data, run, health__action="guard"), quiet, quiet)
    spoil(trainer, {4, 5})
    trainer.run(quiet)
    assert trainer.iteration == 8
    (event,) = events(run, "rollback")
    assert event["iteration"] == 6 and event["to"] in (2, 4)
    assert load_checkpoint(run / "checkpoints" / "last.pt").iteration == 8


def wrapped(optimizer: Optimizer) -> Any:
    return type("Wrapped", (), {"optimizer": optimizer, "step": lambda self: self.optimizer.step()})()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_without_a_finite_gradient_is_left_out(fused: bool) -> None:
    """The fused kernel looks at its flag, as on a GPU; momentum and weights stay, and the next step is a whole one."""
    plain, guarded = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    one = SGD([plain], lr=0.1, momentum=0.9, weight_decay=0.01)
    other = SGD([guarded], lr=0.1, momentum=0.9, weight_decay=0.01, fused=fused)
    for gradient in ([torch.nan, 1.0], [1.0, 2.0], [torch.inf, 1.0], [3.0, -1.0]):
        guarded.grad = torch.tensor(gradient)
        step_if_finite(wrapped(other), torch.linalg.vector_norm(guarded.grad))
        if np.isfinite(gradient).all():
            plain.grad = torch.tensor(gradient)
            one.step()
        assert torch.allclose(plain, guarded)


# ---- precision of pseudo-labels


def test_precision_counts_kept_pixels_with_a_label_by_predicted_class() -> None:
    label_HW = np.array([[0, 1, 1, 255], [2, 2, 1, 0]], np.uint8)
    pseudo_HW = torch.tensor([[0, 1, 2, 1], [2, 255, 1, 1]])
    example = Example(Patch("", "a.png", "a.png", "a"), np.zeros((2, 4, 3), np.uint8), label_HW)

    def answer(image_BCHW: Tensor) -> Target:
        assert image_BCHW.shape == (1, 3, 2, 4)
        return Target(pseudo_HW[None], torch.ones(1, 2, 4), torch.ones(1, 2, 4, dtype=torch.bool))

    found = pseudo_label_precision(answer, [[example]], 4, torch.device("cpu"))
    assert found.overall == pytest.approx(4 / 6)  # of 7 labelled pixels 6 are kept, 4 of these right
    assert found.kept == pytest.approx(6 / 7)
    assert found.of_class_K[:3].tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert np.isnan(found.of_class_K[3])
    assert np.isnan(pseudo_label_precision(answer, [], 4, torch.device("cpu")).overall)


def test_a_look_at_the_labeller_does_not_move_its_means() -> None:
    labeller = Labeller(SelfTrainingConfig(keep="adaptive", thresholds=0.5), 3, torch.device("cpu"))
    logits = torch.randn(1, 1, 3, 4, 4)
    valid_BHW = torch.ones(1, 4, 4, dtype=torch.bool)
    before = {name: value.clone() for name, value in labeller.state().items()}
    labeller.label(Logits(logits, logits[:, 0]), valid_BHW, learn=False)
    assert all(torch.equal(value, before[name]) for name, value in labeller.state().items())
    labeller.label(Logits(logits, logits[:, 0]), valid_BHW)
    assert not torch.equal(labeller.state()["mean"], before["mean"])


def test_thresholds_that_are_not_known_yet_are_not_judged(tmp_path: Path) -> None:
    """Next to nothing passes them at first, and nearly all of that is right: a best that later ones fall from."""
    data = write_plantation(tmp_path / "patches")
    for keep, first in (("fixed", 2), ("share", 6)):
        run = tmp_path / keep
        start_run(request(data, run, selftraining__start=4, selftraining__keep=keep), quiet, quiet).run(quiet)
        measured = [r["iteration"] for r in records(run, "watch") if "pseudo_precision" in r]
        assert measured == list(range(first, 9, 2))


def test_without_a_calibration_part_validation_is_looked_at_and_it_is_said(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "run", data__calibration_share=0.0), quiet, quiet)
    samples = draw_samples(trainer)
    assert samples.calibration_part is Role.VAL
    assert set(samples.calibration) <= set(trainer.data.part(Role.VAL))
    assert samples == draw_samples(trainer)


# ---- pictures


def test_pictures_show_the_classes_in_their_colours(tmp_path: Path) -> None:
    label_HW = np.arange(64, dtype=np.uint8).reshape(8, 8) % 7
    label_HW[0, 0] = 255
    rgb_HWC = class_picture(label_HW, SALAK)
    assert (rgb_HWC[0, 1] == SALAK.colors[1]).all() and (rgb_HWC[0, 0] == 150).all()
    example = Example(Patch("", "a.png", "a.png", "a"), np.full((8, 8, 3), 90, np.uint8), label_HW)
    picture_HWC = draw_predictions([example] * 2, [label_HW] * 2, [label_HW] * 2, SALAK, 500)
    assert picture_HWC.dtype == np.uint8 and picture_HWC.shape[2] == 3
    seen = {tuple(color) for color in picture_HWC.reshape(-1, 3).tolist()}
    assert {c.color for c in SALAK.classes} <= seen
    confusion_HWC = draw_confusion(ConfusionMatrix.from_counts(np.eye(7, dtype=int)), SALAK, 500, 0.5)
    assert confusion_HWC.min() < 100 < 200 < confusion_HWC.max()
    Image.fromarray(confusion_HWC).save(tmp_path / "confusion.png")
