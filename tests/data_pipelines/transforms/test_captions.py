"""Captions of names and keywords."""

import numpy as np
import pytest

from data_pipelines import transform_list
from data_pipelines.faults import Fault
from data_pipelines.transforms.captions import describe, each_language, gloss

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
    with pytest.raises(Fault, match="no caption in fr; there is en, de, zu"):
        gloss_cat(0, languages=["fr"])


# What there is in each of several languages.


def test_each_language_has_its_gloss_in_the_order_asked_for():
    rng = np.random.default_rng(0)
    found = each_language(CAT, rng=rng, train=False, languages=["zu", "fr", "en"], keep=0.0)
    assert found == ["ikati", "cat: animal, pet, whiskers"]
    alone = {"fr": ["Un chat."], "es": [], "ru": None}
    options = dict(languages=["es", "fr", "ru"], keep=0.0, nameless=1.0)
    for train_ in (False, True):
        assert each_language(alone, rng=rng, train=train_, **options) == ["Un chat."]


@pytest.mark.parametrize("seed", range(20))
def test_in_training_each_is_what_gloss_makes_of_that_language(seed):
    options = dict(keep=0.6, nameless=0.4)
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
    found = each_language(CAT, rng=ours, train=True, languages=["de", "en", "zu"], **options)
    expected = [
        gloss(CAT, rng=theirs, train=True, languages=[language], **options)
        for language in ("de", "en", "zu")
    ]
    assert found == expected


def test_voices_and_strings_stay_as_they_are():
    rng = np.random.default_rng(0)
    voices = {"fr": b"OggS un chat", "ru": b"OggS kot"}
    options = dict(rng=rng, train=True, languages=["ru", "en", "fr"])
    assert each_language(voices, **options) == [b"OggS kot", b"OggS un chat"]
    assert each_language("a cat", **options) == ["a cat"]
    assert each_language(b"OggS a cat", **options) == [b"OggS a cat"]


def test_none_of_the_languages_is_a_fault():
    with pytest.raises(Fault, match="no caption in fr, it; there is en, de, zu") as fault:
        each_language(CAT, rng=np.random.default_rng(0), train=True, languages=["fr", "it"])
    assert fault.value.kind == "missing_caption"


def test_as_views_they_fill_up_with_what_is_not_there():
    """As a config has it: one caption a language, each hashed; what is missing comes last."""
    sections = [
        dict(name="captions.each_language", languages=["en", "fr", "zu"]),
        dict(name="views.each", most=3, transforms=[dict(name="words.hashed", length=5)]),
    ]
    made = CAT
    for transform in transform_list.build(sections, "text"):
        made = transform(made, rng=np.random.default_rng(0), train=False)
    assert made["value"].shape == made["mask"].shape == (3, 5)
    assert made["present"].tolist() == [True, True, False]
    assert made["mask"].sum(axis=1).tolist() == [4, 1, 0]
    assert made["raw"] == "cat: animal, pet, whiskers"
