"""Pretrained word vectors against the package's own inference, which the transform never runs."""

from importlib import resources, util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.transforms import wordllama

if util.find_spec("wordllama") is None:
    pytest.skip("needs the extra 'quickstart'", allow_module_level=True)

words = st.text("abcdefghijklmnopqrstuvwxyzé犬🦘' -", min_size=1, max_size=9).filter(str.strip)
phrases = st.lists(st.lists(words, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=5)


def embed(value, train=True):
    return wordllama.embed(value, rng=np.random.default_rng(0), train=train)


@pytest.fixture(scope="module")
def package():
    from safetensors.numpy import load_file
    from wordllama.inference import WordLlamaInference
    from wordllama.tokenizers import tokenizer_from_file

    (file,) = resources.files("wordllama").joinpath("weights").iterdir()
    tokenizer = tokenizer_from_file("l2_supercat_tokenizer_config.json")
    return WordLlamaInference(load_file(file)["embedding.weight"], tokenizer)


@settings(max_examples=50)
@given(phrases, st.sampled_from([", ", "; ", ": "]))
def test_every_phrase_counts_the_same(package, phrases, mark):
    phrases = [" ".join(phrase.split()) for phrase in phrases]
    mean_D = package.embed(phrases).mean(axis=0)
    want_D = mean_D / np.sqrt(np.mean(mean_D**2))
    found = embed(mark.join(phrases))
    assert found.keys() == {"value", "mask", "raw"}
    np.testing.assert_allclose(found["value"], want_D, atol=1e-3)
    assert found["value"].dtype == np.float32
    assert found["value"].shape == (wordllama.WIDTH,)
    assert found["mask"]
    assert found["raw"] == mark.join(phrases)


@pytest.mark.parametrize("text", ["12:30", "http://a.b", "1,000"])
def test_a_mark_inside_a_word_parts_nothing(package, text):
    mean_D = package.embed([text])[0]
    want_D = mean_D / np.sqrt(np.mean(mean_D**2))
    np.testing.assert_allclose(embed(text)["value"], want_D, atol=1e-3)


def test_what_means_alike_lies_near():
    table = {w: embed(w)["value"] for w in ("puppy", "dog", "automobile", "car", "fruit", "apple")}
    for word, other in [("puppy", "dog"), ("automobile", "car"), ("fruit", "apple")]:
        likeness = {name: vector @ table[word] for name, vector in table.items() if name != word}
        assert max(likeness, key=likeness.get) == other


@pytest.mark.parametrize("text", ["", " ", ", "])
def test_without_words_there_is_nothing(text):
    found = embed(text)
    assert not found["mask"]
    assert not found["value"].any()
    assert found["value"].dtype == np.float32
    assert found["value"].shape == (wordllama.WIDTH,)
    assert found["raw"] == text


def test_training_changes_nothing():
    for text in ("", "dog face: animal, pet"):
        np.testing.assert_array_equal(embed(text)["value"], embed(text, train=False)["value"])


@pytest.fixture
def forgotten():
    """The package is looked for anew, now and after the test."""
    wordllama._package.cache_clear()
    yield
    wordllama._package.cache_clear()


def test_a_missing_package_is_named_with_its_install_command(forgotten, monkeypatch):
    monkeypatch.setattr(wordllama.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need wordllama: run pip install 'mmcl\[quickstart\]'$"):
        embed("dog")


@pytest.mark.parametrize("part", ["_VECTORS", "_VOCABULARY"])
def test_a_package_without_its_files_is_refused(forgotten, monkeypatch, part):
    monkeypatch.setattr(wordllama, part, "nothing.bin")
    with pytest.raises(InputError, match=r"nothing\.bin is missing: run pip install"):
        embed("dog")
