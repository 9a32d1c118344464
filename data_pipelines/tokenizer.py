"""A subword vocabulary for captions in any language: byte-level BPE.

Sennrich, Haddow and Birch 2016 (BPE); bytes as the alphabet as in GPT-2, so that every string of
every script has pieces and none is unknown.
"""

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from data_pipelines.errors import InputError

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ["[PAD]", "[BOS]", "[EOS]", "[UNK]"]


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns at most `vocab_size` pieces (special ones and 256 bytes included) from texts.

    Case and compatibility forms are folded first (NFKC, lower case). `encode(text).ids` is
    [BOS] pieces [EOS]. The same texts in any order give the same vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", BOS), ("[EOS]", EOS)]
    )
    return _literal(tokenizer)


def load(path: str | os.PathLike) -> Tokenizer:
    """The tokenizer saved at `path`, read once a process. Shared: do not change it.

    Raises:
      InputError: there is no tokenizer at `path`.
    """
    return _load(os.path.abspath(path))


@functools.lru_cache
def _load(path: str) -> Tokenizer:
    if not Path(path).is_file():
        raise InputError(f"{path} is missing: name the tokenizer.json of a prepared data folder")
    try:
        return _literal(Tokenizer.from_file(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path} is not a tokenizer: {error}") from error


def _literal(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.encode_special_tokens = True  # "[EOS]" in a text is no end of it; not saved in files
    return tokenizer
