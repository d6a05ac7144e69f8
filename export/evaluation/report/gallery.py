"""The gallery of one class: the chosen pictures, judged again for their maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchline.calibration.judge import JudgedPicture, judge_pictures
from patchline.export.evaluation.masks import read_mask
from patchline.export.evaluation.report import choice, tiles
from patchline.export.evaluation.result import Evaluation, ScoredPicture
from patchline.runtime.contract import ModelSize
from patchline.runtime.engine import Engine
from patchline.runtime.errors import DataError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess


@dataclass(frozen=True)
class Item:
    """One picture of the gallery; pictures are ``data:`` addresses.

    Attributes:
        scored: the picture and its score in the evaluation.
        frame: as the model sees it.
        heat: the frame under its heat map.
        influence: its influence map.
        truth: the frame with its ground truth, ``None`` where there is none to show.
        why_no_truth: words in its place, empty where there is one.
    """

    scored: ScoredPicture
    frame: str
    heat: str
    influence: str
    truth: str | None
    why_no_truth: str


@dataclass(frozen=True)
class Section:
    """Pictures chosen for one reason.

    Attributes:
        title: heading.
        about: one sentence on what is shown.
        if_empty: one sentence for when there is nothing to show.
        items: the picture to look at first in front.
        total: how many such pictures there are, shown or not.
    """

    title: str
    about: str
    if_empty: str
    items: tuple[Item, ...]
    total: int


@dataclass(frozen=True)
class _Plan:
    title: str
    about: str
    if_empty: str
    choose: choice.Choice
    most: int
    of_defective: bool | None = None  # None: of both kinds


_PLANS = (
    _Plan(
        "Missed defects",
        "Defective parts below the threshold, the lowest scores first.",
        "No defect was missed.",
        choice.missed_defects,
        most=8,
        of_defective=True,
    ),
    _Plan(
        "False alarms",
        "Good parts at or above the threshold, the highest scores first.",
        "No good part raised an alarm.",
        choice.false_alarms,
        most=8,
        of_defective=False,
    ),
    _Plan(
        "Close calls",
        "Rightly judged parts nearest to the threshold: the next ones to go wrong.",
        "No picture was judged rightly.",
        choice.close_calls,
        most=6,
    ),
    _Plan(
        "Clearest finds",
        "Found defects with the highest scores, one of every kind first.",
        "No defect was found.",
        choice.clearest_finds,
        most=6,
        of_defective=True,
    ),
    _Plan(
        "Quietest good parts",
        "Good parts with the lowest scores: what the model takes for normal.",
        "No good part was below the threshold.",
        choice.quietest_good,
        most=4,
        of_defective=False,
    ),
)


def build_gallery(evaluation: Evaluation, engine: Engine) -> tuple[Section, ...]:
    """Choose pictures and draw them; a picture in several sections is judged once.

    Raises:
        ImageReadError: a picture cannot be read any more; it is named.
        EngineError: the engine failed or is closed.
    """
    threshold = evaluation.manifest.threshold.value
    candidates = [plan.choose(evaluation.pictures, threshold) for plan in _PLANS]
    chosen = [part[: plan.most] for plan, part in zip(_PLANS, candidates, strict=True)]
    items = _draw(evaluation, [scored for part in chosen for scored in part], engine)
    return tuple(
        Section(
            plan.title,
            plan.about,
            _why_empty(plan, evaluation),
            tuple(items[scored] for scored in part),
            len(every),
        )
        for plan, part, every in zip(_PLANS, chosen, candidates, strict=True)
    )


def _why_empty(plan: _Plan, evaluation: Evaluation) -> str:
    if not evaluation.pictures:
        return "There are no test pictures."
    kind = plan.of_defective
    if kind is not None and not evaluation.count(defective=kind):
        return f"The test set has no {'defective' if kind else 'good'} pictures."
    return plan.if_empty


def _draw(
    evaluation: Evaluation, chosen: Sequence[ScoredPicture], engine: Engine
) -> dict[ScoredPicture, Item]:
    each_once = list(dict.fromkeys(chosen))
    judged = judge_pictures(engine, [scored.picture.path for scored in each_once])
    return {
        scored: _item(evaluation, scored, maps)
        for scored, maps in zip(each_once, judged, strict=True)
    }


def _item(evaluation: Evaluation, scored: ScoredPicture, maps: JudgedPicture) -> Item:
    manifest = evaluation.manifest
    image = read_image(scored.picture.path)
    frame = preprocess(image, manifest.model_size)
    truth, why_no_truth = _truth(scored, image, frame)
    return Item(
        scored,
        tiles.data_uri(frame),
        tiles.data_uri(tiles.heat_tile(frame, maps.anomaly_map, manifest.threshold.map_value)),
        tiles.data_uri(tiles.influence_tile(maps.influence_map)),
        truth,
        why_no_truth,
    )


def _truth(scored: ScoredPicture, image: Frame, frame: Frame) -> tuple[str | None, str]:
    """The ground truth as a ``data:`` address, or ``None`` and words in its place."""
    if not scored.picture.is_defective:
        return None, "good part"
    if scored.picture.mask is None:
        return None, "no mask"
    height, width = frame.shape[:2]
    try:
        mask = read_mask(
            scored.picture.mask, image.shape[:2], ModelSize(height=height, width=width)
        )
    except DataError:  # the problems of the evaluation say which mask and what to do
        return None, "mask not usable: see the remarks"
    return tiles.data_uri(tiles.truth_tile(frame, mask)), ""
