"""Captions of names and keywords."""

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.transforms.captions import describe, gloss

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


# One language's name and keywords in one list.

CAT = {"en": ["cat", "animal", "pet", "whiskers"], "de": ["Katze", "Tier"], "zu": ["ikati"]}


def gloss_cat(seed: int, **options) -> str:
    return gloss(CAT, rng=np.random.default_rng(seed), train=True, **options)


@pytest.mark.parametrize("seed", range(5))
def test_a_gloss_in_evaluation_is_all_of_the_first_language_that_is_there(seed):
    rng = np.random.default_rng(seed)
    options = dict(rng=rng, train=False, keep=0.0, nameless=1.0)
    assert gloss(CAT, **options) == "cat: animal, pet, whiskers"
    assert gloss(CAT, **options, languages=["fr", "de", "en"]) == "Katze: Tier"
    assert gloss(CAT, **options, languages=["zu"]) == "ikati"
    assert gloss("a cat", **options) == "a cat"


def test_a_gloss_keeps_keywords_and_the_name_as_often_as_asked():
    captions = [gloss_cat(seed, keep=0.5, nameless=0.3) for seed in range(1000)]
    words = [set(caption.replace(": ", ", ").split(", ")) for caption in captions]
    for keyword in CAT["en"][1:]:
        assert abs(np.mean([keyword in of for of in words]) - 0.5) < 0.06
    without = np.mean(["cat" not in of for of in words])
    assert abs(without - 0.3 * (1 - 0.5**3)) < 0.05  # the name stays where no keyword is left
    full = {c for seed in range(100) for c in [gloss_cat(seed, keep=1.0)] if c.count(",") == 2}
    assert len(full) == 6  # in every order


def test_a_gloss_takes_other_languages_as_text_choose_does():
    captions = [gloss_cat(s, keep=0.0, languages=["en", "de", "zu"], share=0.5) for s in range(600)]
    for name, share in [("cat", 0.5), ("Katze", 0.25), ("ikati", 0.25)]:
        assert abs(np.mean([caption == name for caption in captions]) - share) < 0.07


def test_a_gloss_in_no_language_is_refused():
    with pytest.raises(InputError, match="no caption in fr; there is en, de, zu"):
        gloss_cat(0, languages=["fr"])
