"""From text to the ids of an existing vocabulary, in a fixed length.

Each gives `value` (L,) int32, `mask` (L,) bool, True where a token is (marks of start and end
included), and `raw`, the text. A text that is too long is cut before its end mark. A file is read
once a process; a relative path is in the source's folder, if it has one. `text.tokenize` is for
vocabularies that mmcl has learnt itself.
"""

import functools
import gzip
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from data_pipelines.errors import InputError

Side = Literal["right", "left"]

_MOST = 2**24  # letters of a vocabulary that is unpacked; CLIP's has 3.2 million


def clip_bpe(
    value: str,
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None = None,
    file: str,
    vocab_size: int = 49408,
    length: int = 77,
    pad: int = 0,
    pad_side: Side = "right",
) -> dict[str, Any]:
    """CLIP's byte-pair encoding, between its marks of start and end.

    A mark written out in a text is text. `canonical.clip` belongs before it.

    Args:
        file: `bpe_simple_vocab_16e6.txt.gz`, as CLIP and open_clip ship it.
        vocab_size: of the tower.
        length: of the result, marks included.

    Raises:
        InputError: no such file, or more pieces than `vocab_size`.
    """
    path = _path(folder, file)
    vocabulary = _clip(path)
    size = vocabulary.get_vocab_size()
    _fits(path, size + 2, vocab_size)
    ids = vocabulary.encode(value).ids
    return _padded(value, ids, length, bos=size, eos=size + 1, pad=pad, side=pad_side)


def sentencepiece(
    value: str,
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None = None,
    file: str,
    vocab_size: int,
    length: int = 64,
    bos: bool = False,
    eos: bool = True,
    pad: int = 0,
    pad_side: Side = "right",
) -> dict[str, Any]:
    """The pieces of a SentencePiece model (Kudo and Richardson 2018).

    Args:
        file: the `.model` file.
        vocab_size: of the tower.
        bos, eos: whether the model's mark of start or end is set.

    Raises:
        InputError: no such file, more pieces than `vocab_size`, or no such mark.
    """
    path = _path(folder, file)
    model = _sentencepiece(path)
    _fits(path, model.get_piece_size(), vocab_size)
    marks = {"bos": model.bos_id() if bos else None, "eos": model.eos_id() if eos else None}
    for name, mark in marks.items():
        if mark is not None and mark < 0:
            raise InputError(f"{path} has no mark for {name}: set {name}=False.")
    return _padded(value, model.encode(value), length, **marks, pad=pad, side=pad_side)


def huggingface(
    value: str,
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None = None,
    file: str = "tokenizer.json",
    vocab_size: int,
    length: int = 77,
    marks: bool = True,
    pad: int = 0,
    pad_side: Side = "right",
) -> dict[str, Any]:
    """The pieces of a `tokenizer.json` of Hugging Face.

    Args:
        vocab_size: of the tower.
        marks: whether the marks are set that the file asks for.

    Raises:
        InputError: no such file, or more pieces than `vocab_size`.
    """
    path = _path(folder, file)
    vocabulary = _huggingface(path, length)
    _fits(path, vocabulary.get_vocab_size(), vocab_size)
    ids = vocabulary.encode(value, add_special_tokens=marks).ids
    return _padded(value, ids, length, pad=pad, side=pad_side)


def utf8(
    value: str,
    *,
    rng: np.random.Generator,
    train: bool,
    vocab_size: int,
    length: int,
    offset: int = 3,
    bos: int | None = None,
    eos: int | None = 1,
    pad: int = 0,
    pad_side: Side = "right",
) -> dict[str, Any]:
    """UTF-8 bytes, each plus `offset`: no vocabulary (ByT5, Xue et al. 2022, whose ids these are).

    Args:
        vocab_size: of the tower, 256 + offset or more.
        bos, eos: ids that mark start and end; None for no mark.

    Raises:
        InputError: there are more ids than `vocab_size`.
    """
    _fits("tokens.utf8", 256 + offset, vocab_size)
    ids = [byte + offset for byte in value.encode()]
    return _padded(value, ids, length, bos=bos, eos=eos, pad=pad, side=pad_side)


def _padded(
    text: str,
    ids: list[int],
    length: int,
    *,
    bos: int | None = None,
    eos: int | None = None,
    pad: int,
    side: Side,
) -> dict[str, Any]:
    start = [] if bos is None else [bos]
    end = [] if eos is None else [eos]
    ids = [*start, *ids[: max(0, length - len(start) - len(end))], *end][:length]
    value_L = np.full(length, pad, np.int32)
    mask_L = np.zeros(length, bool)
    there = slice(0, len(ids)) if side == "right" else slice(length - len(ids), length)
    value_L[there], mask_L[there] = ids, True
    return {"value": value_L, "mask": mask_L, "raw": text}


def _path(folder: Path | None, file: str) -> str:
    path = os.path.abspath((folder or Path()) / Path(file).expanduser())
    if not os.path.isfile(path):
        raise InputError(f"{path} is missing: name the file of a vocabulary.")
    return path


def _fits(path: str, pieces: int, vocab_size: int) -> None:
    if pieces > vocab_size:
        raise InputError(f"{path} has {pieces} pieces: raise vocab_size={vocab_size}.")


@functools.lru_cache
def _clip(path: str) -> Tokenizer:
    """Merges in order of rank, one a line after a first line of something else; ids count bytes,
    bytes at the end of a word, then merges. The file has more merges than CLIP has ids."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read(_MOST).split("\n")[1 : 49152 - 256 - 2 + 1]
        merges = [(left, right) for left, right in (line.split() for line in lines if line)]
        if not merges:
            raise ValueError("it has no merges")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is not CLIP's vocabulary: {error}") from error
    letters = _byte_letters()
    pieces = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    vocabulary = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=merges,
            end_of_word_suffix="</w>",
        )
    )
    # CLIP's pattern ignores case: so a long s ends a word as an s does, and U+0345, which folds to
    # a letter but is none, is in no word and left out.
    words = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"
    vocabulary.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return vocabulary


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in GPT-2's alphabet: printable Latin-1 for itself, then
    the others in order, from U+0100."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, shown), *(chr(256 + n) for n in range(256 - len(shown)))]


@functools.lru_cache
def _sentencepiece(path: str) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ModuleNotFoundError as error:
        raise InputError(
            "SentencePiece models need sentencepiece: run pip install 'mmcl[text]'"
        ) from error
    try:
        return SentencePieceProcessor(model_file=path)
    except (RuntimeError, OSError) as error:
        raise InputError(f"{path} is not a SentencePiece model: {error}") from error


@functools.lru_cache
def _huggingface(path: str, length: int) -> Tokenizer:
    try:
        made = Tokenizer.from_file(path)
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path} is not a tokenizer.json: {error}") from error
    made.no_padding()
    made.enable_truncation(length)
    made.encode_special_tokens = True  # "[SEP]" in a text is text
    return made
