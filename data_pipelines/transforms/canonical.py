"""Text as a family of models had it when it was trained: a function a family.

A model reads text well that was cleaned as in its training. What a function gives never changes; a
family that cleans differently is another function. Tokens and padding are in `tokens`:

| models | clean | tokens |
|---|---|---|
| CLIP, and most of open_clip | `clip` | `tokens.clip_bpe` |
| open_clip with a Hugging Face tokenizer | `cased` | `tokens.huggingface` |
| SigLIP, SigLIP 2 in open_clip | `siglip` | `tokens.sentencepiece`, 64, `pad` 1; of SigLIP 2: 0 |
| SigLIP in transformers | `siglip_transformers` | the same |
| SigLIP 2 in transformers | `siglip2_transformers` | the same |

A text of which nothing is left is a fault of its record, `empty_caption`.
"""

import html
import string

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clip(value: str, *, rng: np.random.Generator, train: bool) -> str:
    """CLIP (Radford et al. 2021): mended, HTML entities resolved, single spaces, lower case."""
    return _there(" ".join(_mended(value).split()).lower(), value)


def cased(value: str, *, rng: np.random.Generator, train: bool) -> str:
    """As `clip`, in the case that it has."""
    return _there(" ".join(_mended(value).split()), value)


def siglip(value: str, *, rng: np.random.Generator, train: bool) -> str:
    """SigLIP (Zhai et al. 2023) in open_clip: mended, HTML entities resolved, `_` is a space, no
    ASCII punctuation, lower case, single spaces."""
    bare = _mended(value).replace("_", " ").translate(_NO_PUNCTUATION).lower()
    return _there(" ".join(bare.split()), value)


def siglip_transformers(value: str, *, rng: np.random.Generator, train: bool) -> str:
    """SigLIP in transformers: lower case, no ASCII punctuation (`_` too), single spaces."""
    return _there(" ".join(value.lower().translate(_NO_PUNCTUATION).split()), value)


def siglip2_transformers(value: str, *, rng: np.random.Generator, train: bool) -> str:
    """SigLIP 2 (Tschannen et al. 2025) in transformers: lower case, letter by letter."""
    return _there("".join(letter.lower() for letter in value), value)


def _mended(value: str) -> str:
    """Text that was decoded wrongly as it was meant, and HTML entities, up to two deep, resolved.

    Raises:
        InputError: ftfy is not installed.
    """
    try:
        import ftfy
    except ModuleNotFoundError as error:
        raise InputError("mending text needs ftfy: run pip install 'mmcl[text]'") from error
    return html.unescape(html.unescape(ftfy.fix_text(value)))


def _there(made: str, value: str) -> str:
    if not made.strip():
        raise Fault("empty_caption", f"nothing is left of {value!r:.80}")
    return made
