"""Captions of names and keywords."""

import numpy as np
import pytest

from data_pipelines.transforms.captions import describe

DOG = {
    "en": ["dog face", "puppy"],
    "de": ["Hundegesicht"],
    "keywords": ["animal", "pet", "woof"],
    "categories": ["animals & nature", "animal mammal"],
}


def train(seed: int, **options) -> str:
    return describe(DOG, rng=np.random.default_rng(seed), train=True, **options)


def test_evaluation_has_the_first_name_and_all_keywords():
    rng = np.random.default_rng(0)
    assert describe(DOG, rng=rng, train=False, keep=0.0) == "dog face: animal, pet, woof"
    assert describe(DOG, rng=rng, train=False, languages=["de"]).startswith("Hundegesicht: ")


def test_without_keywords_the_name_stands_alone():
    value = {"en": ["splatter"], "keywords": []}
    for train_ in (False, True):
        rng = np.random.default_rng(0)
        assert describe(value, rng=rng, train=train_, nameless=1.0) == "splatter"


def test_a_plain_string_stays():
    rng = np.random.default_rng(0)
    assert describe("a sad animal", rng=rng, train=False) == "a sad animal"


@pytest.mark.parametrize("keep", [0.0, 0.4, 1.0])
def test_each_keyword_is_kept_as_often_as_asked(keep):
    captions = [train(seed, keep=keep) for seed in range(600)]
    for word in DOG["keywords"]:
        share = np.mean([word in caption for caption in captions])
        assert abs(share - keep) < 0.07
    assert {caption.split(":")[0] for caption in captions} == {"dog face", "puppy"}


def test_categories_are_for_training_alone():
    assert all("mammal" in train(seed, categories=1.0) for seed in range(20))
    assert not any("mammal" in train(seed) for seed in range(20))
    share = np.mean(["mammal" in train(seed, categories=0.3) for seed in range(600)])
    assert abs(share - 0.3) < 0.07
    rng = np.random.default_rng(0)
    assert "mammal" not in describe(DOG, rng=rng, train=False, categories=1.0)


def test_keywords_come_in_every_order():
    tails = {train(seed, keep=1.0).split(": ")[1] for seed in range(100)}
    assert len(tails) == 6


def test_the_name_is_left_out_as_often_as_asked_but_never_everything():
    captions = [train(seed, keep=0.5, nameless=0.5) for seed in range(800)]
    assert all(captions)
    nameless = [c for c in captions if "dog" not in c and "puppy" not in c]
    assert abs(len(nameless) / len(captions) - 0.5 * (1 - 0.5**3)) < 0.06
    assert all(":" not in caption for caption in nameless)
