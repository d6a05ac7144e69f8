"""The page as text: figures, remarks, nothing from outside, nothing executed."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest

from patchline.export.evaluation.evaluate import evaluate_class
from patchline.export.evaluation.report.figures import (
    Count,
    kind_rows,
    mean_row,
    model_facts,
    percent,
    score_text,
    summary_rows,
)
from patchline.export.evaluation.report.gallery import Section, build_gallery
from patchline.export.evaluation.report.page import (
    ClassReport,
    build_class_report,
    render_report,
    write_report,
)
from patchline.export.evaluation.result import Evaluation, Metrics
from patchline.runtime.errors import EngineError, ImageReadError, WriteError
from patchline.runtime.preprocess import Frame

from .evaluations import evaluation_of, scored, with_threshold
from .lamp import BrightnessEngine, noise, write, write_lamps

NOON = datetime(2024, 5, 17, 12, 0, tzinfo=timezone(timedelta(hours=2)))
VOID = {"meta", "link", "img", "use", "path", "br", "hr", "input"}
HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}'


class Reader(HTMLParser):
    """Checks that tags close in order, and collects what a page consists of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(*reports: ClassReport, failures: dict[str, str] | None = None) -> Reader:
    return Reader(render_report(reports, failures or {}, NOON))


@pytest.fixture
def lamps(tmp_path: Path) -> Evaluation:
    """Three good lamps, four bright ones with masks, and one that is missed, without a mask."""
    folder = write_lamps(tmp_path / "data")
    write(folder / "test" / "dim" / "000.png", noise(7, 0, 90))
    return evaluate_class(BrightnessEngine(), tmp_path / "data")


@pytest.fixture
def report(lamps: Evaluation) -> ClassReport:
    return build_class_report(lamps, BrightnessEngine())


def sections_of(report: ClassReport) -> dict[str, Section]:
    return {section.title: section for section in report.sections}


class TestFigures:
    def test_texts(self) -> None:
        assert [percent(v) for v in (0.5, 1.0, 0.98765, None)] == ["50.00", "100.00", "98.77", "–"]  # noqa: RUF001
        texts = [score_text(v) for v in (1.76, 0.0, 1234.0, -0.51654, 3e-7)]
        assert texts == ["1.760", "0.000", "1234", "-0.5165", "3.000e-07"]
        assert [str(c) for c in (Count(1, 3), Count(0, 0))] == ["1 of 3", "–"]  # noqa: RUF001
        assert [c.share for c in (Count(1, 4), Count(0, 0))] == [0.25, 0.0]

    def test_a_row_per_folder(self) -> None:
        scores = [(1.0, "good"), (0.25, "good"), (2.0, "chip"), (0.5, "chip"), (0.75, "chip")]
        good, chip = kind_rows(evaluation_of([scored(s, d) for s, d in scores]))
        assert (good.kind, good.is_defective, good.alarms, good.wrong) == (
            "good",
            False,
            Count(1, 2),
            1,
        )
        assert (chip.kind, chip.is_defective, chip.alarms, chip.wrong) == (
            "chip",
            True,
            Count(1, 3),
            2,
        )
        assert (chip.lowest, chip.median, chip.highest) == ("0.5000", "0.7500", "2.000")
        assert good.median == "0.6250"

    def test_the_mean_is_over_classes_and_pictures_count_together(self) -> None:
        one = evaluation_of([scored(2.0, "chip")], metrics=Metrics(image_auroc=0.5))
        two = evaluation_of(
            [scored(0.0, "chip"), scored(0.0)], metrics=Metrics(image_auroc=1.0, aupro=0.25)
        )
        mean = mean_row([one, two])
        assert (mean.metrics[0], mean.metrics[1], mean.metrics[-1]) == (
            "75.00",
            percent(None),
            "25.00",
        )
        assert (mean.found, mean.false_alarms) == (Count(1, 2), Count(0, 1))
        assert [row.metrics[0] for row in summary_rows([one, two])] == ["50.00", "100.00"]

    def test_facts(self) -> None:
        manifest = with_threshold(0.5)
        plain = dict(model_facts(manifest))
        assert plain["Threshold"] == "0.5000"
        assert plain["Training pictures"] == "2"
        assert plain["Expected false-alarm rate"] == "5 %"
        assert not any("interval" in name for name in plain)
        threshold = manifest.threshold.model_copy(
            update={"interval": (0.4, 0.6), "supported_rate": 0.0125}
        )
        training = manifest.training_set.model_copy(update={"skipped_unreadable": 3})
        changed = {"threshold": threshold, "training_set": training}
        facts = dict(model_facts(manifest.model_copy(update=changed)))
        assert facts["95 % interval of the threshold"] == "0.4000 to 0.6000"
        assert facts["Lowest rate its pictures support"] == "1.25 %"
        assert facts["Training pictures"] == "2, 3 unreadable left out"


class TestGallery:
    def test_sections_show_what_they_say(self, report: ClassReport) -> None:
        shown = {
            title: [
                f"{item.scored.picture.defect}/{item.scored.picture.path.name}"
                for item in section.items
            ]
            for title, section in sections_of(report).items()
        }
        assert shown["Missed defects"] == ["dim/000.png"]
        assert shown["False alarms"] == []
        assert len(shown["Clearest finds"]) == 4
        assert all(name.startswith("bright/") for name in shown["Clearest finds"])
        assert len(shown["Quietest good parts"]) == 3
        assert sections_of(report)["Close calls"].total == 7
        assert len(shown["Close calls"]) == 6

    def test_truth_is_shown_where_there_is_one(self, report: ClassReport) -> None:
        sections = sections_of(report)
        (missed,) = sections["Missed defects"].items
        assert (missed.truth, missed.why_no_truth) == (None, "no mask")
        assert all(item.truth for item in sections["Clearest finds"].items)
        good = sections["Quietest good parts"].items[0]
        assert (good.truth, good.why_no_truth) == (None, "good part")

    def test_a_mask_that_cannot_be_used_does_not_end_the_report(self, lamps: Evaluation) -> None:
        mask = lamps.pictures[-2].picture.mask or lamps.pictures[-3].picture.mask
        assert mask is not None
        mask.write_bytes(b"no picture")
        finds = sections_of(build_class_report(lamps, BrightnessEngine()))["Clearest finds"].items
        assert [item.why_no_truth for item in finds if item.truth is None] == [
            "mask not usable: see the remarks"
        ]

    def test_a_picture_in_several_sections_is_judged_once(self, lamps: Evaluation) -> None:
        class Counting(BrightnessEngine):
            calls = 0

            def infer(self, frames: Frame) -> object:  # type: ignore[override]
                self.calls += 1
                return super().infer(frames)

        engine = Counting()
        build_gallery(lamps, engine)  # type: ignore[arg-type]
        assert engine.calls == len(lamps.pictures)

    def test_a_lost_picture_is_named(self, lamps: Evaluation) -> None:
        lost = lamps.pictures[0].picture.path
        lost.unlink()
        with pytest.raises(ImageReadError, match=re.escape(str(lost))):
            build_class_report(lamps, BrightnessEngine())

    def test_nan_is_refused(self, lamps: Evaluation) -> None:
        with pytest.raises(EngineError, match="NaN"):
            build_class_report(lamps, BrightnessEngine(lambda m: m * float("nan")))

    @pytest.mark.parametrize(
        ("pictures", "title", "sentence"),
        [
            ([], "Missed defects", "There are no test pictures."),
            ([scored(0.0)], "Missed defects", "The test set has no defective pictures."),
            ([scored(0.0)], "False alarms", "No good part raised an alarm."),
            ([scored(9.0, "chip")], "False alarms", "The test set has no good pictures."),
            ([scored(9.0, "chip")], "Missed defects", "No defect was missed."),
        ],
    )
    def test_an_empty_section_says_why(
        self, pictures: list, title: str, sentence: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from patchline.export.evaluation.report import gallery

        monkeypatch.setattr(
            gallery, "_draw", lambda evaluation, chosen, engine: dict.fromkeys(chosen)
        )
        report = ClassReport(
            evaluation_of(pictures), build_gallery(evaluation_of(pictures), BrightnessEngine())
        )
        assert sections_of(report)[title].if_empty == sentence
        assert sections_of(report)[title].items == ()


class TestPage:
    def test_the_figures_are_on_it(self) -> None:
        pictures = [scored(0.5), scored(1.0), scored(2.0, "chip"), scored(0.1, "chip")]
        page = read(ClassReport(evaluation_of(pictures), ()))
        for figure in ("91.23", "92.35", "93.46", "94.57", "95.68", "86.79", "77.89", "68.91"):
            assert figure in page.text
        assert "68.91 1 of 2 1 of 2" in page.text
        assert "2024-05-17 12:00+02:00" in page.text
        assert "a fake engine" in page.text
        assert "false-positive rate of 0.3" in page.text
        assert "Mean" not in page.text

    def test_several_classes_have_a_mean(self) -> None:
        reports = [ClassReport(evaluation_of([scored(0.5)]), ()) for _ in range(2)]
        assert "Mean 91.23 92.35" in read(*reports).text

    def test_remarks_are_in_the_open(self) -> None:
        evaluation = evaluation_of(
            [], problems=("001.png has no mask.",), notes=("There are no masks.",)
        )
        page = read(ClassReport(evaluation, ()), failures={"cable": "it has no test folder."})
        assert "001.png has no mask." in page.text
        assert "There are no masks." in page.text
        assert re.search(r"Not evaluated: cable ?\. it has no test folder\.", page.text)
        assert "details" not in page.tags
        assert "What to know" not in read(ClassReport(evaluation_of([]), ())).text

    def test_nothing_computed_is_a_page_all_the_same(self) -> None:
        nothing = evaluation_of([], metrics=Metrics(), image_roc=None, pixel_roc=None, pro=None)
        page = read(ClassReport(nothing, ()))
        assert "There are no test pictures, so there are no scores." in page.text
        assert "the test set has 0 good and 0 defective." in page.text
        assert "it needs usable masks of the defects" in page.text
        assert "None" not in page.text
        assert "nan" not in page.text
        assert "svg" not in page.tags

    def test_no_class_at_all(self) -> None:
        assert "No class was evaluated" in read(failures={"cable": "gone."}).text

    def test_half_the_curves(self) -> None:
        page = read(ClassReport(evaluation_of([scored(0.5)], image_roc=None), ()))
        assert "No curve over images: it needs good and defective pictures" in page.text
        assert page.tags.count("svg") == 3

    def test_what_is_drawn_is_also_said(self, report: ClassReport) -> None:
        page = read(report)
        alternatives = [value for name, value in page.attributes if name == "alt"]
        assert len(alternatives) == page.tags.count("img")
        assert all(alternatives)
        # The missed lamp has no mask, so there is nothing to say about pixels, and that is said.
        assert page.tags.count("svg") == 2
        assert "Problem, lamp" in page.text
        labels = [value for name, value in page.attributes if name == "aria-label"]
        assert any(label.startswith("Histogram of image scores") for label in labels)
        assert "dim / 000.png missed" in page.text

    def test_nothing_is_fetched(self, report: ClassReport) -> None:
        text = render_report([report], {}, NOON)
        page = Reader(text)
        leads = [
            v for n, v in page.attributes if n in {"src", "href", "xlink:href", "srcset", "action"}
        ]
        assert leads
        assert [lead for lead in leads if not lead.startswith(("data:", "#"))] == []
        assert re.findall(r"@import|url\((?!#)", text) == []
        assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
        assert any("default-src 'none'" in value for _, value in page.attributes)

    def test_identifiers_are_unique_and_links_lead_to_them(self, report: ClassReport) -> None:
        page = read(report, report)
        identifiers = [value for name, value in page.attributes if name == "id"]
        assert len(identifiers) == len(set(identifiers))
        leads = {value[1:] for _, value in page.attributes if value.startswith("#")}
        assert {"class-1", "class-2"} <= leads <= set(identifiers) | {""}

    def test_hostile_names_are_only_text(self, tmp_path: Path) -> None:
        folder = write_lamps(tmp_path)
        name = HOSTILE.replace("/", "_")
        (folder / "test" / "bright").rename(folder / "test" / name)
        (folder / "ground_truth" / "bright").rename(folder / "ground_truth" / name)
        odd = folder / "test" / name / f"{name}.png"
        (folder / "test" / name / "000.png").rename(odd)
        engine = BrightnessEngine(**{"class": HOSTILE})
        evaluation = evaluate_class(engine, tmp_path, class_name="lamp")
        page = read(build_class_report(evaluation, engine), failures={HOSTILE: HOSTILE})
        assert "script" not in page.tags
        assert page.text.count(HOSTILE) >= 4
        assert f"{name}.png" in page.text
        assert "49" not in [word.strip() for word in page.words]
        assert not [name for name, _ in page.attributes if name.startswith("on")]

    def test_the_same_input_gives_the_same_page(
        self, lamps: Evaluation, report: ClassReport
    ) -> None:
        again = build_class_report(lamps, BrightnessEngine())
        assert render_report([report], {}, NOON) == render_report([again], {}, NOON)


class TestFile:
    def test_it_is_one_file(self, report: ClassReport, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "report"
        path = write_report([report], folder, now=NOON)
        assert path == folder / "index.html"
        assert list(folder.iterdir()) == [path]
        assert path.read_text(encoding="utf-8") == render_report([report], {}, NOON)

    def test_the_present_is_written_by_default(self, tmp_path: Path) -> None:
        path = write_report([], tmp_path / "report", failures={"a": "b"})
        year = datetime.now().astimezone().strftime("%Y-%m-")
        assert year in path.read_text(encoding="utf-8")

    def test_a_name_that_is_no_utf8_is_written(self, tmp_path: Path) -> None:
        evaluation = evaluation_of([scored(0.5, "chip\udcff")])
        text = write_report([ClassReport(evaluation, ())], tmp_path).read_text(encoding="utf-8")
        assert "chip\\udcff" in text

    def test_a_folder_in_the_way_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "index.html").mkdir()
        with pytest.raises(WriteError, match=re.escape(str(tmp_path))):
            write_report([], tmp_path)
