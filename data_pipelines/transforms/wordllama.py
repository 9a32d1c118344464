"""A text as one vector of pretrained meaning, so that a word nobody trained on is no stranger.

WordLlama (Miller 2024, https://github.com/dleemiller/WordLlama, MIT) gives each of the 32,000
subwords of Llama 2 a vector of 256 numbers, trained so that the mean over a text tells what it is
about. The vectors and the vocabulary are read out of the package `wordllama`: nothing is
downloaded, and none of its code runs.
"""

import functools
import re
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from data_pipelines.errors import InputError

WIDTH = 256
_VECTORS = "weights/l2_supercat_256.safetensors"
_VOCABULARY = "tokenizers/l2_supercat_tokenizer_config.json"
_INSTALL = "run pip install 'mmcl[quickstart]'"


def embed(value: str, *, rng: np.random.Generator, train: bool) -> dict[str, Any]:
    """The mean over the phrases of a text, each the mean of its subwords' vectors.

    Phrases end at a comma, colon or semicolon before a space, so in "kangaroo: animal, marsupial"
    a name that has four subwords counts no more than a keyword that has one. The mean is scaled to
    a root mean square of 1; a text without words is all zeros.

    Returns:
        `value` (256,) float32, `mask` () bool, True where there are words, `raw` the string.

    Raises:
        InputError: the package is missing, or has not its files.
    """
    table_VxD, vocabulary = _package()
    means = []
    for phrase in re.split(r"[,:;]\s", value):
        if ids := vocabulary.encode(phrase.strip(), add_special_tokens=False).ids:
            means.append(table_VxD[ids].mean(axis=0, dtype=np.float32))
    mean_D = np.mean(means, axis=0) if means else np.zeros(WIDTH, np.float32)
    scale = np.sqrt(np.mean(mean_D**2)) or np.float32(1)
    return {"value": mean_D / scale, "mask": np.bool_(bool(means)), "raw": value}


@functools.lru_cache(maxsize=1)
def _package() -> tuple[np.ndarray, Tokenizer]:
    """The table (V, D) float16 and its vocabulary, read once a process."""
    package = util.find_spec("wordllama")
    if package is None or package.origin is None:
        raise InputError(f"pretrained word vectors need wordllama: {_INSTALL}")
    from safetensors.numpy import load_file

    files = [Path(package.origin).parent / name for name in (_VECTORS, _VOCABULARY)]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is missing: {_INSTALL} --force-reinstall")
    table_VxD = load_file(files[0])["embedding.weight"]
    return table_VxD, Tokenizer.from_file(str(files[1]))
