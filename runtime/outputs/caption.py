"""The caption of an annotated picture: verdict, score and threshold, readable at any size."""

from __future__ import annotations

import cv2

from patchline.runtime.preprocess import Frame
from patchline.runtime.verdict import Verdict

Color = tuple[int, int, int]
"""Blue, green, red; 0 to 255."""

GOOD_COLOR: Color = (72, 146, 30)
ANOMALOUS_COLOR: Color = (38, 30, 205)
_WHITE: Color = (255, 255, 255)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT_SHARE = 0.036  # height of a capital letter in parts of the picture's shorter side
_SMALLEST_PX, _LARGEST_PX = 7.0, 60.0  # below that the strokes run into each other
_OPACITY = 0.82


def draw_caption(picture: Frame, verdict: Verdict) -> None:
    """Draw a banner with the verdict at the top, and a border in its colour, in place.

    The longest wording that fits the width is taken, so that a picture of 64 px has the figures
    too.
    """
    color = ANOMALOUS_COLOR if verdict.anomalous else GOOD_COLOR
    height, width = picture.shape[:2]
    side = min(height, width)
    border_px = max(1, round(side / 120))
    letter_px = min(max(side * _TEXT_SHARE, _SMALLEST_PX), _LARGEST_PX)
    lines, scale = _wording(verdict, letter_px, width - 4 * border_px)
    line_px = round((1.9 if len(lines) == 1 else 1.5) * _letter_height(scale))
    _draw_banner(picture, color, border_px + line_px * len(lines))
    for row, line in enumerate(lines):
        baseline = border_px + row * line_px + round(0.5 * (line_px + _letter_height(scale)))
        _draw_text(picture, line, (3 * border_px, baseline), scale)
    cv2.rectangle(picture, (0, 0), (width - 1, height - 1), color, 2 * border_px - 1)


def _wording(verdict: Verdict, letter_px: float, width_px: int) -> tuple[list[str], float]:
    word = "ANOMALOUS" if verdict.anomalous else "GOOD"
    score, threshold = f"{verdict.score:.4g}", f"{verdict.threshold:.4g}"
    choices = (
        [f"{word}  score {score}  threshold {threshold}"],
        [f"{word}  {score} / {threshold}"],
        [word, f"{score} / {threshold}"],
    )
    scale = letter_px / _letter_height(1.0)
    for lines in choices:
        if _text_width(lines, scale) <= width_px:
            return lines, scale
    return choices[-1], scale * width_px / _text_width(choices[-1], scale)


def _draw_banner(picture: Frame, color: Color, height_px: int) -> None:
    banner = picture[:height_px]
    paint = banner.copy()
    paint[:] = color
    cv2.addWeighted(paint, _OPACITY, banner, 1.0 - _OPACITY, 0.0, dst=banner)


def _draw_text(picture: Frame, text: str, origin: tuple[int, int], scale: float) -> None:
    cv2.putText(picture, text, origin, _FONT, scale, _WHITE, _stroke_px(scale), cv2.LINE_AA)


def _stroke_px(scale: float) -> int:
    return max(1, round(1.7 * scale))


def _text_width(lines: list[str], scale: float) -> int:
    sizes = (cv2.getTextSize(line, _FONT, scale, _stroke_px(scale))[0] for line in lines)
    return max(int(size[0]) for size in sizes)


def _letter_height(scale: float) -> float:
    return float(cv2.getTextSize("X", _FONT, scale, _stroke_px(scale))[0][1])
