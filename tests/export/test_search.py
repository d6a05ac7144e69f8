"""Which search a model ships with, and the check that a pruned one has to pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from patchline.export import exporter, search
from patchline.export.config import make_settings
from patchline.export.exporter import export_model
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.precision.form import Form
from patchline.export.search import choose_search, compare_searches
from patchline.export.state import load_state
from patchline.runtime.contract import Parity, PrunedSearch, load_manifest, manifest_path
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, ParityError
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import SilentSteps

from .drawn import QUICK, settings_with

ALL = PrunedSearch(leading=20, candidates=200)
"""Most rows are candidates, so that nothing is missed."""
BLIND = PrunedSearch(leading=1, candidates=9)


def use(monkeypatch: pytest.MonkeyPatch, plan: PrunedSearch) -> None:
    monkeypatch.setattr(search, "default_plan", lambda dimension, k: plan)


class TestChoice:
    def test_a_small_bank_is_searched_exactly(self, fitted: FittedModel) -> None:
        chosen = choose_search(fitted, Form(fitted.detector), QUICK, SilentSteps())
        assert (chosen.plan, chosen.problems) == (None, ())

    def test_a_large_bank_is_pruned(
        self, fitted: FittedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, ALL)
        monkeypatch.setattr(search, "LEAST_ROWS", len(fitted.memory_bank))
        chosen = choose_search(fitted, Form(fitted.detector), QUICK, SilentSteps())
        assert chosen.plan is not None and chosen.plan.found is not None
        assert (chosen.plan.leading, chosen.plan.candidates) == (20, 200)
        assert chosen.plan.found.all == chosen.plan.found.nearest == 1
        assert chosen.plan.found.images == min(8, len(fitted.pictures.paths))

    def test_one_row_less_is_not(
        self, fitted: FittedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, ALL)
        monkeypatch.setattr(search, "LEAST_ROWS", len(fitted.memory_bank) + 1)
        assert choose_search(fitted, Form(fitted.detector), QUICK, SilentSteps()).plan is None

    @pytest.mark.parametrize("asked", [{"search": "exact"}, {"precision": "fp16"}])
    def test_exact_where_asked_for_and_for_a_bank_in_half(
        self, fitted: FittedModel, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
    ) -> None:
        monkeypatch.setattr(search, "LEAST_ROWS", 1)
        form = Form(fitted.detector, bank="fp16" if "precision" in asked else "fp32")
        assert choose_search(fitted, form, settings_with(**asked), SilentSteps()).plan is None

    def test_where_it_misses_too_much_auto_is_exact_and_says_why(
        self, fitted: FittedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, BLIND)
        monkeypatch.setattr(search, "LEAST_ROWS", 1)
        chosen = choose_search(fitted, Form(fitted.detector), QUICK, SilentSteps())
        assert chosen.plan is None
        assert any("all nearest rows of" in problem for problem in chosen.problems)

    def test_a_bank_in_which_it_misses_too_much_gets_a_deeper_plan(
        self, fitted: FittedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, BLIND)
        blind = BLIND.model_copy(update={"candidates": 10})
        monkeypatch.setattr(search, "deeper_plans", lambda dimension, k: (blind, ALL, BLIND))
        monkeypatch.setattr(search, "LEAST_ROWS", 1)
        monkeypatch.setattr(search, "LEAST_ROWS_DEEPER", len(fitted.memory_bank))
        chosen = choose_search(fitted, Form(fitted.detector), QUICK, SilentSteps())
        assert chosen.plan is not None and chosen.plan.found is not None
        assert (chosen.plan.leading, chosen.plan.candidates) == (ALL.leading, ALL.candidates)
        assert chosen.problems == ()
        monkeypatch.setattr(search, "LEAST_ROWS_DEEPER", len(fitted.memory_bank) + 1)
        chosen = choose_search(fitted, Form(fitted.detector), QUICK, SilentSteps())
        assert chosen.plan is None and chosen.problems

    def test_where_it_misses_too_much_it_is_refused_when_asked_for(
        self, fitted: FittedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, BLIND)
        with pytest.raises(ConfigurationError, match=r"misses too much.*--search exact"):
            choose_search(
                fitted, Form(fitted.detector), settings_with(search="pruned"), SilentSteps()
            )

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"bank": "external"}, "needs the bank in the graph"),
            ({"precision": "fp16"}, "needs a bank in float32"),
        ],
    )
    def test_pruned_is_refused_before_the_fit_where_there_is_none(
        self, fields: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=message):
            make_settings({"search": "pruned", **fields})


class TestComparison:
    def test_shares_against_brute_force_in_the_bank_without_own_rows(
        self, fitted: FittedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = PrunedSearch(leading=3, candidates=12)
        found, _ = compare_searches(fitted, Form(fitted.detector), plan, SilentSteps())
        assert fitted.row_pictures is not None
        pruned = replace(Form(fitted.detector), search=plan).shipped.head.search
        paths, complete, nearest = fitted.pictures.paths, [], []
        step = max(1, len(paths) // 8)
        for image in range(0, len(paths), step)[:8]:
            frame = torch.from_numpy(read_frames((paths[image],), QUICK.model_size))
            rows = fitted.detector.embedder(frame).flatten(0, 2)
            own = fitted.row_pictures == image
            distances = torch.cdist(
                rows.double(),
                fitted.memory_bank.double(),
                compute_mode="donot_use_mm_for_euclid_dist",
            )
            distances[:, own] = torch.inf
            estimate = pruned.estimate(rows)[:, : len(own)]  # type: ignore[operator]
            estimate[:, own] = torch.inf
            picked = estimate.argsort(1)[:, :12]
            expected = distances.argsort(1)[:, :9]
            hit = (expected.unsqueeze(2) == picked.unsqueeze(1)).any(2)
            complete.append(hit.all(1).double().mean())
            nearest.append(hit[:, 0].double().mean())
        assert 0 < found.all < 1  # else this test shows nothing
        assert found.all == pytest.approx(float(np.mean(complete)), abs=0.01)
        assert found.nearest == pytest.approx(float(np.mean(nearest)), abs=0.01)

    def test_a_model_that_does_not_know_its_rows_is_judged_by_the_whole_bank(
        self, fitted: FittedModel
    ) -> None:
        older = replace(fitted, row_pictures=None)
        found, changed = compare_searches(older, Form(fitted.detector), ALL, SilentSteps())
        assert (found.nearest, changed) == (1, 0)

    def test_changed_verdicts_and_scores_are_problems(
        self, fitted: FittedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared = search._Compared(threshold=1.0)
        row = torch.tensor([[1.0, 2.0, 3.0]])
        compared.add(row, row, 0.999, 1.001)
        compared.add(row, row + 0.5, 0.5, 0.5)
        problems = search._problems(compared.found(2), compared.verdicts)
        assert [problem.split(" ")[-1] for problem in problems] == ["accepted"] * 2 + ["change"]
        assert compared.found(2).image_score_change == pytest.approx(0.002)
        assert compared.found(2).nearest == compared.found(2).all == 0.5


class TestExported:
    def test_the_file_is_pruned_the_manifest_says_so_and_the_state_stays_exact(
        self, fitted: FittedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, ALL)
        path = export_model(fitted, settings_with(search="pruned"), tmp_path, SilentSteps())
        bank = load_manifest(manifest_path(path)).memory_bank
        assert bank.search is not None and bank.search.found is not None
        assert bank.search.candidates == 200
        shapes = {tuple(item.dims) for item in onnx.load(str(path)).graph.initializer}
        assert (22, len(fitted.detector.head.search.get_buffer("bank"))) in shapes
        torch.testing.assert_close(
            load_state(path.with_suffix(".safetensors")).memory_bank, fitted.memory_bank
        )
        frames = read_frames(fitted.pictures.paths[:3], QUICK.model_size)
        expected = fitted.detector.predict(torch.from_numpy(frames))
        with open_engine(path, provider="cpu") as engine:
            found = engine.infer(frames)
        np.testing.assert_allclose(found.image_score, expected[0].numpy(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.anomaly_map, expected[1].numpy(), rtol=1e-2, atol=1e-3)

    def test_a_pruned_file_that_fails_its_check_is_exported_exact_and_says_why(
        self, fitted: FittedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, ALL)
        monkeypatch.setattr(search, "LEAST_ROWS", 1)
        verify_file = exporter.verify_file

        def pruned_fails(path: Path, form: Form, frames: Frame) -> Parity:
            if form.search is not None:
                raise ParityError("influence_map: differs by 0.025, at most 0.01 is accepted")
            return verify_file(path, form, frames)

        monkeypatch.setattr(exporter, "verify_file", pruned_fails)
        path = export_model(fitted, QUICK, tmp_path, SilentSteps())
        bank = load_manifest(manifest_path(path)).required_bank()
        assert bank.search is None
        assert len(bank.search_problems) == 1
        assert "influence_map: differs by 0.025" in bank.search_problems[0]
        with pytest.raises(ParityError):
            export_model(fitted, settings_with(search="pruned"), tmp_path, SilentSteps())

    def test_why_it_is_not_pruned_is_in_the_manifest(
        self, fitted: FittedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, BLIND)
        monkeypatch.setattr(search, "LEAST_ROWS", 1)
        path = export_model(fitted, QUICK, tmp_path, SilentSteps())
        document = json.loads(manifest_path(path).read_text())["memory_bank"]
        assert document["search"] is None
        assert document["search_problems"]
