"""``--set``: values as TOML has them or bare, names with dots, and every form that is refused."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from patchline.export.overrides import joined, merged, parse_overrides
from patchline.runtime.errors import ConfigurationError


class TestValues:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("3", 3),
            ("-3", -3),
            ("0.002", 0.002),
            ("1e-4", 1e-4),
            ("true", True),
            ("false", False),
            ("[256, 320]", [256, 320]),
            ('["first", "last"]', ["first", "last"]),
            ('"3"', "3"),
            ("'C:\\x'", "C:\\x"),
            ('""', ""),
            ("resnet18", "resnet18"),
            ("reverse-distillation", "reverse-distillation"),
            ("w eights/a.pth", "w eights/a.pth"),
            ("C:\\weights.pth", "C:\\weights.pth"),
            ("a=b", "a=b"),
            ("a#b", "a#b"),
            ("0.OO2", "0.OO2"),
            ("True", "True"),
            ("256x320", "256x320"),
            ("1979-05-27", datetime.date(1979, 5, 27)),
        ],
    )
    def test_toml_or_else_a_text(self, text: str, value: Any) -> None:
        (found,) = parse_overrides([f"a={text}"]).values()
        assert found == value and type(found) is type(value)

    def test_a_second_line_is_no_second_field(self) -> None:
        assert parse_overrides(["a=1\nseed = 2"]) == {"a": "1\nseed = 2"}

    def test_spaces_around(self) -> None:
        assert parse_overrides([" train.lr = 0.002 "]) == {"train": {"lr": 0.002}}


class TestNames:
    def test_dots_are_tables(self) -> None:
        words = ["seed=3", "train.lr=0.1", "train.epochs=2", "a.b.c=1"]
        assert parse_overrides(words) == {
            "seed": 3,
            "train": {"lr": 0.1, "epochs": 2},
            "a": {"b": {"c": 1}},
        }

    def test_a_table_as_a_value(self) -> None:
        words = ["train={lr = 0.1}", "train.epochs=2"]
        assert parse_overrides(words) == {"train": {"lr": 0.1, "epochs": 2}}

    def test_none(self) -> None:
        assert parse_overrides([]) == {}

    def test_twice_the_same_is_once(self) -> None:
        assert parse_overrides(["seed=3", "seed=3"]) == {"seed": 3}


class TestRefused:
    @pytest.mark.parametrize("word", ["", "seed", "=3", ".a=1", "a.=1", "a..b=1", "a b=1", "a!=1"])
    def test_other_forms(self, word: str) -> None:
        with pytest.raises(ConfigurationError, match=r"--set is .*, expected NAME=VALUE, such as"):
            parse_overrides([word])

    @pytest.mark.parametrize("word", ["seed=", "seed=  ", "train.lr="])
    def test_no_value(self, word: str) -> None:
        name = word.partition("=")[0]
        with pytest.raises(ConfigurationError) as caught:
            parse_overrides([word])
        assert str(caught.value) == f'--set {name}= has no value; an empty text is {name}=""'

    @pytest.mark.parametrize("text", ['"a', "'a", "[1, 2", "[1, x]", "{lr = }", '"a" b', '"\\q"'])
    def test_what_begins_as_toml_and_is_none(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"^--set a=.* is no TOML value: "):
            parse_overrides([f"a={text}"])

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["seed=3", "seed=4"], "seed is given as 3 and as 4: leave one of them out"),
            (["seed=1", "seed=true"], "seed is given as 1 and as True"),
            (["train.lr=1", "train.lr=2"], "train.lr is given as 1 and as 2"),
            (["train={lr = 1}", "train.lr=2"], "train.lr is given as 1 and as 2"),
            (["train=3", "train.lr=2"], "train is given as 3 and train.lr as 2"),
            (["train.lr=2", "train=3"], "train.lr is given as 2 and train as 3"),
        ],
    )
    def test_two_values_for_one_field(self, words: list[str], says: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            parse_overrides(words)
        assert str(caught.value).startswith(says)

    def test_all_of_them_at_once(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            parse_overrides(["seed", "a=", "b=[", "seed=1", "seed=2"])
        for words in (
            "--set is 'seed'",
            "--set a= has no",
            "--set b=[ is no",
            "seed is given as 1 and as 2",
        ):
            assert words in str(caught.value)


class TestTogether:
    def test_above_wins_field_by_field(self) -> None:
        below = {"seed": 1, "train": {"lr": 0.1, "epochs": 5}}
        above = {"train": {"lr": 0.2}, "neighbors": 3}
        assert merged(below, above) == {
            "seed": 1,
            "train": {"lr": 0.2, "epochs": 5},
            "neighbors": 3,
        }
        assert below == {"seed": 1, "train": {"lr": 0.1, "epochs": 5}}

    @pytest.mark.parametrize(
        ("below", "above"), [({"train": 3}, {"train": {"lr": 1}}), ({"a": {"b": 1}}, {"a": 2})]
    )
    def test_what_is_no_table_is_replaced(self, below: Any, above: Any) -> None:
        assert merged(below, above) == above

    def test_an_option_and_an_override_that_agree(self) -> None:
        option = {"image_size": (256, 320), "train": {"noise": True}}
        override = {"image_size": [256, 320], "train": {"noise": True, "lr": 1}}
        assert joined(option, override)["train"] == {"noise": True, "lr": 1}

    def test_an_option_and_overrides_that_do_not(self) -> None:
        option = {"seed": 3, "image_size": (256, 320), "train": {"noise": True}}
        override = {"seed": 4, "image_size": [256, 256], "train": {"noise": False}}
        with pytest.raises(ConfigurationError) as caught:
            joined(option, override)
        assert str(caught.value).split("; ") == [
            "seed is given as 3 and as 4: leave one of them out",
            "image_size is given as [256, 320] and as [256, 256]: leave one of them out",
            "train.noise is given as True and as False: leave one of them out",
        ]
