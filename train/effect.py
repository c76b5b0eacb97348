"""Which settings count when: `COUNTS_WHEN` is the one table of it, and a setting without effect is refused by it.

Only what the user wrote can be without effect. A built-in recipe may well name the size of multi-scale batches and a
recipe on top of it switch them off.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from salakseg.errors import RecipeError
from salakseg.train.keys import names, setting_keys

if TYPE_CHECKING:
    from salakseg.train.recipe import Layer, Recipe, Resolved


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for a setting to count.

    Attributes:
        text: The same in the words of a recipe.
        holds: Whether it does.
        by: The settings that decide about it.
    """

    text: str
    holds: Callable[["Recipe"], bool]
    by: tuple[str, ...]


def _several_heads(recipe: "Recipe") -> bool:
    return len(recipe.network.head_dropout) > 1


def _class_weights_reach_a_loss(recipe: "Recipe") -> bool:
    config = recipe.selftraining
    return recipe.loss.ce > 0 or (config.enabled and config.loss == "ce" and config.class_weighted)


ENABLED = Condition("selftraining.enabled = true", lambda r: r.selftraining.enabled, ("selftraining.enabled",))
BEGINS = Condition(
    "selftraining.start below schedule.iterations",
    lambda r: r.selftraining.start < r.schedule.iterations,
    ("selftraining.start", "schedule.iterations"),
)
STRONG = Condition("selftraining.strong above 0", lambda r: r.selftraining.strong > 0, ("selftraining.strong",))
SEEN_STRONG = Condition(
    "augment.strong above 0, or self-training with selftraining.strong above 0",
    lambda r: r.augment.strong > 0 or all(one.holds(r) for one in (ENABLED, BEGINS, STRONG)),
    ("augment.strong", *ENABLED.by, *BEGINS.by, *STRONG.by),
)
CUTMIX = Condition('selftraining.mix = "cutmix"', lambda r: r.selftraining.mix == "cutmix", ("selftraining.mix",))
KEEP_FIXED = Condition('selftraining.keep = "fixed"', lambda r: r.selftraining.keep == "fixed", ("selftraining.keep",))
KEEP_ADAPTIVE = Condition(
    'selftraining.keep = "adaptive"', lambda r: r.selftraining.keep == "adaptive", ("selftraining.keep",)
)
KEEP_SHARE = Condition('selftraining.keep = "share"', lambda r: r.selftraining.keep == "share", ("selftraining.keep",))
KEEP_LEARNED = Condition(
    'selftraining.keep = "adaptive" or "share"', lambda r: r.selftraining.keep != "fixed", ("selftraining.keep",)
)
HEADS = Condition("several heads in network.head_dropout", _several_heads, ("network.head_dropout",))
MULTI_SCALE = Condition("augment.multi_scale = true", lambda r: r.augment.multi_scale, ("augment.multi_scale",))
BALANCED = Condition(
    'loss.class_weights = "balanced"', lambda r: r.loss.class_weights == "balanced", ("loss.class_weights",)
)

COUNTS_WHEN: dict[str, tuple[Condition, ...]] = {
    "network.output_stride": (
        Condition(
            "a DeepLab in network.architecture",
            lambda r: r.network.architecture.startswith("deeplab"),
            ("network.architecture",),
        ),
    ),
    "data.rarity_temperature": (
        Condition('data.sampling = "rarity"', lambda r: r.data.sampling == "rarity", ("data.sampling",)),
    ),
    "augment.zoom_step": (
        Condition(
            "augment.zoom_min below zoom_max",
            lambda r: r.augment.zoom_min < r.augment.zoom_max,
            ("augment.zoom_min", "augment.zoom_max"),
        ),
    ),
    "augment.scale_min": (MULTI_SCALE,),
    "augment.scale_max": (MULTI_SCALE,),
    "strong": (SEEN_STRONG,),
    **dict.fromkeys(
        ("strong.brightness", "strong.contrast", "strong.saturation", "strong.hue"),
        (
            Condition(
                "strong.jitter_probability above 0",
                lambda r: r.strong.jitter_probability > 0,
                ("strong.jitter_probability",),
            ),
        ),
    ),
    "strong.blur_sigma": (Condition("strong.blur above 0", lambda r: r.strong.blur > 0, ("strong.blur",)),),
    "strong.cutmix_probability": (CUTMIX,),
    **dict.fromkeys(
        ("strong.cutmix_area_min", "strong.cutmix_area_max", "strong.cutmix_aspect"),
        (
            CUTMIX,
            Condition(
                "strong.cutmix_probability above 0",
                lambda r: r.strong.cutmix_probability > 0,
                ("strong.cutmix_probability",),
            ),
        ),
    ),
    "loss.class_weights": (
        Condition(
            "loss.ce above 0, or class-weighted cross entropy on pseudo-labels",
            _class_weights_reach_a_loss,
            ("loss.ce", "selftraining.class_weighted"),
        ),
    ),
    **dict.fromkeys(
        ("loss.focal_alpha", "loss.focal_gamma"),
        (Condition("loss.focal above 0", lambda r: r.loss.focal > 0, ("loss.focal",)),),
    ),
    "loss.heads": (HEADS,),
    "loss.heads_frozen_from": (
        Condition("loss.heads_frozen above 0", lambda r: r.loss.heads_frozen > 0, ("loss.heads_frozen",)),
    ),
    "selftraining": (ENABLED, BEGINS),
    **dict.fromkeys(
        (
            "selftraining.strong_views",
            "selftraining.mix",
            "selftraining.paste",
            "selftraining.complementary_dropout",
        ),
        (STRONG,),
    ),
    "selftraining.background_threshold": (KEEP_FIXED,),
    "selftraining.thresholds": (KEEP_FIXED,),
    "selftraining.adaptive_floor": (KEEP_ADAPTIVE,),
    "selftraining.adaptive_ceiling": (KEEP_ADAPTIVE,),
    "selftraining.adaptive_momentum": (KEEP_LEARNED,),
    "selftraining.kept_share": (KEEP_SHARE,),
    "selftraining.disagreement": (HEADS,),
    "selftraining.class_weighted": (BALANCED,),
    "selftraining.heads": (HEADS,),
    "performance.joint_forward": (ENABLED, BEGINS),
    "health.rollbacks": (
        Condition('health.action = "guard"', lambda r: r.health.action == "guard", ("health.action",)),
    ),
}
"""What a setting needs to have an effect; of a whole section, all of its settings."""

ALWAYS = {"selftraining.enabled", "selftraining.start"}
"""The switches of a section that count whatever the conditions of the section say."""


def needs(key: str) -> tuple[Condition, ...]:
    """The conditions under which ``section.key`` counts; empty for one that always does."""
    section = () if key in ALWAYS else COUNTS_WHEN.get(key.partition(".")[0], ())
    return section + (COUNTS_WHEN.get(key, ()) if "." in key else ())


def missing(key: str, recipe: "Recipe") -> Condition | None:
    """What a recipe lacks for a setting to count; None where it does count."""
    return next((condition for condition in needs(key) if not condition.holds(recipe)), None)


@dataclass(frozen=True, slots=True)
class Idle:
    """A setting of the user's without effect, and what it needs."""

    key: str
    layer: "Layer"
    needs: Condition

    @property
    def text(self) -> str:
        """Key and need, for a message."""
        return f"{self.key} (needs {self.needs.text})"


def idle_settings(resolved: "Resolved") -> list[Idle]:
    """The settings that the user gave and that change nothing.

    Args:
        resolved: A recipe and its layers. Of a file its own settings are looked at, not those that it builds on; one
            that writes most settings out, as run folders have them all, singles none out.
    """
    found: dict[str, Idle] = {}
    keys = setting_keys(type(resolved.recipe))
    for layer in resolved.layers:
        own = [] if layer.kind == "base" else [key for key in keys if names(layer.table, key)]
        if 2 * len(own) > len(keys):
            continue
        for key in own:
            if (condition := missing(key, resolved.recipe)) is not None:
                found[key] = Idle(key, layer, condition)
    return list(found.values())


def refuse_idle(resolved: "Resolved") -> None:
    """Refuses settings without effect.

    The project file speaks of every run of its folder, whichever recipe: what it says is only refused where it also
    says what makes it idle.

    Raises:
        RecipeError: There are some; all are named.
    """
    idle = [idle for idle in idle_settings(resolved) if not is_excused(idle)]
    if idle:
        raise RecipeError(
            f"Recipe {resolved.recipe.name}: without effect: {'; '.join(one.text for one in idle)}. Leave out what "
            "changes nothing, or give what it needs."
        )


def is_excused(idle: Idle) -> bool:
    """Whether a setting of the project file is made idle from elsewhere."""
    return idle.layer.kind == "project" and not any(names(idle.layer.table, key) for key in idle.needs.by)
