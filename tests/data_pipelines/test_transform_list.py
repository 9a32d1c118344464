"""Sections become functions, each option checked."""

import numpy as np
import pytest

from data_pipelines import tokenizer, transform_list
from data_pipelines.errors import InputError


def test_sections_become_functions_in_their_order():
    sections = [{"name": "text.drop_words", "rate": 0.0}, {"name": "text.template"}]
    value = "cat"
    for function in transform_list.build(sections, "where"):
        value = function(value, rng=np.random.default_rng(0), train=True)
    assert value == "a photo of a cat."


def test_who_asks_for_the_folder_gets_it(tmp_path):
    tokenizer.train(["dog"] * 3, 262).save(str(tmp_path / "tokenizer.json"))
    nested = [{"name": "text.tokenize", "vocab_size": 262, "length": 4}]
    sections = [{"name": "views.repeat", "count": 2, "transforms": nested}]
    for listed, shape in ((nested, (4,)), (sections, (2, 4))):
        (function,) = transform_list.build(listed, "where", tmp_path)
        found = function("dog", rng=np.random.default_rng(0), train=True)
        assert found["value"].shape == shape and found["mask"].any()


@pytest.mark.parametrize(
    "section, message",
    [
        ({}, "where.0: {} should be a section with a 'name'"),
        ({"name": "augment.flop"}, "where.0.name: there is no 'augment.flop'.*'augment.flip'"),
        ({"name": "augment.flip", "prob": 1}, "where.0.prob: unknown key.*'probability'"),
        ({"name": "augment.flip", "probability": "x"}, "where.0.probability: 'x' should be a num"),
        ({"name": "views.repeat", "transforms": []}, "where.0.count: missing"),
        ({"name": "views.repeat", "count": 1, "transforms": [1]}, "transforms.0: 1 should be"),
    ],
)
def test_a_wrong_section_is_refused_by_its_key(section, message):
    with pytest.raises(InputError, match=message):
        transform_list.build([section], "where")
