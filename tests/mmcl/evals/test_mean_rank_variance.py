"""Ranks over languages against literal loops, random orders, and the emoji in two languages."""

import itertools
import zlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import mean_rank_variance, retrieval
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh

LANGUAGES = ["en", "de", "sw"]
BOTH = [{"en": ["a"], "de": ["b"]}, {"en": ["c"], "de": ["d"]}]


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(
    image: Any, text: Any, concepts: Any, languages: Any, words: Sequence[str] | None = None
) -> Embedded:
    n = len(concepts)
    return Embedded(
        split="val",
        z={"image": np.asarray(image, np.float32), "text": np.asarray(text, np.float32)},
        labels={
            "concept": np.asarray(concepts, np.int32),
            "language": np.asarray(languages, np.int32),
        },
        shown={
            "image": np.zeros((n, 2, 2, 3), np.uint8),
            "text": [f"text {i}" for i in range(n)] if words is None else list(words),
        },
        ids=[f"record {i}" for i in range(n)],
        label_names={"language": LANGUAGES},
    )


def evaluate(embedded: Embedded, **options: Any) -> dict[str, float]:
    return numbers(mean_rank_variance.evaluate(embedded, None, **options))


def literal(embedded: Embedded, from_: str, to: str) -> tuple[float, dict[str, list[bool]]]:
    """The variance of ranks, and hits at 1 by language."""
    concept, language = (embedded.labels[of].tolist() for of in ("concept", "language"))
    spoken = sorted(set(language))
    kept = [
        c
        for c in sorted(set(concept))
        if all((c, tongue) in zip(concept, language) for tongue in spoken)
    ]
    hits: dict[str, list[bool]] = {LANGUAGES[tongue]: [] for tongue in spoken}
    rank: dict[tuple[int, int], list[int]] = {}
    for tongue in spoken:
        rows = [i for i in range(len(concept)) if language[i] == tongue and concept[i] in kept]

        def of(modality: str, rows: list[int] = rows) -> list[int]:
            if modality == "image":
                return rows
            seen: dict[Any, int] = {}
            for i in rows:
                seen.setdefault((embedded.shown["text"][i], concept[i]), i)
            return list(seen.values())

        for q in of(from_):
            score = {g: float(embedded.z[from_][q] @ embedded.z[to][g]) for g in of(to)}
            best = max(score[g] for g in score if concept[g] == concept[q])
            gaps = [score[g] - best + TIE for g in score if concept[g] != concept[q]]
            hypothesis.assume(all(abs(gap) > 5e-7 for gap in gaps))  # rounding decides
            rank.setdefault((concept[q], tongue), []).append(1 + sum(gap > 0 for gap in gaps))
            hits[LANGUAGES[tongue]].append(not any(gap > 0 for gap in gaps))
    variances = []
    for c in kept:
        of_c = [sum(rank[c, tongue]) / len(rank[c, tongue]) for tongue in spoken]
        mean = sum(of_c) / len(of_c)
        variances.append(sum((r - mean) ** 2 for r in of_c) / len(of_c))
    return sum(variances) / len(variances), hits


@hypothesis.given(st.integers(8, 60), st.integers(2, 12), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=40, deadline=None)
def test_equals_literal_loops(n: int, concepts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    concept_N, language_N = rng.integers(concepts, size=n), rng.integers(3, size=n)
    concept_N[:3], language_N[:3] = 0, [0, 1, 2]
    words = [f"word {w}" for w in rng.integers(30, size=n)]
    text = unit(rng.normal(size=(30, 6)))[[int(word[5:]) for word in words]]
    embedded = split(unit(rng.normal(size=(n, 6))), text, concept_N, language_N, words)
    found = evaluate(embedded, at=(1,))
    for from_, to in (("image", "text"), ("text", "image")):
        variance, hits = literal(embedded, from_, to)
        name = f"{from_}_to_{to}"
        assert found[f"{name}_languages/mean_rank_variance"] == pytest.approx(variance)
        for language, hit in hits.items():
            assert found[f"{name}_{language}/recall@1"] == pytest.approx(np.mean(hit))


def test_known_values() -> None:
    east, north = np.eye(2)
    image = [east, north, east, north]
    embedded = split(image, [east, north, north, east], [0, 1, 0, 1], [0, 0, 1, 1])
    found = evaluate(embedded, at=(1,))
    for name in ("text_to_image", "image_to_text"):
        assert found[f"{name}_en/recall@1"] == 1 and found[f"{name}_de/recall@1"] == 0
        assert found[f"{name}_languages/mean_rank_variance"] == 0.25  # ranks 1 and 2
        assert found[f"{name}_languages/concepts"] == found[f"{name}_languages/languages"] == 2
        assert found[f"{name}_en/chance@1"] == 0.5


def test_equal_embeddings_have_no_variance() -> None:
    rng = np.random.default_rng(0)
    image, text = (np.tile(unit(rng.normal(size=(20, 6))), (3, 1)) for _ in range(2))
    embedded = split(image, text, np.tile(np.arange(20), 3), np.repeat(np.arange(3), 20))
    found = evaluate(embedded)
    assert found["text_to_image_languages/mean_rank_variance"] == 0
    assert found["text_to_image_languages/chance"] > 10


def test_what_a_language_lacks_is_in_no_gallery() -> None:
    rng = np.random.default_rng(1)
    concepts, languages = [0, 1, 2, 0, 1], [0, 0, 0, 1, 1]
    whole = split(unit(rng.normal(size=(5, 4))), unit(rng.normal(size=(5, 4))), concepts, languages)
    part = split(*(whole.z[m][[0, 1, 3, 4]] for m in ("image", "text")), [0, 1, 0, 1], [0, 0, 1, 1])
    assert evaluate(whole) == evaluate(part)


def test_what_lacks_a_modality_is_left_out() -> None:
    """As if its records were not there."""
    rng = np.random.default_rng(6)
    z = {m: unit(rng.normal(size=(8, 4))) for m in ("image", "text")}
    concepts, languages = np.array([0, 1, 2, 3, 0, 1, 2, 3]), np.repeat([0, 1], 4)
    those = [0, 1, 4, 5]
    part = split(*(z[m][those] for m in ("image", "text")), concepts[those], languages[those])
    z["image"][2], z["text"][7] = np.nan, np.nan
    embedded = split(z["image"], z["text"], concepts, languages)
    embedded.present.update(image=np.arange(8) != 2, text=np.arange(8) != 7)
    assert evaluate(embedded) == evaluate(part)


@pytest.mark.parametrize("right, gallery", [(1, 1), (1, 5), (2, 5), (3, 4), (4, 4)])
def test_random_ranks(right: int, gallery: int) -> None:
    best = [min(those) + 1 for those in itertools.combinations(range(gallery), right)]
    found = mean_rank_variance.random_rank(np.array([right]), gallery)
    assert np.ravel(found) == pytest.approx([np.mean(best), np.var(best)])


def test_random_embeddings_are_as_good_as_chance() -> None:
    rng = np.random.default_rng(2)
    concepts = np.concatenate([np.arange(12), np.repeat(np.arange(12), 2)])
    languages = np.repeat([0, 1], [12, 24])
    found = [
        evaluate(split(*(unit(rng.normal(size=(36, 8))) for _ in "ab"), concepts, languages))
        for _ in range(60)
    ]
    for name in ("text_to_image_languages", "image_to_text_languages"):
        mean = np.mean([one[f"{name}/mean_rank_variance"] for one in found])
        assert mean == pytest.approx(found[0][f"{name}/chance"], rel=0.12)


def test_one_language_is_searched_as_in_retrieval() -> None:
    rng = np.random.default_rng(3)
    image, text = (unit(rng.normal(size=(40, 6))) for _ in "ab")
    concepts, languages = np.tile(np.arange(20), 2), np.repeat([0, 1], 20)
    found = evaluate(split(image, text, concepts, languages))
    theirs = numbers(
        retrieval.evaluate(split(image[20:], text[20:], concepts[20:], languages[20:]), None)
    )
    for name, k in itertools.product(("text_to_image", "image_to_text"), (1, 5, 10)):
        for metric in (f"recall@{k}", f"chance@{k}"):
            assert found[f"{name}_de/{metric}"] == theirs[f"{name}/{metric}"]


def test_things_are_the_clusters() -> None:
    embedded = split(np.eye(2)[[0, 0, 1, 1]], np.eye(2)[[0, 0, 1, 1]], [5, 5, 9, 9], [0, 1, 0, 1])
    figures = mean_rank_variance.evaluate(embedded, None)
    variance = figures["text_to_image_languages/mean_rank_variance"]
    assert isinstance(variance, PerItem) and variance.cluster_N is not None
    assert variance.cluster_N.tolist() == [5, 9]


def test_devices_change_nothing() -> None:
    rng = np.random.default_rng(4)
    image, text = (unit(rng.normal(size=(150, 6))) for _ in "ab")
    embedded = split(image, text, np.tile(np.arange(50), 3), np.repeat(np.arange(3), 50))
    one = evaluate(embedded)
    with jax.set_mesh(data_mesh()):
        assert evaluate(embedded) == one


# Records that store their text in several languages.


def vector(said: dict[str, Any]) -> np.ndarray:
    """Of a text in one language: always the same."""
    assert len(said) == 1
    return unit(np.random.default_rng(zlib.crc32(repr(said).encode())).normal(size=(1, 6)))[0]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Figures of pictures whose records store these texts."""

    def stored(image: Any, concepts: Any, texts: Any, **options: Any) -> dict[str, float]:
        n = len(concepts)
        records = [{"id": f"record {i}", "text": texts[i]} for i in range(n)]
        monkeypatch.setattr(experiment, "open_source", lambda settings, split: records)
        embedded = split(image, np.zeros((n, 6)), concepts, np.zeros(n))
        embedded.present.update(options.pop("present", {}))
        encode = options.pop("encode", lambda text, values: np.stack([*map(vector, values)]))
        model: Any = SimpleNamespace(encode=encode, settings="those of the model")
        return numbers(mean_rank_variance.evaluate(embedded, model, **options))

    return stored


def literal_stored(
    image: np.ndarray, concepts: list[int], texts: list[dict[str, Any]], tongues: list[str]
) -> dict[str, float]:
    n = len(concepts)
    kept = [
        c
        for c in sorted(set(concepts))
        if all(
            any(concepts[i] == c and texts[i].get(tongue) for i in range(n)) for tongue in tongues
        )
    ]
    pictures = [(image[i], concepts[i]) for i in range(n) if concepts[i] in kept]
    found, rank = {}, {}
    for tongue in tongues:
        said: list[Any] = []
        for i in range(n):
            one = (texts[i].get(tongue), concepts[i])
            if concepts[i] in kept and one[0] and one not in said:
                said.append(one)
        captions = [(vector({tongue: words}), c) for words, c in said]
        ways = {"text_to_image": (captions, pictures), "image_to_text": (pictures, captions)}
        for way, (queries, gallery) in ways.items():
            hits = []
            for z_q, c_q in queries:
                best = max(float(z_q @ z_g) for z_g, c_g in gallery if c_g == c_q)
                gaps = [float(z_q @ z_g) - best + TIE for z_g, c_g in gallery if c_g != c_q]
                hypothesis.assume(all(abs(gap) > 5e-7 for gap in gaps))  # rounding decides
                ahead = sum(gap > 0 for gap in gaps)
                rank.setdefault((way, tongue, c_q), []).append(1 + ahead)
                hits.append(ahead == 0)
            found[f"{way}_{tongue}/recall@1"] = sum(hits) / len(hits)
    for way in ("text_to_image", "image_to_text"):
        variances = []
        for c in kept:
            of_c = [sum(rank[way, t, c]) / len(rank[way, t, c]) for t in tongues]
            mean = sum(of_c) / len(of_c)
            variances.append(sum((r - mean) ** 2 for r in of_c) / len(of_c))
        found[f"{way}_languages/mean_rank_variance"] = sum(variances) / len(variances)
        found[f"{way}_languages/concepts"] = len(kept)
        found[f"{way}_languages/languages"] = len(tongues)
    return found


@hypothesis.given(st.integers(4, 30), st.integers(2, 8), st.integers(0, 2**32 - 1))
@hypothesis.settings(
    max_examples=30, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_stored_texts_equal_literal_loops(stored: Any, n: int, concepts: int, seed: int) -> None:
    """Pictures of one thing may store other captions, or none in some language."""
    rng = np.random.default_rng(seed)
    concept_N = rng.integers(concepts, size=n).tolist()
    texts = [
        {
            t: [f"{t} {concept_N[i]} {rng.integers(2)}", "word"]
            for t in LANGUAGES
            if rng.random() < 0.7
        }
        for i in range(n)
    ]
    texts[0] = {t: [f"{t} of the first"] for t in LANGUAGES} | {"keywords": ["more"]}
    image = unit(rng.normal(size=(n, 6)))
    found = stored(image, concept_N, texts, languages=LANGUAGES, at=(1,))
    for name, value in literal_stored(image, concept_N, texts, LANGUAGES).items():
        assert found[name] == pytest.approx(value), name


def test_a_record_without_a_text_may_be_of_a_thing_that_has_one(stored: Any) -> None:
    image = unit(np.random.default_rng(5).normal(size=(4, 6)))
    texts = [{"en": ["a"], "de": ["b"]}, None, {"en": ["c"], "de": ["d"]}, {"en": ["e"]}]
    found = stored(image, [0, 0, 1, 2], texts, languages=["en", "de"])
    assert found["image_to_text_languages/concepts"] == 2
    assert found["text_to_image_de/chance@1"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_a_thing_without_a_picture_is_left_out(stored: Any) -> None:
    image = unit(np.random.default_rng(7).normal(size=(3, 6)))
    texts = [*BOTH, {"en": ["e"], "de": ["f"]}]
    here = dict(languages=["en", "de"])
    found = stored(image, [0, 1, 2], texts, present={"image": np.arange(3) < 2}, **here)
    assert found == stored(image[:2], [0, 1], BOTH, **here)


def refusing(text: str, values: list[Any]) -> np.ndarray:
    if "de" in values[0]:
        raise InputError("This cannot be used as 'text': no caption in en; there is de.")
    return np.stack([*map(vector, values)])


@pytest.mark.parametrize(
    "texts, options, message",
    [
        (BOTH, dict(languages=["en"]), r"languages=\['en'\]: ranks vary over two or more"),
        (BOTH, dict(languages=["en", "sw"]), "no 'concept' of 'val' has a 'text' in all of en, sw"),
        (["a", "b"], dict(languages=["en", "de"]), "'text' of a record of 'val' is a str, no map"),
        (BOTH, dict(languages=["en", "de"], modality="sound"), "no modality 'sound'"),
        (
            BOTH,
            dict(languages=["en", "de"], encode=refusing),
            "config.transforms.text should take 'de' alone, among its `languages`: This cannot",
        ),
    ],
)
def test_what_is_wrong_with_languages_is_said(
    stored: Any, texts: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        stored(np.eye(2, 6), [0, 1], texts, **options)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("shared_builds")
def test_the_emoji_in_several_languages(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    """As stored, and with a record made of each emoji and language: that is the same."""
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    embedded = model.embed("unseen_artist")
    source = experiment.open_source(model.settings, "unseen_artist")
    n, spoken = len(source), ("en", "de")
    words = [source[i]["text"][language][0] for language in spoken for i in range(n)]
    concepts = np.tile(embedded.labels["concept"], 2)
    image = np.tile(embedded.z["image"], (2, 1))
    languages = np.repeat(np.arange(2), n)
    many = split(image, model.encode("text", words), concepts, languages, words)
    found = numbers(mean_rank_variance.evaluate(embedded, model, languages=spoken))
    assert found == evaluate(many)
    assert found["text_to_image_languages/concepts"] == n
    assert found["text_to_image_languages/mean_rank_variance"] > 0
    with pytest.raises(InputError, match="text should take 'fr' alone, .* no caption in en, de"):
        mean_rank_variance.evaluate(embedded, model, languages=["en", "fr"])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(language="languages"), "have no label 'languages'. Did you mean 'language'?"),
        (dict(label="concepts"), "have no label 'concepts'. Did you mean 'concept'?"),
        (dict(modality="sound"), "no modality 'sound' in 'val'"),
        (dict(language="concept"), "no 'concept' of 'val' occurs with every 'concept'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    embedded = split(np.eye(4), np.eye(4), [0, 0, 1, 1], [0, 1, 0, 1])
    with pytest.raises(InputError) as error:
        evaluate(embedded, **options)
    assert message in str(error.value)


def test_one_language_is_too_few() -> None:
    with pytest.raises(InputError, match="of 1 'language': ranks vary over two or more"):
        evaluate(split(np.eye(2), np.eye(2), [0, 1], [1, 1]))


def test_a_diverged_model_gets_no_numbers() -> None:
    bad = np.full((2, 2), np.nan)
    with pytest.raises(InputError, match="1 of 1 'text' .* diverged"):
        evaluate(split(np.eye(2), bad, [0, 0], [0, 1]))
