"""Coloured words: which tokens are a word's, by several tokenizers, and how strong it is."""

import functools
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from data_pipelines import tokenizer
from data_pipelines.transforms import ngrams, text, tokens, words
from mmcl.evals.saliency import Explained
from mmcl.report.saliency_words import coloured, letters, units

TEXT = "a red  fox, über alles"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    made = tokenizer.train(["a red fox over all the foxes", "reddish"], 300)
    made.save(str(folder / "tokenizer.json"))
    return folder


def made(name: str, folder: Path, length: int = 40) -> Any:
    return {
        "bpe": functools.partial(text.tokenize, folder=folder, vocab_size=400, length=length),
        "bytes": functools.partial(tokens.utf8, vocab_size=300, length=length, bos=2),
        "left": functools.partial(tokens.utf8, vocab_size=300, length=length, pad_side="left"),
        "words": functools.partial(words.hashed, length=length),
    }[name]


def ids(transform: Any, of_text: str) -> np.ndarray:
    found = transform(of_text, rng=np.random.default_rng(0), train=False)
    return np.asarray(found["value"][found["mask"]])


@pytest.mark.parametrize("name", ["bpe", "bytes", "left", "words"])
def test_every_token_is_its_words(folder: Path, name: str) -> None:
    transform = made(name, folder)
    found = units(transform, TEXT, ids(transform, TEXT))
    assert found.names == ["a", "red", "fox,", "über", "alles"] and found.between == " "
    assert (found.share_UxT.sum(axis=0) <= 1).all()
    marks = {"bpe": 2, "bytes": 2, "left": 1, "words": 0}[name]
    assert found.share_UxT.sum() == found.share_UxT.shape[1] - marks
    own = {word: ids(transform, word) for word in found.names}
    for word, share_T in zip(found.names, found.share_UxT):
        those = ids(transform, TEXT)[share_T > 0]
        inner = own[word][1:-1] if name in ("bpe", "bytes") else own[word]
        inner = inner[:-1] if name == "left" else inner
        assert those.tolist()[-len(inner) :] == inner.tolist()  # a byte may be the space before it


def test_what_was_cut_off_has_no_token(folder: Path) -> None:
    transform = made("bytes", folder, length=8)
    found = units(transform, "one two three", ids(transform, "one two three"))
    assert found.names == ["one", "two", "three"]
    assert found.share_UxT[0].sum() == 3 and not found.share_UxT[2].any()


def test_n_grams_are_shared_out_among_letters() -> None:
    transform = functools.partial(ngrams.hashed, sizes=[1, 2, 3], length=64)
    found = units(transform, "aüb", ids(transform, "aüb"))
    assert found.names == ["a", "ü", "b"] and found.between == ""
    text_bytes = b"\x02" + "aüb".encode() + b"\x03"
    grams = [(i, n) for n in (1, 2, 3) for i in range(len(text_bytes) - n + 1)]
    assert found.share_UxT.shape == (3, len(grams))
    owner = [None, 0, 1, 1, 2, None]
    for t, (i, n) in enumerate(grams):
        for u in range(3):
            share = sum(owner[k] == u for k in range(i, i + n)) / n
            assert found.share_UxT[u, t] == pytest.approx(share)
    cut = letters(functools.partial(ngrams.hashed, length=4), "abc", np.zeros(4))
    assert cut is not None and cut.share_UxT.shape == (3, 4)


def test_else_there_are_places() -> None:
    def backwards(value: str, *, rng: Any, train: bool) -> dict[str, Any]:
        found = np.frombuffer(value[::-1].encode(), np.uint8).astype(np.int32)
        return {"value": found, "mask": np.ones(len(found), bool)}

    found = units(backwards, "ab cd", ids(backwards, "ab cd"))
    assert found.names == ["0", "1", "2", "3", "4"]
    np.testing.assert_array_equal(found.share_UxT, np.eye(5))


def test_a_row_a_method_and_the_strongest_is_the_most_salient() -> None:
    transform = functools.partial(words.hashed, length=4)
    found = [transform(one, rng=np.random.default_rng(0), train=False) for one in ("x <b>", "y z")]
    value, mask = (np.stack([one[key] for one in found]) for key in ("value", "mask"))
    maps = {
        "integrated_gradients": np.array([[3.0, 1.0, 9, 9], [-1.0, 0.0, 9, 9]]),
        "gradient_x_input": np.array([[-2.0, 1.0, 9, 9], [4.0, 2.0, 9, 9]]),
    }
    told = coloured([Explained(value, mask, maps, {})], ["one", "t & o"], "A <label>",
                    ["x <b>", "y z"], transform)  # fmt: skip
    table = ElementTree.fromstring(told)
    assert table.attrib["aria-label"] == "A <label>"
    heads = [(one.text, one.attrib["rowspan"]) for one in table.iter("th")]
    assert heads == [("one", "2"), ("t & o", "2")]
    spans = [[span.text for span in row.iter("span")] for row in table.iter("tr")]
    assert spans == [["x", "<b>"]] * 2 + [["y", "z"]] * 2
    strengths = [int(one) for one in re.findall(r"var\(--c1\) (\d+)%", told)]
    assert strengths == [100, 0, 0, 100, 0, 0, 100, 0]
