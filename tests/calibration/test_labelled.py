"""Labelled folders, and the threshold of largest F1 against scikit-learn and brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_curve

from patchline.calibration.labelled import f1_max_threshold, labelled_folder
from patchline.runtime.errors import DataError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


class TestFolder:
    def test_good_ones_come_first_and_the_folder_names_the_defect(self, tmp_path: Path) -> None:
        touch(*(tmp_path / name for name in ("chip/1.png", "good/2.png", "good/1.jpg", "a/9.bmp")))
        touch(tmp_path / "good" / "notes.txt", tmp_path / "top.png")
        found = labelled_folder(tmp_path)
        assert [(item.defect, item.path.name) for item in found] == [
            ("good", "1.jpg"),
            ("good", "2.png"),
            ("a", "9.bmp"),
            ("chip", "1.png"),
        ]
        assert [item.is_defective for item in found] == [False, False, True, True]

    def test_a_class_folder_will_do(self, tmp_path: Path) -> None:
        touch(tmp_path / "train" / "good" / "0.png")
        touch(tmp_path / "test" / "good" / "1.png", tmp_path / "test" / "dent" / "1.png")
        assert {item.path.parent.parent.name for item in labelled_folder(tmp_path)} == {"test"}

    @pytest.mark.parametrize(
        ("files", "words"),
        [
            ([], "holds no picture"),
            (["good/1.png"], "holds good ones only"),
            (["chip/1.png"], "holds defective ones only"),
            (["1.png"], "holds no picture"),
        ],
    )
    def test_one_kind_alone_is_refused(self, tmp_path: Path, files: list[str], words: str) -> None:
        touch(*(tmp_path / name for name in files))
        with pytest.raises(DataError, match=words):
            labelled_folder(tmp_path)

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            labelled_folder(tmp_path / "nowhere")


scored = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40)


class TestF1Max:
    @given(scored)
    def test_no_threshold_does_better(self, pairs: list[tuple[int, bool]]) -> None:
        scores = np.array([float(score) for score, _ in pairs])
        labels = np.array([label for _, label in pairs])
        if labels.all() or not labels.any() or len(set(scores)) == 1:
            return
        found = f1_max_threshold(scores, labels)
        assert f1_score(labels, scores >= found.value) == pytest.approx(found.f1)
        precision, recall, _ = precision_recall_curve(labels, scores)
        with np.errstate(invalid="ignore"):
            best = np.nanmax(2 * precision * recall / (precision + recall))
        assert found.f1 == pytest.approx(best)
        assert (found.good, found.defective) == ((~labels).sum(), labels.sum())

    def test_it_lies_halfway_between_the_scores_it_parts(self) -> None:
        found = f1_max_threshold(np.array([1.0, 2.0, 4.0, 9.0]), np.array([0, 0, 1, 1], bool))
        assert (found.value, found.f1) == (3.0, 1.0)

    def test_where_everything_is_best_called_defective(self) -> None:
        scores, labels = np.array([1.0, 2.0, 3.0]), np.array([True, False, True])
        found = f1_max_threshold(scores, labels)
        assert found.value == 1.0 and found.f1 == pytest.approx(0.8)

    @pytest.mark.parametrize(
        ("scores", "labels", "words"),
        [
            ([1.0, 2.0], [True, True], "good and of defective"),
            ([1.0, 2.0], [False, False], "good and of defective"),
            ([1.0, np.nan], [False, True], "finite"),
            ([3.0, 3.0, 3.0], [False, True, True], "all 3 labelled pictures score the same"),
        ],
    )
    def test_what_cannot_be_told_apart_is_refused(
        self, scores: list[float], labels: list[bool], words: str
    ) -> None:
        with pytest.raises(DataError, match=words):
            f1_max_threshold(np.array(scores), np.array(labels))
