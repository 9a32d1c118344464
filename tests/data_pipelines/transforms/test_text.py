"""Text transforms: which caption, which words, which tokens."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import tokenizer
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.transforms import text

DOG = {"en": ["dog face", "dog", "pet"], "de": ["Hund"], "fr": ["chien", "toutou"], "ja": []}
seeds = st.integers(0, 10**6)
quick = settings(max_examples=50, deadline=None)


def run(transform, value, seed=0, train=True, **options):
    return transform(value, rng=np.random.default_rng(seed), train=train, **options)


def drawn(**options):
    return Counter(run(text.choose, DOG, seed, **options) for seed in range(3000))


def test_evaluation_takes_the_first_caption_of_the_first_language():
    for seed in range(5):
        assert run(text.choose, DOG, seed, train=False) == "dog face"
        assert run(text.choose, DOG, seed, train=False, languages=("fr", "en")) == "chien"


@pytest.mark.parametrize("train", [False, True])
def test_a_string_is_its_own_caption(train):
    assert run(text.choose, "C1CC1", train=train, languages=("de",), share=0.0) == "C1CC1"


def test_training_draws_languages_by_share_and_captions_evenly():
    counts = drawn(languages=("en", "de", "fr"), share=0.6)
    shares = {"dog face": 0.2, "dog": 0.2, "pet": 0.2, "Hund": 0.2, "chien": 0.1, "toutou": 0.1}
    assert counts.keys() == shares.keys()
    for caption, share in shares.items():
        assert abs(counts[caption] / 3000 - share) < 0.03, caption


def test_shares_of_one_and_zero():
    assert drawn(languages=("fr", "de")).keys() == {"chien", "toutou"}
    assert drawn(languages=("fr", "de"), share=0.0).keys() == {"Hund"}
    assert drawn(languages=("de",), share=0.0).keys() == {"Hund"}


def test_languages_that_a_record_lacks_are_passed_over():
    for absent in ("ja", "xx"):
        languages = (absent, "fr", "de")
        assert run(text.choose, DOG, train=False, languages=languages) == "chien"
        assert drawn(languages=languages).keys() == {"chien", "toutou"}
        assert drawn(languages=languages, share=0.0).keys() == {"Hund"}
        with pytest.raises(InputError, match=f"no caption in {absent}; there is en, de, fr, ja"):
            run(text.choose, DOG, languages=(absent,))


PLAIN = ["a dog", "a dog that runs", "a pet dog"]


def test_a_plain_list_of_captions_has_no_languages():
    assert run(text.choose, PLAIN, train=False) == "a dog"
    counts = Counter(run(text.choose, PLAIN, seed, languages=("de",)) for seed in range(900))
    assert counts.keys() == set(PLAIN) and max(counts.values()) < 380
    with pytest.raises(Fault) as caught:
        run(text.choose, [])
    assert caught.value.kind == "missing_caption"


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("value", [PLAIN, {"de": ["Hund"], "en": PLAIN}])
def test_rules_that_leave_nothing_to_chance(value, train):
    for seed in range(5):
        assert run(text.choose, value, seed, train=train, rule="first") == PLAIN[0]
        assert run(text.choose, value, seed, train=train, rule="longest") == PLAIN[1]


def test_captions_are_drawn_by_their_weights():
    value = {"en": PLAIN, "quality": [1, 0, 3]}
    options = {"weights": "quality"}
    assert run(text.choose, value, train=False, **options) == PLAIN[0]
    counts = Counter(run(text.choose, value, seed, **options) for seed in range(1000))
    assert counts.keys() == {PLAIN[0], PLAIN[2]}
    assert abs(counts[PLAIN[2]] - 750) < 60
    assert run(text.choose, {"en": PLAIN}, **options) in PLAIN


@pytest.mark.parametrize("weights", [[1, 2], [0, 0, 0], [1, -1, 3], [1, np.nan, 1], [np.inf, 1, 1]])
def test_weights_that_are_no_distribution_are_a_fault(weights):
    with pytest.raises(Fault) as caught:
        run(text.choose, {"en": PLAIN, "w": weights}, weights="w")
    assert caught.value.kind == "bad_weights"


def test_templates():
    two = {"templates": ["a photo of a {}.", "{}, drawn {}"]}
    assert run(text.template, "cat") == "a photo of a cat."
    assert run(text.template, "a {} b", train=False, **two) == "a photo of a a {} b."
    found = Counter(run(text.template, "cat", seed, **two) for seed in range(400))
    assert found.keys() == {"a photo of a cat.", "cat, drawn cat"}
    assert min(found.values()) > 150
    for wrong in ([], ["a photo"], ["{}", "{0}"]):
        with pytest.raises(InputError, match="each needs a '{}'"):
            run(text.template, "cat", templates=wrong)


@quick
@given(
    words=st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=8),
    rate=st.floats(0, 1),
    seed=seeds,
)
def test_dropping_leaves_some_of_the_words_in_order(words, rate, seed):
    kept = run(text.drop_words, " ".join(words), seed, rate=rate).split()
    assert kept
    left = iter(words)
    assert all(word in left for word in kept)  # a subsequence
    assert run(text.drop_words, " ".join(words), seed, train=False, rate=rate) == " ".join(words)


@pytest.mark.parametrize("value", ["", " ", "dog", " a  strange space "])
def test_what_cannot_be_dropped_stays_as_it_is(value):
    assert run(text.drop_words, value, train=False, rate=1.0) == value
    if len(value.split()) < 2:
        assert run(text.drop_words, value, rate=1.0) == value


def test_words_are_dropped_at_the_rate():
    """Nine of ten words may go; the one that stays is any."""
    value = " ".join("abcdefghij")
    kept = [run(text.drop_words, value, seed, rate=0.3).split() for seed in range(500)]
    assert abs(np.mean([len(words) for words in kept]) - (1 + 9 * 0.7)) < 0.3
    last = Counter(run(text.drop_words, value, seed, rate=1.0) for seed in range(500))
    assert set(last) == set("abcdefghij")
    assert max(last.values()) < 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    texts = [caption for captions in DOG.values() for caption in captions] * 3
    tokenizer.train(texts, 270).save(str(folder / "tokenizer.json"))
    return folder


@quick
@given(value=st.text(max_size=12), length=st.integers(1, 24), train=st.booleans())
def test_tokens_are_padded_or_cut(folder, value, length, train):
    found = run(text.tokenize, value, train=train, folder=folder, vocab_size=270, length=length)
    ids = tokenizer.load(folder / "tokenizer.json").encode(value).ids
    n = min(len(ids), length)
    assert found.keys() == {"value", "mask", "raw"}
    assert found["value"].tolist() == ids[:n] + [tokenizer.PAD] * (length - n)
    assert found["mask"].tolist() == [True] * n + [False] * (length - n)
    assert found["value"].dtype == np.int32
    assert found["mask"].dtype == bool
    assert found["raw"] == value


def test_a_vocabulary_must_fit_the_tower(folder):
    assert run(text.tokenize, "dog", folder=folder, vocab_size=270, length=4)["mask"].any()
    with pytest.raises(InputError, match="270 pieces: raise vocab_size=269"):
        run(text.tokenize, "dog", folder=folder, vocab_size=269, length=4)


def test_a_vocabulary_may_have_another_name_and_must_be_there(folder, tmp_path):
    other = tokenizer.train(["hello"] * 3, 262)
    other.save(str(tmp_path / "other.json"))
    options = {"vocab_size": 270, "length": 8}
    found = run(text.tokenize, "hello", folder=tmp_path, vocabulary="other.json", **options)
    assert found["value"].tolist()[: found["mask"].sum()] == other.encode("hello").ids
    path = str(tmp_path / "other.json")
    same = run(text.tokenize, "hello", folder=None, vocabulary=path, **options)
    np.testing.assert_array_equal(same["value"], found["value"])
    for nowhere in (tmp_path, None):
        with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
            run(text.tokenize, "hello", folder=nowhere, **options)
