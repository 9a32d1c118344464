"""Tokens against the libraries that the vocabularies are from."""

import gzip
import importlib.util
import pickle
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from data_pipelines.errors import InputError
from data_pipelines.transforms import canonical, tokens

quick = settings(max_examples=100, deadline=None)
SCRIPTS = (
    "a photo of a dog's tail, they'll say; it'ſ 3.14 (№ 42) — naïve café ÅNGSTRÖM "
    "Привет мир Γειά σου κόσμε שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก 你好，世界 こんにちは "
    "안녕하세요 👩‍🎨🇫🇷 ①②Ⅷ x²y₃ ᾳ a\u0345b \u0345 … !!! ??? <|end|>"
)
words = st.sampled_from(SCRIPTS.split(" "))
letters = st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cn", "Cs"]), max_size=5)
# what Python's Unicode does not know may be a letter in one library and none in the other
strings = st.lists(words | letters, max_size=12).map(" ".join)
CORPUS = [SCRIPTS, "a dog", "a dog that runs", "the dog runs after the cat", "a cat"] * 20


def run(transform, value, **options):
    return transform(value, rng=np.random.default_rng(0), train=True, **options)


def checked(found, ids, length, pad, raw):
    n = len(ids)
    assert found.keys() == {"value", "mask", "raw"}
    assert found["value"].dtype == np.int32 and found["mask"].dtype == bool
    assert found["value"].tolist() == [*ids, *[pad] * (length - n)]
    assert found["mask"].tolist() == [True] * n + [False] * (length - n)
    assert found["raw"] == raw


@pytest.fixture(scope="module")
def clip_file():
    package = importlib.util.find_spec("open_clip")
    if package is None:
        pytest.skip("open_clip is not installed")
    return str(Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz")


@pytest.fixture(scope="module")
def open_clip():
    pytest.importorskip("torch")
    pytest.importorskip("ftfy")
    package = importlib.util.find_spec("open_clip")
    if package is None:
        pytest.skip("open_clip is not installed")
    file = Path(package.origin).parent / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


@pytest.mark.parametrize("length", [77, 8])
def test_clip_bpe_is_that_of_open_clip(open_clip, clip_file, length):
    @quick
    @given(value=strings)
    @example(SCRIPTS)
    @example("x" * 500)
    def same(value):
        want = open_clip([value], length)[0].tolist()
        clean = open_clip.clean_fn(value)
        if all(unicodedata.category(letter) != "Cn" for letter in clean):
            found = run(tokens.clip_bpe, clean, file=clip_file, length=length)
            assert found["value"].tolist() == want
            ids = 2 + len(open_clip.encode(value))
            assert found["mask"].tolist() == [i < ids for i in range(length)]

    same()


def test_clip_bpe_by_example(clip_file):
    """The tokens of "a photo of a cat" and their numbers, as CLIP's own notes have them."""
    found = run(tokens.clip_bpe, "a photo of a cat", file=clip_file, length=9)
    checked(found, [49406, 320, 1125, 539, 320, 2368, 49407], 9, 0, "a photo of a cat")


def test_a_mark_written_out_is_text(clip_file):
    found = run(tokens.clip_bpe, "a <end_of_text> b", file=clip_file)["value"].tolist()
    assert found.count(49407) == 1 and found.count(49406) == 1


def test_canonical_text_fits_before_it(clip_file):
    pytest.importorskip("ftfy")
    clean = run(canonical.clip, " A  CAT ")
    assert run(tokens.clip_bpe, clean, file=clip_file)["value"].tolist()[:4] == [
        *(49406, 320, 2368, 49407)
    ]


NOT_OF_CLIP = gzip.compress(b"first\none two three\n", mtime=0)  # the same bytes in every worker


@pytest.mark.parametrize("data", [b"no gzip", NOT_OF_CLIP])
def test_a_file_that_is_no_vocabulary_of_clip(tmp_path, data):
    (tmp_path / "bpe.gz").write_bytes(data)
    with pytest.raises(InputError, match="is not CLIP's vocabulary"):
        run(tokens.clip_bpe, "dog", file="bpe.gz", folder=tmp_path)


@pytest.fixture(scope="module")
def piece_file(tmp_path_factory):
    library = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "corpus.txt").write_text("\n".join(CORPUS))
    library.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "tiny"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=False,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return str(folder / "tiny.model")


@quick
@given(value=strings, length=st.integers(1, 30))
def test_sentencepiece_is_the_library_cut_before_the_end(piece_file, value, length):
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=piece_file)
    ids = [*model.encode(value)[: length - 1], 1]
    size = model.get_piece_size()
    found = run(tokens.sentencepiece, value, file=piece_file, vocab_size=size, length=length, pad=1)
    checked(found, ids, length, 1, value)
    bare = run(tokens.sentencepiece, value, file=piece_file, vocab_size=size, length=99, eos=False)
    checked(bare, model.encode(value)[:99], 99, 0, value)


def test_a_mark_that_a_model_has_not_is_refused(piece_file):
    with pytest.raises(InputError, match="no mark for bos: set bos=False"):
        run(tokens.sentencepiece, "dog", file=piece_file, vocab_size=999, bos=True)


def test_a_file_that_is_no_sentencepiece_model(tmp_path):
    pytest.importorskip("sentencepiece")
    (tmp_path / "a.model").write_bytes(b"what")
    with pytest.raises(InputError, match="is not a SentencePiece model"):
        run(tokens.sentencepiece, "dog", file=str(tmp_path / "a.model"), vocab_size=9)


def test_without_sentencepiece_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    (tmp_path / "b.model").write_bytes(b"what")
    with pytest.raises(InputError, match=r"pip install 'mmcl\[text\]'"):
        run(tokens.sentencepiece, "dog", file=str(tmp_path / "b.model"), vocab_size=9)


@pytest.fixture(scope="module")
def json_folder(tmp_path_factory):
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    made.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=marks)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.enable_padding(length=50)
    folder = tmp_path_factory.mktemp("json")
    made.save(str(folder / "tokenizer.json"))
    return folder


@quick
@given(value=strings, length=st.integers(2, 30))
def test_huggingface_is_the_library_with_its_marks(json_folder, value, length):
    library = Tokenizer.from_file(str(json_folder / "tokenizer.json"))
    library.no_padding()
    inside = library.encode(value, add_special_tokens=False).ids
    options = {"folder": json_folder, "vocab_size": 220, "length": length}
    found = run(tokens.huggingface, value, **options)
    checked(found, [1, *inside[: length - 2], 2], length, 0, value)
    bare = run(tokens.huggingface, value, marks=False, pad=7, **options)
    checked(bare, inside[:length], length, 7, value)


def test_a_mark_of_huggingface_written_out_is_text(json_folder):
    found = run(tokens.huggingface, "a [SEP] cat", folder=json_folder, vocab_size=220)
    assert found["value"].tolist().count(2) == 1


def test_a_file_that_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        run(tokens.huggingface, "dog", folder=tmp_path, vocab_size=9)


@quick
@given(value=strings, length=st.integers(1, 20), offset=st.integers(0, 5))
def test_utf8_is_bytes(value, length, offset):
    found = run(tokens.utf8, value, vocab_size=261, length=length, offset=offset)
    ids = [byte + offset for byte in value.encode()][: length - 1] + [1]
    checked(found, ids, length, 0, value)
    marked = run(tokens.utf8, value, vocab_size=261, length=200, offset=offset, bos=2, eos=None)
    ids = [2, *(byte + offset for byte in value.encode())][:200]
    checked(marked, ids, 200, 0, value)


def test_padding_may_be_on_the_left():
    found = run(tokens.utf8, "ab", vocab_size=259, length=5, pad=9, pad_side="left")
    assert found["value"].tolist() == [9, 9, 100, 101, 1]
    assert found["mask"].tolist() == [False, False, True, True, True]


def test_a_vocabulary_must_fit_the_tower(clip_file, piece_file, json_folder):
    size = Tokenizer.from_file(str(json_folder / "tokenizer.json")).get_vocab_size()
    for transform, options, pieces in (
        (tokens.clip_bpe, {"file": clip_file}, 49408),
        (tokens.huggingface, {"folder": json_folder}, size),
        (tokens.utf8, {"length": 4}, 259),
    ):
        assert run(transform, "dog", vocab_size=pieces, **options)["mask"].any()
        match = f"{pieces} pieces: raise vocab_size={pieces - 1}"
        with pytest.raises(InputError, match=match):
            run(transform, "dog", vocab_size=pieces - 1, **options)
    with pytest.raises(InputError, match="pieces: raise vocab_size=9"):
        run(tokens.sentencepiece, "dog", vocab_size=9, file=piece_file)


def test_a_vocabulary_that_grows_without_end(tmp_path):
    """Only as much of it is unpacked as a vocabulary of CLIP has."""
    with gzip.open(tmp_path / "bpe.gz", "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(bytes(2**21))
    tracemalloc.start()
    with pytest.raises(InputError, match="is not CLIP's vocabulary"):
        run(tokens.clip_bpe, "dog", file="bpe.gz", folder=tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**27  # of 200 MiB


@pytest.mark.parametrize("transform", [tokens.clip_bpe, tokens.sentencepiece, tokens.huggingface])
def test_a_missing_file_is_named(transform, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.x is missing"):
        run(transform, "dog", file="nowhere.x", folder=tmp_path, vocab_size=10**6)


def test_a_file_is_read_once(json_folder, monkeypatch):
    first = tokens._huggingface(str(json_folder / "tokenizer.json"), 12)
    assert tokens._huggingface(str(json_folder / "tokenizer.json"), 12) is first
    assert pickle.loads(pickle.dumps(tokens.huggingface)) is tokens.huggingface
