"""Text that is written is text that protobuf reads, and says the same."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig

from patchline.export.serving.text_proto import Word, quoted, text_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def parsed(message: dict[str, Any]) -> ModelConfig:
    config: ModelConfig = text_format.Parse(text_of(message), ModelConfig())
    return config


@given(TEXTS)
def test_any_text_comes_back(text: str) -> None:
    assert parsed({"name": text}).name == text


@given(st.dictionaries(TEXTS, TEXTS, max_size=4))
def test_any_parameters_come_back(values: dict[str, str]) -> None:
    given_ = [{"key": key, "value": {"string_value": value}} for key, value in values.items()]
    found = parsed({"parameters": given_}).parameters
    assert {key: value.string_value for key, value in found.items()} == values


@given(st.lists(st.integers(-(2**31), 2**31), max_size=5), st.integers(0, 2**31 - 1))
def test_numbers_come_back(dims: list[int], batch: int) -> None:
    config = parsed({"max_batch_size": batch, "input": [{"name": "a", "dims": dims}]})
    assert config.max_batch_size == batch
    assert list(config.input[0].dims) == dims


def test_a_message_without_fields_is_there() -> None:
    config = parsed({"output": [{"name": "a", "dims": [1], "reshape": {"shape": []}}]})
    assert config.output[0].HasField("reshape")
    assert not parsed({"output": [{"name": "a"}]}).output[0].HasField("reshape")
    assert parsed({"version_policy": {"all": {}}}).version_policy.HasField("all")


def test_words_stand_without_quotes_and_truth_as_a_word() -> None:
    assert text_of({"kind": Word("KIND_GPU"), "name": "KIND_GPU", "eager": True}) == (
        'kind: KIND_GPU\nname: "KIND_GPU"\neager: true\n'
    )


def test_a_text_stays_on_its_line_and_within_ascii() -> None:
    assert quoted('a"b\\c\nd\u00e4\x00') == '"a\\"b\\\\c\\nd\\303\\244\\000"'


def test_half_a_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        quoted("\ud800")
