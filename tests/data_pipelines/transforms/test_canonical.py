"""Canonical text against open_clip and transformers themselves, and by examples."""

import importlib.util
import string
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.transforms import canonical

pytest.importorskip("ftfy")

EVERY = [
    *(canonical.clip, canonical.cased, canonical.siglip),
    *(canonical.siglip_transformers, canonical.siglip2_transformers),
]
pieces = st.sampled_from(
    ["&amp;", "&amp;lt;", "&#39;", "_", "sÃ©rie", "â€œso itâ€™s", "İ", "ΣΑΣ", "ß", "ﬁ", "\u2028"]
    + ["\x1c", "  ", "\t", "日本", "👩‍🎨", "'s", "…", "É", "\u00a0", "<b>", "-"]
)
strings = st.lists(st.one_of(pieces, st.text(max_size=6)), max_size=6).map("".join)
quick = settings(max_examples=150, deadline=None)


def run(transform, value):
    return transform(value, rng=np.random.default_rng(0), train=True)


def ours(transform, value):
    """An empty text where it is a fault."""
    try:
        return run(transform, value)
    except Fault as fault:
        assert fault.kind == "empty_caption"
        return ""


@pytest.fixture(scope="module")
def open_clip():
    """Its file of tokenizers, by its path: the package asks for much more."""
    pytest.importorskip("torch")
    package = importlib.util.find_spec("open_clip")
    if package is None:
        pytest.skip("open_clip is not installed")
    file = Path(package.origin).parent / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name, cleaner",
    [("clip", "_clean_lower"), ("cased", "_clean_whitespace"), ("siglip", "_clean_canonicalize")],
)
def test_text_is_cleaned_as_by_open_clip(open_clip, name, cleaner):
    @quick
    @given(value=strings)
    @example("  A_dog’s &amp;amp; sÃ©rie\n")
    def same(value):
        assert ours(getattr(canonical, name), value) == getattr(open_clip, cleaner)(value)

    same()


def test_text_is_cleaned_as_by_transformers():
    module = pytest.importorskip("transformers.models.siglip.tokenization_siglip")
    tokenizer = module.SiglipTokenizer.__new__(module.SiglipTokenizer)
    tokenizer.do_lower_case = True

    @quick
    @given(value=strings)
    @example("A_dog's  Tail")
    def same(value):
        assert ours(canonical.siglip_transformers, value) == tokenizer.canonicalize_text(value)

    same()


@quick
@given(value=st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cn", "Cs"])))
@example("ΣΑΣ İ")
def test_letters_become_small_as_in_the_tokenizer_of_siglip_2(value):
    want = normalizers.Lowercase().normalize_str(value)
    assert ours(canonical.siglip2_transformers, value) == (want if want.strip() else "")


@pytest.mark.parametrize(
    "transform, want",
    [
        (canonical.clip, 'a_dog\'s & "série": 2<3'),
        (canonical.cased, 'A_dog\'s & "Série": 2<3'),
        (canonical.siglip, "a dogs série 23"),
        (canonical.siglip_transformers, "adog’s ampamp “série” 2lt3"),
        (canonical.siglip2_transformers, " a_dog’s  &amp;amp; “série”: 2&lt;3\n"),
    ],
)
def test_what_becomes_of_one_caption(transform, want):
    assert run(transform, " A_dog’s  &amp;amp; “Série”: 2&lt;3\n") == want


@pytest.mark.parametrize("transform", EVERY)
@pytest.mark.parametrize("value", ["", " \n"])
def test_an_empty_caption_is_a_fault(transform, value):
    with pytest.raises(Fault, match="nothing is left of") as caught:
        run(transform, value)
    assert caught.value.kind == "empty_caption"


@pytest.mark.parametrize("transform", [canonical.siglip, canonical.siglip_transformers])
def test_a_caption_of_punctuation_is_empty(transform):
    with pytest.raises(Fault):
        run(transform, string.punctuation)


def test_without_ftfy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)
    with pytest.raises(InputError, match=r"pip install 'mmcl\[text\]'"):
        run(canonical.clip, "dog")
    assert unicodedata.name(run(canonical.siglip2_transformers, "A")) == "LATIN SMALL LETTER A"
