import random
import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_pipelines import tokenizer
from data_pipelines.errors import InputError

TEXTS = [
    *(
        "dog face",
        "Dog",
        "hot dog",
        "cat face",
        "cat with tears of joy",
        "T-Rex",
        "1st place medal",
    ),
    *("hundegesicht", "tête de chien", "cara de perro", "köpek yüzü", "морда собаки"),
    *("イヌの顔", "강아지 얼굴", "狗脸", "وجه كلب", "صورت سگ", "muso di cane", "rosto de cachorro"),
] * 3


@pytest.fixture(scope="module")
def trained():
    return tokenizer.train(TEXTS, 400)


def test_special_pieces(trained):
    assert [trained.token_to_id(piece) for piece in ("[PAD]", "[BOS]", "[EOS]", "[UNK]")] == [
        *range(4)
    ]
    first, *inner, last = trained.encode("dog face").ids
    assert (first, last) == (tokenizer.BOS, tokenizer.EOS)
    assert inner
    assert min(inner) > tokenizer.UNK


@pytest.mark.parametrize("vocab_size", [300, 400])
def test_vocab_size(vocab_size):
    assert tokenizer.train(TEXTS, vocab_size).get_vocab_size() == vocab_size


@given(text=st.text())
@example("[PAD] [EOS][UNK]")
def test_every_text_comes_back_folded(trained, text):
    ids = trained.encode(text).ids
    assert tokenizer.UNK not in ids
    folded = unicodedata.normalize("NFKC", text).lower()
    assert trained.decode(ids).lstrip(" ") == folded.lstrip(" ")


def test_case_and_width_are_folded(trained):
    assert trained.encode("ＤＯＧ Face").ids == trained.encode("dog face").ids


def test_merges_are_those_of_the_paper():
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    texts = [word for word, count in words.items() for _ in range(count)]
    vocab = tokenizer.train(texts, 4 + 256 + 8).get_vocab()
    learnt = [piece for piece, number in sorted(vocab.items(), key=lambda kv: kv[1])][4 + 256 :]

    # Sennrich et al. 2016, algorithm 1; of pairs equally frequent, that of the earliest pieces.
    split = {tuple("Ġ" + word): count for word, count in words.items()}
    number = {piece: n for piece, n in vocab.items() if n < 4 + 256}
    for merge in learnt:
        pairs: Counter[tuple[str, str]] = Counter()
        for pieces, count in split.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], number[pair[0]], number[pair[1]]))
        assert merge == "".join(best)
        number[merge] = len(number)
        pattern = rf"(?<!\S){re.escape(' '.join(best))}(?!\S)"
        split = {
            tuple(re.sub(pattern, merge, " ".join(pieces)).split()): count
            for pieces, count in split.items()
        }


def test_same_texts_same_file(trained):
    for seed in range(3):
        shuffled = random.Random(seed).sample(TEXTS, len(TEXTS))
        assert tokenizer.train(shuffled, 400).to_str() == trained.to_str()


def test_load(trained, tmp_path):
    trained.save(str(tmp_path / "tokenizer.json"))
    loaded = tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.to_str() == trained.to_str()
    assert loaded.encode("[EOS]").ids == trained.encode("[EOS]").ids
    assert tokenizer.load(str(tmp_path / "tokenizer.json")) is loaded


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="missing"):
        tokenizer.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"model": 3}')
    with pytest.raises(InputError, match="not a tokenizer"):
        tokenizer.load(tmp_path / "bad.json")
