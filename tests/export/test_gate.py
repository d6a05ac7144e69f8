"""The gate: own rows masked, figures by brute force, and every limit refused by name."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from patchline.calibration.threshold import normal_scores
from patchline.export.describe import describe
from patchline.export.detector import AnomalyHead
from patchline.export.external_bank import bank_tensors
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx
from patchline.export.precision.compare import Pairs, compare, evenly_spread
from patchline.export.precision.evidence import foreign_pictures, own_rows_of
from patchline.export.precision.form import Form
from patchline.export.precision.gate import LIMITS, Limits, check_gate, gate
from patchline.export.precision.masked import MaskedModel
from patchline.export.precision.rank import highest_correlation, rank_correlation
from patchline.runtime.contract import Gate, Threshold
from patchline.runtime.errors import ConfigurationError, DataError, GateError

from .drawn import QUICK

RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def reference(fitted: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> MaskedModel:
    path = tmp_path_factory.mktemp("graph") / "float32.onnx"
    save_onnx(Form(fitted.detector).external(), path)
    return MaskedModel(path, bank_tensors(fitted.detector.head), describe(fitted, QUICK, None))


def never(*_: object) -> str:
    raise AssertionError("nothing overflows")


class TestMaskedModel:
    def test_it_judges_as_a_bank_without_the_pictures_rows(
        self, fitted: FittedModel, reference: MaskedModel
    ) -> None:
        assert fitted.row_pictures is not None
        for number in (0, 5):
            path = fitted.pictures.paths[number]
            frames = read_frames((path,), QUICK.model_size)
            own = fitted.row_pictures.numpy() == number
            assert (own_rows_of(fitted)(path) == own).all() and own.any()
            head = AnomalyHead(
                fitted.memory_bank[~torch.from_numpy(own)],
                fitted.statistics,
                fitted.detector.head.grid,
                QUICK.model_size,
                score=QUICK.score_name,
                neighbors=QUICK.neighbors,
            )
            head.duplicate_distance.copy_(fitted.detector.head.duplicate_distance)
            with torch.inference_mode():
                expected = head(fitted.detector.embedder(torch.from_numpy(frames)))
            found = reference.judge(frames, own)
            whole = reference.infer(frames)
            assert found.image_score == pytest.approx(expected[0].numpy(), rel=1e-3)
            assert np.allclose(found.anomaly_map, expected[1].numpy(), atol=2e-3)
            assert found.image_score > 1.01 * whole.image_score  # its own rows lowered it

    def test_a_copy_of_a_picture_has_the_same_rows(
        self, fitted: FittedModel, tmp_path: Path
    ) -> None:
        copy = tmp_path / "other-name.png"
        copy.write_bytes(fitted.pictures.paths[3].read_bytes())
        own_rows = own_rows_of(fitted)
        assert (own_rows(copy) == own_rows(fitted.pictures.paths[3])).all()
        copy.write_bytes(copy.read_bytes() + b"\0")
        assert not own_rows(copy).any()

    def test_a_fit_that_does_not_say(self, fitted: FittedModel) -> None:
        with pytest.raises(ConfigurationError, match=r"older Patchline.*Fit it anew"):
            own_rows_of(replace(fitted, row_pictures=None))


class TestCompare:
    def test_a_model_beside_itself(self, fitted: FittedModel, reference: MaskedModel) -> None:
        paths = fitted.pictures.paths[:3]
        done: list[int] = []
        pairs = compare((reference, reference), paths, own_rows_of(fitted), never, done.append)
        assert pairs.paths == paths and done == [1, 2, 3] and pairs.left_out == 0
        assert (pairs.scores[:, 0] == pairs.scores[:, 1]).all()
        assert pairs.maps.shape == (3, 2, 64 * 64)
        assert (pairs.maps[:, 0].max(1) == pairs.map_maxima[:, 0]).all()
        assert (pairs.times_ms > 0).all() and pairs.time_ratio > 0

    def test_pictures_without_which_the_bank_is_too_small(
        self, fitted: FittedModel, reference: MaskedModel
    ) -> None:
        rows = len(fitted.memory_bank)

        def own_rows(path: Path) -> np.ndarray:
            return np.arange(rows) < rows - (8 if path.name == "000.png" else 9)

        paths = fitted.pictures.paths[:2]
        models = reference, reference
        assert compare(models, paths, own_rows, never, lambda done: None).left_out == 1
        with pytest.raises(DataError, match="none of the 1 pictures leaves 9 rows"):
            compare(models, paths[:1], own_rows, never, lambda done: None)

    def test_values_that_are_not_finite_name_the_picture(
        self, fitted: FittedModel, reference: MaskedModel
    ) -> None:
        bank = {**reference.bank, "bank_statistics": np.full(3, np.nan, np.float32)}
        broken = MaskedModel(reference.graph, bank, reference.manifest)
        with pytest.raises(GateError, match=r"NaN or infinite values for .*000.png, since"):
            compare(
                (reference, broken),
                fitted.pictures.paths,
                own_rows_of(fitted),
                lambda model, frame: ", since it does",
                lambda done: None,
            )

    def test_pictures_are_spread_evenly(self) -> None:
        paths = [Path(f"{i}.png") for i in range(1000)]
        spread = evenly_spread(paths)
        at = [int(path.stem) for path in spread]
        assert len(spread) == 200 and at[0] == 0 and at[-1] == 999
        assert set(np.diff(at)) <= {5, 6}
        assert evenly_spread(paths[:7]) == tuple(paths[:7])


def pairs_of(scores: np.ndarray, maps: np.ndarray) -> Pairs:
    paths = tuple(Path(f"{i}.png") for i in range(len(scores)))
    return Pairs(paths, scores, maps.max(2), maps.astype(np.float32), np.ones_like(scores))


def threshold(value: float, map_value: float) -> Threshold:
    return Threshold(value=value, map_value=map_value, rule="test", false_alarm_rate=0.05)


def drawn_pairs(noise: float, count: int = 40) -> Pairs:
    before = RNG.gamma(20, 0.02, count)
    after = 1.05 * before + RNG.normal(0, noise, count)
    maps = RNG.uniform(0, 1, (count, 1, 500)) * before[:, None, None]
    noisy = 1.05 * maps + RNG.normal(0, noise, maps.shape)
    return pairs_of(np.stack([before, after], 1), np.concatenate([maps, noisy], 1))


class TestGate:
    thresholds = threshold(0.5, 0.6), threshold(1.05 * 0.5, 1.05 * 0.6)

    def test_its_figures_by_brute_force(self) -> None:
        pairs = drawn_pairs(0.03)
        found = gate(pairs, self.thresholds, None, LIMITS["int8"])
        ranks = [stats.rankdata(scores) for scores in pairs.scores.T]
        assert found.rank_correlation == pytest.approx(np.corrcoef(*ranks)[0, 1])
        errors = sorted(abs(pairs.maps[:, 1] / 0.63 - pairs.maps[:, 0] / 0.6).ravel())
        assert found.map_error == pytest.approx(errors[int(0.95 * len(errors))], rel=0.01)
        changed = sum((a >= 0.5) != (b >= 0.525) for a, b in pairs.scores)
        assert found.verdict_changes == changed / 40
        assert (found.images, found.labelled_images, found.image_auroc_change) == (40, 0, None)

    def test_a_scale_alone_is_no_problem(self) -> None:
        found = gate(drawn_pairs(0), self.thresholds, None, LIMITS["fp16"])
        assert found.problems == () and found.map_error < 1e-6
        assert found.rank_correlation == pytest.approx(1)
        check_gate(found, "fp16", "lid")

    def test_every_limit_is_named_with_its_figure(self) -> None:
        found = gate(drawn_pairs(0.2), self.thresholds, None, LIMITS["fp16"])
        text = "; ".join(found.problems)
        for words in ("rank correlation of 40", "anomaly maps differ by", "of 40 verdicts differ"):
            assert words in text
        with pytest.raises(GateError, match=r"lid in fp16 judges.*--precision fp32; --force"):
            check_gate(found, "fp16", "lid")
        with pytest.raises(GateError, match=r"--float-layers auto; --force"):
            check_gate(found, "int8", "lid")
        with pytest.raises(GateError, match=r"3 pictures are odd\. Raise --calibration-images"):
            check_gate(found, "int8", "lid", suspicion="3 pictures are odd")
        check_gate(found.model_copy(update={"is_forced": True}), "int8", "lid")

    def test_one_verdict_of_a_few_may_change_and_two_may_not(self) -> None:
        scores = np.array([[0.4, 0.4]] * 11)
        strict = replace(LIMITS["fp16"], rank_correlation=-1.0)
        maps = np.full((11, 2, 4), 0.5)
        for changed, problems in ((1, 0), (2, 1)):
            scores[:changed, 1] = 0.6
            found = gate(pairs_of(scores, maps), (threshold(0.5, 0.6),) * 2, None, strict)
            assert len(found.problems) == problems

    def test_few_pictures_have_no_rank_limit(self) -> None:
        scores = np.array([[0.40, 0.41], [0.41, 0.40]])
        pairs = pairs_of(scores, np.full((2, 2, 4), 0.5))
        found = gate(pairs, (threshold(0.5, 0.6),) * 2, None, LIMITS["fp16"])
        assert found.rank_correlation == pytest.approx(-1) and found.problems == ()

    @pytest.mark.parametrize("true", [0.0, 0.5, 0.9])
    @pytest.mark.parametrize("count", [10, 40])
    def test_the_interval_holds_the_correlation_of_many_pictures(
        self, true: float, count: int
    ) -> None:
        rng = np.random.default_rng(count)
        of_many = 6 / np.pi * np.arcsin(true / 2)  # Pearson's own, of normal scores
        x, noise = rng.normal(size=(2, 1000, count))
        y = true * x + np.sqrt(1 - true**2) * noise
        highest = [
            highest_correlation(rank_correlation(*pair), count) for pair in zip(x, y, strict=True)
        ]
        assert 0.92 <= np.mean(np.array(highest) >= of_many) <= 0.98

    def test_the_ends_of_the_interval(self) -> None:
        z = np.arctanh(0.8) + 1.6448536 * np.sqrt((1 + 0.32) / 17)
        assert highest_correlation(0.8, 20) == pytest.approx(np.tanh(z))
        assert (
            highest_correlation(1.0, 10) == pytest.approx(1) and highest_correlation(-1, 9) < -0.9
        )
        with pytest.raises(ValueError, match="3 pictures give no interval"):
            highest_correlation(0.5, 3)

    @pytest.mark.parametrize(
        ("turned", "count", "is_refused"), [(5, 20, False), (100, 400, True), (20, 20, True)]
    )
    def test_a_few_good_pictures_are_not_refused_by_chance(
        self, turned: int, count: int, is_refused: bool
    ) -> None:
        """Of so many scores, every ``turned`` in a row have their order turned round."""
        before = np.linspace(0.3, 0.4, count)
        after = np.concatenate([part[::-1] for part in np.split(before, count // turned)])
        pairs = pairs_of(np.stack([before, after], 1), np.full((count, 2, 4), 0.5))
        found = gate(pairs, (threshold(0.5, 0.6),) * 2, None, LIMITS["int8"])
        expected = 1 - 2 * (turned**2 - 1) / (count**2 - 1)
        assert found.rank_correlation == pytest.approx(expected) and expected < 0.9
        assert bool(found.problems) == is_refused
        if is_refused:
            assert f"{expected:.4f} (of many more " in found.problems[0]

    def test_what_was_accepted_goes_into_the_record(self) -> None:
        pairs = replace(drawn_pairs(0), left_out=3)
        pairs.times_ms[:, 1] = 1.2344
        found = gate(pairs, self.thresholds, None, LIMITS["int8"])
        assert found.limits is not None and found.limits.model_dump() == asdict(LIMITS["int8"])
        assert (found.left_out, found.time_ratio) == (3, 1.234)

    def test_nan_is_a_problem(self) -> None:
        pairs = drawn_pairs(0)
        pairs.maps[:, 1] = np.nan
        limits = Limits(0.9, 0.1, 1.0, 1.0, 1.0)
        with pytest.raises(ValueError, match="map_error"):  # the manifest takes finite values only
            gate(pairs, self.thresholds, None, limits)

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [([1, 1, 1], [2, 2, 2], 1.0), ([1, 1, 1], [1, 2, 3], 0.0), ([1, 2, 3], [5, 5, 5], 0.0)],
    )
    def test_the_rank_correlation_of_copies(
        self, before: list[int], after: list[int], expected: float
    ) -> None:
        assert rank_correlation(np.array(before, float), np.array(after, float)) == expected


class TestForeignPictures:
    def test_they_are_named_with_figures(self) -> None:
        normal = normal_scores(np.linspace(0.3, 0.5, 21), np.linspace(0.3, 0.5, 21), "cross-fit")
        pairs = pairs_of(np.array([[0.4, 0.4], [1.3, 1.4], [0.9, 0.9]]), np.zeros((3, 2, 4)))
        text = foreign_pictures(pairs, normal)
        assert text is not None and text.startswith("1 of 3 pictures score more than 2.5 times")
        assert "(0.4): 1.png (1.3). If they are not of this product" in text
        assert foreign_pictures(replace(pairs, scores=pairs.scores[:1]), normal) is None


def test_limits_of_int8_are_wider() -> None:
    half, int8 = LIMITS["fp16"], LIMITS["int8"]
    assert half.rank_correlation > int8.rank_correlation and half.map_error < int8.map_error
    assert (half.image_auroc, int8.image_auroc) == (0.001, 0.005)
    assert Gate.model_fields["is_forced"].default is False
