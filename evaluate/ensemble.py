"""Every variant of a checkpoint in one pass over the patches: two forward passes a batch, student and EMA, give all.

Axes: B image, N head, K class, H row, W column, P photo, V variant.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salakseg.classes import IGNORE_INDEX
from salakseg.data.patches import Patch, PatchIndex, Photo
from salakseg.data.splits import flight_places
from salakseg.evaluate.calibration import LogitSample
from salakseg.evaluate.inference import Example, forward, read_batches, to_input
from salakseg.evaluate.subjects import Subject
from salakseg.evaluate.tallies import ConfidenceTally, DisagreementTally, EdgeTally, confusions
from salakseg.evaluate.variants import TURNS, Opinions, TurnedMean, Way, predictions, turn, ways_of
from salakseg.evaluate.worst import WorstPatches
from salakseg.memory import give_back_memory
from salakseg.network.heads import Logits, combine_heads, most_probable
from salakseg.network.variant import Weights


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of variants.

    Attributes:
        subject: Number of the checkpoint; None for the mean of all checkpoints.
        way: How it is used; of the mean of all, how the first one is.
    """

    subject: int | None
    way: Way


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What one pass counted.

    Attributes:
        rows: The variants, V of them; the first is the one that the report is on.
        photos: The photos, P of them, in the order of the patches.
        patches_P: Patches of each photo.
        counts_PVKK: Confusion matrices, int64.
        edges: Boundary counts of the first variant.
        confidence: Confidence of the first variant.
        labeller: Confidence of the pseudo-labels that the run's labeller would give.
        labeller_weights: Whose weights these are: "ema" for a teacher, "student" where it labels for itself.
        disagreement: Between the heads, by weights; empty with a single head.
        worst: Patches to look at.
        places: Place of each photo of the patches, measured or not, along its flight, see `flight_places`.
        ground_blocks: Those of all photos that are blocks of ground, see `PatchIndex`.
    """

    rows: tuple[Row, ...]
    photos: tuple[Photo, ...]
    patches_P: NDArray[np.int64]
    counts_PVKK: NDArray[np.int64]
    edges: EdgeTally
    confidence: ConfidenceTally
    labeller: ConfidenceTally
    labeller_weights: Weights
    disagreement: dict[Weights, DisagreementTally]
    worst: WorstPatches
    places: Mapping[Photo, int]
    ground_blocks: frozenset[Photo]

    def of_photos(self, chosen_P: NDArray[np.bool_]) -> "Evaluation":
        """What was counted photo by photo, of some photos alone."""
        return replace(
            self,
            photos=tuple(photo for photo, take in zip(self.photos, chosen_P, strict=True) if take),
            patches_P=self.patches_P[chosen_P],
            counts_PVKK=self.counts_PVKK[chosen_P],
            edges=self.edges.of_photos(chosen_P),
            confidence=self.confidence.of_photos(chosen_P),
            labeller=self.labeller.of_photos(chosen_P),
        )


def evaluate(
    subjects: Sequence[Subject],
    index: PatchIndex,
    patches: Sequence[Patch],
    *,
    tta: bool = False,
    ensemble: bool = False,
    samples: Mapping[Weights, LogitSample] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measures every variant of the first checkpoint, and the others as they are used by default.

    Args:
        subjects: The checkpoints.
        index: Where the patches lie.
        patches: Labelled patches, at least one.
        tta: Whether every variant of the first is also tried with flips and turns.
        ensemble: Whether the mean of all checkpoints' probabilities is measured too.
        samples: Take logits of the first checkpoint, by weights, for fitting a temperature.
        progress: Called with patches done and to do.

    Raises:
        DataError: A picture or mask that cannot be used, or a network whose answers are no numbers.
    """
    with torch.inference_mode():
        return _Pass(subjects, tta, ensemble, samples or {}).run(index, patches, progress)


class _Pass:
    """The state of one pass."""

    def __init__(
        self, subjects: Sequence[Subject], tta: bool, ensemble: bool, samples: Mapping[Weights, LogitSample]
    ) -> None:
        first = subjects[0]
        self.subjects = subjects
        self.classes = len(first.checkpoint.classes)
        self.samples = samples
        own = [Row(number, Way(subject.variant)) for number, subject in enumerate(subjects)]
        others = [Row(0, way) for way in self._ways(first, tta) if way.tta or way.variant != first.variant]
        self.rows = (own[0], *others, *own[1:], *([Row(None, own[0].way)] if ensemble else []))
        self._own_rows = own
        self.photos: dict[Photo, int] = {}
        self.patches: list[int] = []
        self.counts: list[NDArray[np.int64]] = []
        self.edges = EdgeTally(self.classes)
        self.confidence = ConfidenceTally(self.classes)
        self.labeller = ConfidenceTally(self.classes)
        settings = first.checkpoint.recipe.get("selftraining", {})
        self.labeller_heads = str(settings.get("labeller_heads", "prob"))
        student_labels = settings.get("enabled", False) and settings.get("labeller") == "student"
        kept = first.checkpoint.kept_weights
        self.labeller_weights: Weights = "student" if student_labels and "student" in kept else "ema"
        self.disagreement: dict[Weights, DisagreementTally] = (
            {whose: DisagreementTally(first.heads) for whose in kept} if first.heads > 1 else {}
        )
        self.worst = WorstPatches(self.classes)

    @staticmethod
    def _ways(first: Subject, tta: bool) -> list[Way]:
        """Every way to use a checkpoint; its own variant is used at its own temperature, as predict uses it."""
        own = first.variant
        return [
            replace(way, variant=own) if (way.variant.weights, way.variant.heads) == (own.weights, own.heads) else way
            for way in ways_of(first.heads, tta, first.checkpoint.kept_weights)
        ]

    def run(
        self, index: PatchIndex, patches: Sequence[Patch], progress: Callable[[int, int], None] | None
    ) -> Evaluation:
        logits_a_pixel = self.classes * max(subject.heads for subject in self.subjects)
        done = 0
        class_map = self.subjects[0].checkpoint.class_map
        for batch in read_batches(index, patches, class_map, logits_a_pixel):
            self._take(batch)
            done += len(batch)
            del batch
            give_back_memory()
            if progress is not None:
                progress(done, len(patches))
        return Evaluation(
            self.rows,
            tuple(self.photos),
            np.array(self.patches),
            np.stack(self.counts),
            self.edges,
            self.confidence,
            self.labeller,
            self.labeller_weights,
            self.disagreement,
            self.worst,
            flight_places(list(index.photos())),
            index.ground_blocks,
        )

    def _take(self, batch: list[Example]) -> None:
        photo_B = [self._photo(example.patch) for example in batch]
        label_BHW = torch.from_numpy(np.stack([example.label_HW for example in batch])).to(self.subjects[0].device)
        found: dict[Row, Tensor] = {}
        prob_BKHW: list[Tensor] = []
        disagreement_B = np.zeros(len(batch))
        for number, subject in enumerate(self.subjects):
            image_BCHW = to_input(batch, subject.device, subject.checkpoint.mean, subject.checkpoint.std)
            for whose in subject.checkpoint.kept_weights if number == 0 else (subject.variant.weights,):
                logits = forward(subject.model(whose), image_BCHW, subject.name)
                opinions = Opinions.of(logits)
                found |= self._found(number, whose, opinions)
                if whose == subject.variant.weights:
                    variant = subject.variant
                    prob_BKHW.append(combine_heads(logits, variant.heads, variant.temperature))
                if number == 0:
                    shares_B = self._look(whose, logits, opinions, label_BHW, photo_B)
                    disagreement_B = shares_B if whose == subject.variant.weights else disagreement_B
        found |= self._turned(batch)
        if self.rows[-1].subject is None:
            found[self.rows[-1]] = most_probable(torch.stack(prob_BKHW).mean(dim=0), 1).to(torch.uint8)
        for row, prob in zip(self._own_rows, prob_BKHW, strict=True):
            # At its own temperature: what predict would write
            found[row] = most_probable(prob, 1).to(torch.uint8)
        self.confidence.add(photo_B, label_BHW, prob_BKHW[0])
        self._count(batch, photo_B, label_BHW, found, disagreement_B)

    def _photo(self, patch: Patch) -> int:
        number = self.photos.setdefault(patch.photo_key, len(self.photos))
        if number == len(self.patches):
            self.patches.append(0)
            self.counts.append(np.zeros((len(self.rows), self.classes, self.classes), np.int64))
        self.patches[number] += 1
        return number

    def _found(self, number: int, weights: Weights, opinions: Opinions) -> dict[Row, Tensor]:
        """Class ids of the rows that one forward pass gives."""
        rows = [
            row for row in self.rows if row.subject == number and not row.way.tta and row.way.variant.weights == weights
        ]
        ids = predictions(opinions, [row.way.variant.heads for row in rows])
        return {row: ids[row.way.variant.heads] for row in rows}

    def _look(
        self, weights: Weights, logits: Logits, opinions: Opinions, label_BHW: Tensor, photo_B: list[int]
    ) -> NDArray[np.float64]:
        """What is known of the first checkpoint alone; returns the heads' disagreement on each image."""
        if weights == self.labeller_weights:
            self.labeller.add(photo_B, label_BHW, self._labels(logits, opinions))
        if weights in self.samples:
            self.samples[weights].add(logits, label_BHW)
        if weights not in self.disagreement:
            return np.zeros(len(photo_B))
        return self.disagreement[weights].add(opinions.winners_BNHW, label_BHW != IGNORE_INDEX)

    def _labels(self, logits: Logits, opinions: Opinions) -> Tensor:
        """Probabilities [B, K, H, W] as the run's labeller has them."""
        return opinions.prob_BKHW if self.labeller_heads == "prob" else combine_heads(logits, self.labeller_heads)

    def _turned(self, batch: list[Example]) -> dict[Row, Tensor]:
        """Class ids of the rows with flips and turns."""
        first = self.subjects[0]
        found: dict[Row, Tensor] = {}
        for weights in first.checkpoint.kept_weights:
            rows = [row for row in self.rows if row.way.tta and row.way.variant.weights == weights]
            if not rows:
                continue
            image_BCHW = to_input(batch, first.device, first.checkpoint.mean, first.checkpoint.std)
            mean = TurnedMean({row.way.variant.heads: row.way.variant.temperature for row in rows})
            for turns, flip in TURNS:
                mean.add(forward(first.model(weights), turn(image_BCHW, turns, flip), first.name), turns, flip)
            for row in rows:
                found[row] = most_probable(mean.probabilities(row.way.variant.heads), 1).to(torch.uint8)
        return found

    def _count(
        self,
        batch: list[Example],
        photo_B: list[int],
        label_BHW: Tensor,
        found: dict[Row, Tensor],
        disagreement_B: NDArray[np.float64],
    ) -> None:
        counts_VBKK = np.stack([confusions(label_BHW, found[row], self.classes) for row in self.rows])
        prediction_BHW = found[self.rows[0]].cpu().numpy()
        for b, (example, photo) in enumerate(zip(batch, photo_B, strict=True)):
            self.counts[photo] += counts_VBKK[:, b]
            self.edges.add(photo, example.label_HW, prediction_BHW[b])
            self.worst.add(example.patch, counts_VBKK[0, b], float(disagreement_B[b]))
