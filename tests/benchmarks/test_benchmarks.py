"""Benchmarks run at a tiny size and write what the schema asks; no time is asserted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from patchline.benchmarks import influence_forms, report, scores, threshold_simulation
from patchline.benchmarks.coreset import naive_by_differences, naive_by_product
from patchline.benchmarks.influence import CLOSED, GIVEN, all_forms, ask, ratios, scale_to_all
from patchline.benchmarks.influence_agreement import CENTRAL, FORWARD, check_agreement
from patchline.benchmarks.influence_forms import Question
from patchline.export.coreset import greedy_coreset
from patchline.export.demo.pictures import write_demo_data
from patchline.export.evaluation.result import Metrics
from patchline.export.neighbors import NearestNeighbors
from patchline.export.scores import SCORES
from patchline.runtime.errors import ConfigurationError, ParityError
from tests.benchmarks.smoke import TINY, smoke

QUESTION = ask(patches=40, rows=300, dimension=64, neighbors=9, channels=5)


def test_smoke_coreset(tmp_path: Path) -> None:
    results = smoke("coreset", tmp_path, "--rows", 3000, "--rounds", 1)
    assert results["picks"] == 30
    names = {"naive, matrix-vector", "naive, differences"}
    assert set(results["methods"]) == {"rounds"} | names
    assert set(results["speedup_over"]) == names
    assert all(ratio["median"] > 0 for ratio in results["speedup_over"].values())
    assert results["same_picks_as_naive_by_differences"] == "all 30"


def test_smoke_coreset_sharded(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", good=6, test_good=2, test_defective=4, size=(128, 128))
    words = ("--data", tmp_path / "data", "--cls", "gasket", *TINY, "--ratios", "0.1,0.3")
    options = ("--shards", "2", "--deltas", "1,0.01", "--scored", "0.1")
    results = smoke("coreset_sharded", tmp_path / "out", *words, *options)
    small, large = results["ratios"]
    assert (results["rows"], small["picks"], large["picks"]) == (384, 38, 115)
    loose, tight = small["sharded"]
    assert 76 <= loose["covers_rows"] <= 192
    assert 0 < loose["covering_radius"] <= 4 * small["exact"]["covering_radius"]
    assert 0 <= loose["image_auroc"] <= 1 and "image_auroc" not in large["exact"]
    # The second cover of a delta this small, and any of two thirds of the rows, finds no room.
    assert "given_up" in tight and "given_up" in large["sharded"][0]


def test_smoke_latency(tmp_path: Path) -> None:
    sizes = ("--bank-rows", 64, "--image-size", 64, "--rounds", 3)
    results = smoke("latency", tmp_path, *sizes)
    assert set(results["graphs"]) == {"model", "backbone"}
    assert results["graphs"]["model"]["runs"] == 3


def test_smoke_external_bank(tmp_path: Path) -> None:
    sizes = ("--bank-rows", 320, "--image-size", 64, "--rounds", 3)
    results = smoke("external_bank", tmp_path, *sizes)
    assert set(results["banks"]) == {"320"}
    bank = results["banks"]["320"]
    assert set(bank["graphs"]) == {"embedded", "external"}
    assert bank["external_over_embedded"]["median"] > 0
    assert 0 <= bank["largest_relative_error"] < 1e-3


def test_smoke_influence(tmp_path: Path) -> None:
    sizes = ("--rows", 300, "--patches", 20, "--dimension", 32, "--channels-measured", 3)
    results = smoke("influence", tmp_path, *sizes, "--rounds", 2)
    measured = results["forms"]
    assert {CLOSED, "autograd", FORWARD, CENTRAL, GIVEN + CLOSED} <= measured.keys()
    assert all(form["runs"] == 2 for form in measured.values())
    assert results["loops"] == "measured over 3 of 32 channels, scaled to all"
    whole = {name for name in measured if not name.startswith(GIVEN)}
    assert results["times_the_closed_form"].keys() == whole - {CLOSED}
    agreement = results["agreement"]
    assert 10 <= agreement["patches_compared"] <= 20
    assert agreement["max_difference_from_closed_form"].keys() == measured.keys() - {CLOSED}
    assert agreement["max_difference_from_closed_form"]["autograd"] <= 1e-5


def test_influence_refuses_more_channels_than_there_are() -> None:
    ask(4, 40, 8, 3, 8)
    with pytest.raises(ConfigurationError, match="is 9, expected at most --dimension, 8"):
        ask(4, 40, 8, 3, 9)


def test_smoke_startup(tmp_path: Path) -> None:
    results = smoke("startup", tmp_path, "--rounds", 1)
    assert results["run-camera --help"]["runs"] == 1


def test_the_naive_loops_that_are_measured_pick_what_the_coreset_picks() -> None:
    rows = torch.randn(500, 16, generator=torch.Generator().manual_seed(1))
    picks = greedy_coreset(rows, 50, seed=0).indices.tolist()
    assert naive_by_differences(rows, 50) == picks
    assert naive_by_product(rows, 50) == picks


def _distances(question: Question) -> Tensor:
    """Plainly, in float64: ``[N, M]``, by differences."""
    embeddings, bank = question.embeddings.double(), question.memory_bank.double()
    return (embeddings.unsqueeze(1) - bank).square().sum(2).sqrt()


def _reference(question: Question) -> Tensor:
    """The Jacobian by float64 autograd through the differences to all rows and a whole sort."""
    leaf = question.embeddings.double().clone().requires_grad_()
    distances = _distances(dataclasses.replace(question, embeddings=leaf))
    mean = distances.sort(dim=1).values[:, : question.search.k].mean(1)
    return torch.autograd.grad(mean.sum(), leaf)[0]


def _in_float64(question: Question) -> Question:
    bank = question.memory_bank.double()
    search = NearestNeighbors(bank, question.search.k)
    embeddings = question.embeddings.double()
    return dataclasses.replace(
        question, embeddings=embeddings, memory_bank=bank, search=search, step=1e-6
    )


@pytest.mark.parametrize(("rows", "dimension", "k"), [(300, 32, 9), (70, 6, 1), (9, 20, 9)])
def test_every_measured_form_is_float64_autograds(rows: int, dimension: int, k: int) -> None:
    question = _in_float64(ask(12, rows, dimension, k, 3))
    expected = _reference(question)
    for name, run in all_forms(question).items():
        columns = question.channels if "loop" in name else slice(None)
        # By cdist, float64 distances are only good to about 1e-14, and the loop divides by 1e-6.
        atol = 1e-6 if "loop" in name else 1e-9
        torch.testing.assert_close(run(), expected[:, columns], rtol=0, atol=atol, msg=name)


@pytest.fixture(scope="module")
def answers() -> dict[str, Tensor]:
    """What every form answers to ``QUESTION``, in float32; only to be read."""
    return {name: run() for name, run in all_forms(QUESTION).items()}


def _check(answers: dict[str, Tensor], name: str, found: Tensor, **changes: float) -> int:
    question = dataclasses.replace(QUESTION, **changes)
    agreement = check_agreement(answers[CLOSED], {name: lambda: found}, question)
    return int(agreement["patches_compared"])


def test_the_measured_forms_agree_in_float32(answers: dict[str, Tensor]) -> None:
    runs = {name: (lambda answer=answer: answer) for name, answer in answers.items()}
    agreement = check_agreement(_reference(QUESTION).float(), runs, QUESTION)
    assert agreement["patches_compared"] >= 20
    assert agreement["max_difference_from_closed_form"][CLOSED] <= 1e-6


@pytest.mark.parametrize("name", ["autograd", FORWARD, f"{FORWARD}, cdist", CENTRAL])
@pytest.mark.parametrize("wrong", [0.02, -0.02, torch.nan])
def test_a_form_with_another_answer_is_no_benchmark(
    answers: dict[str, Tensor], name: str, wrong: float
) -> None:
    found = answers[name].clone()
    _check(answers, name, found)
    found[_gaps(QUESTION).argmax(), 2] += wrong
    with pytest.raises(ParityError, match=f"{name}: differs from the closed form"):
        _check(answers, name, found)


def test_a_small_difference_is_too_much_for_autograd_but_not_for_a_loop(
    answers: dict[str, Tensor],
) -> None:
    slightly = answers[CLOSED] + 5e-5
    _check(answers, FORWARD, slightly[:, QUESTION.channels])
    with pytest.raises(ParityError, match="at most 1e-05"):
        _check(answers, "autograd", slightly)


def test_patches_whose_neighbours_the_step_may_change_are_not_compared(
    answers: dict[str, Tensor],
) -> None:
    gaps = _gaps(QUESTION)
    step = float(gaps.quantile(0.25)) / 2
    undecided = gaps <= 2 * step
    assert int(undecided.sum()) == 10
    found = answers[CLOSED] + undecided.unsqueeze(1)
    assert _check(answers, "autograd", found, step=step) == 30
    with pytest.raises(ConfigurationError, match="ask for fewer rows"):
        _check(answers, "autograd", found, step=float(gaps.median()))


def _gaps(question: Question) -> Tensor:
    ordered = _distances(question).sort(dim=1).values
    return ordered[:, question.search.k] - ordered[:, question.search.k - 1]


@pytest.mark.parametrize(
    "differences", [influence_forms.forward_differences, influence_forms.central_differences]
)
def test_loops_leave_the_patches_as_they_were(differences: Any) -> None:
    before = QUESTION.embeddings.clone()
    differences(influence_forms.through_cdist(QUESTION.memory_bank, 9), QUESTION)
    assert torch.equal(QUESTION.embeddings, before)


def test_what_autograd_keeps_is_counted() -> None:
    question = ask(5, 40, 8, 3, 8)
    found = question.search.gather(question.search(question.embeddings))
    # The differences [5, 3, 8] and their norms [5, 3], in float32.
    kept = influence_forms.saved_bytes(influence_forms.by_differences(found), question)
    assert kept == 4 * (5 * 3 * 8 + 5 * 3)


def test_times_of_a_loop_are_scaled_to_all_channels() -> None:
    question = ask(2, 40, 64, 3, 16)
    assert scale_to_all(CENTRAL, question) == 4
    assert scale_to_all(f"{FORWARD}, cdist", question) == 65 / 17
    assert scale_to_all("autograd", question) == 1
    assert scale_to_all(FORWARD, ask(2, 40, 64, 3, 64)) == 1


def test_ratios_are_taken_pair_by_pair_among_their_kind() -> None:
    times_ms = {"a": [1.0, 10.0, 2.0], "b": [3.0, 10.0, 4.0], GIVEN + "c": [1.0, 1.0, 1.0]}
    assert ratios(times_ms, "a") == {"b": {"median": 2.0, "q1": 1.0, "q3": 3.0}}
    assert ratios(times_ms, GIVEN + "c") == {}


def test_alternation_and_summary() -> None:
    order: list[str] = []
    runs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times_ms = report.alternate(runs, rounds=3, warmup=1)
    assert order == ["a", "b"] * 4
    assert [len(times) for times in times_ms.values()] == [3, 3]
    assert report.summarize([3.0, 1.0, 2.0])["median_ms"] == 2.0
    assert report.summarize([5.0])["q1_ms"] == 5.0


def test_ratios_of_pairs_by_hand() -> None:
    assert report.pair_ratios([2.0, 9.0], [1.0, 3.0])["median"] == 2.5
    found = report.pair_ratios([3.0, 10.0, 4.0], [1.0, 10.0, 2.0])
    assert found == {"median": 2.0, "q1": 1.0, "q3": 3.0}
    assert report.pair_ratios([3.0], [2.0]) == {"median": 1.5, "q1": 1.5, "q3": 1.5}
    with pytest.raises(ValueError, match="argument 2 is longer"):
        report.pair_ratios([3.0], [2.0, 1.0])


def test_smoke_scores(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", good=6, test_good=2, test_defective=4, size=(128, 128))
    words = ("--data", tmp_path / "data", *TINY, "--ratios", 0.1, "--neighbors", "1,3")
    results = smoke("scores", tmp_path / "out", *words)
    cases = results["cases"]
    assert len(results["means_over_classes"]) == len(cases)
    # Two scores know no k; the two others have two each; and all of that with and without average.
    assert len(cases) == 2 * (2 + 2 * 2)
    keys = ("class_name", "coreset_ratio", "neighborhood", "score", "neighbors")
    assert len({tuple(case[key] for key in keys) for case in cases}) == len(cases)
    assert {case["score"] for case in cases} == set(SCORES)
    for case in cases:
        assert all(0 <= case[field.name] <= 1 for field in dataclasses.fields(Metrics))


def test_means_over_classes_by_hand() -> None:
    rows = [
        {"class_name": name, "coreset_ratio": 0.1, "neighborhood": 3, "score": score,
         "neighbors": None, "image_auroc": value, "aupro": value / 2}
        for name, score, value in (("a", "x", 0.8), ("b", "x", 1.0), ("a", "y", 0.95))
    ]  # fmt: skip
    means = scores.means_over_classes(rows)
    assert [(row["score"], row["classes"]) for row in means] == [("y", 1), ("x", 2)]
    assert [row["image_auroc"] for row in means] == [0.95, 0.9]
    assert means[1]["aupro"] == 0.45
    assert "class_name" not in means[0]


def test_smoke_accuracy(tmp_path: Path) -> None:
    """And the benchmark of scores, which goes a short way round the engine, leads to the same."""
    write_demo_data(tmp_path / "data", good=6, test_good=3, test_defective=6, size=(128, 128))
    data = ("--data", tmp_path / "data", *TINY)
    words = ("--ratios", 0.1, "--neighbors", 9, "--neighborhoods", 3)
    exported = smoke("accuracy", tmp_path / "exported", *data, "--coreset-ratio", 0.1)
    gasket = exported["classes"]["gasket"]
    assert (gasket["good"], gasket["defective"]) == (3, 6)
    cases = smoke("scores", tmp_path / "short", *data, *words)["cases"]
    (case,) = (case for case in cases if case["score"] == "noise-response")
    for field in dataclasses.fields(Metrics):
        assert 0 <= gasket[field.name] <= 1
        assert case[field.name] == pytest.approx(gasket[field.name], abs=2e-4), field.name


def test_smoke_threshold(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", good=10, test_good=2, test_defective=4, size=(128, 128))
    words = ("--data", tmp_path / "data", *TINY, "--coreset-ratio", 0.1, "--splits", 2)
    results = smoke("threshold", tmp_path / "out", *words)
    assert set(results["classes"]["gasket"]) == {"cross-fit", "calibration-split"}
    for measured in results["classes"]["gasket"].values():
        published, repeated = measured["test_set_as_published"], measured["random_splits"]
        assert [row["asked_rate"] for row in published] == [0.05, 0.01, 0.001]
        assert {(row["good"], row["defective"]) for row in published} == {(2, 4)}
        assert {(row["good"], row["defective"]) for row in repeated} == {(8, 8)}  # 2 x 30 % of 12
        for row in published + repeated:
            assert row["realised_rate"] == pytest.approx(
                row["false_alarms"] / row["good"], abs=1e-5
            )
            assert row["recall"] == pytest.approx(row["found"] / row["defective"], abs=1e-5)
        thresholds = [row["threshold"] for row in repeated]
        assert thresholds == sorted(thresholds)


def test_the_simulation_counts_what_it_says() -> None:
    found = np.array([[0.0, 2.0, 0.1, 0.3], [1.5, 2.0, 0.2, 0.1], [0.0, 0.9, 0.3, 0.2]])
    outcome = threshold_simulation._outcome(found, 1.0)
    assert (outcome.coverage, outcome.below, outcome.above) == (0.3333, 0.3333, 0.3333)
    assert (outcome.mean_rate, outcome.mean_rate_plug_in) == (0.2, 0.2)


def test_the_simulation_knows_the_laws() -> None:
    law = threshold_simulation.LAWS["exponential"]
    outcome = threshold_simulation.simulate(law, 100, (0.05,), draws=20, seed=0)[0.05]
    assert outcome.coverage >= 0.75
    assert 0.02 < outcome.mean_rate < 0.1


def test_smoke_threshold_simulation(tmp_path: Path) -> None:
    results = smoke("threshold_simulation", tmp_path, "--images", 20, "--draws", 2)
    laws, rates = threshold_simulation.LAWS, threshold_simulation.RATES
    assert len(results["cases"]) == len(laws) * len(rates)
