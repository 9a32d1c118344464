import dataclasses
import itertools
import json
import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import retrieval
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh


def evaluate(embedded, **options):
    return numbers(retrieval.evaluate(embedded, None, **options))


def random_unit_rows(rng, n, d=24):
    z_NxD = rng.normal(size=(n, d)).astype(np.float32)
    return z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)


def few_directions(rng, n):
    """Rows drawn from 12 vectors whose inner products are 0, 1/2 or 1: ties everywhere."""
    halves = np.array(list(itertools.product((0.5, -0.5), repeat=4)))[:8]
    return np.concatenate([np.eye(4), halves]).astype(np.float32)[rng.integers(12, size=n)]


def split(z, labels, captions, **more):
    """A split of pictures and captions (and other modalities, each record an item)."""
    n = len(labels)
    shown = {name: np.zeros((n, 2, 2, 3), np.uint8) for name in z} | {"text": captions}
    return Embedded(
        split="held_out",
        z=z,
        labels={"concept": np.asarray(labels, np.int32)},
        shown=shown,
        ids=[f"record {i}" for i in range(n)],
        label_names={},
        **more,
    )


@st.composite
def splits(draw):
    n = draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = draw(st.sampled_from([random_unit_rows, few_directions]))
    labels = rng.integers(draw(st.integers(1, n)), size=n)
    captions = [f"caption {c}" for c in rng.integers(draw(st.integers(1, n)), size=n)]
    z = {"image": rows(rng, n), "text": rows(rng, n)}
    if draw(st.booleans()):  # copies, also of wrong answers
        z = {name: rows[rng.integers(n, size=n)] for name, rows in z.items()}
    return split(z, labels, captions)


def literal_items(embedded, modality):
    found, seen = [], []
    for i, value in enumerate(embedded.shown[modality]):
        if not embedded.has(modality)[i]:
            continue
        if modality == "text":
            if (value, embedded.labels["concept"][i]) in seen:
                continue
            seen.append((value, embedded.labels["concept"][i]))
        found.append(i)
    return found


def literal_score(a_D, b_D):
    return sum(float(a) * float(b) for a, b in zip(a_D, b_D))


def literal_retrieval(embedded, from_, to, at, tie, queries=None):
    """Recall from the full score matrix, one Python loop after another."""
    label = embedded.labels["concept"]
    queries = literal_items(embedded, from_) if queries is None else queries
    gallery = literal_items(embedded, to)
    ranks, chances = [], {k: [] for k in at}
    for q in queries:
        scored = [(literal_score(embedded.z[from_][q], embedded.z[to][g]), g) for g in gallery]
        best = max(score for score, g in scored if label[g] == label[q])
        ranks.append(1 + sum(score > best - tie and label[g] != label[q] for score, g in scored))
        right = sum(label[g] == label[q] for g in gallery)
        for k in at:
            k_ = min(k, len(gallery))
            missed = math.comb(len(gallery) - right, k_) / math.comb(len(gallery), k_)
            chances[k].append(1 - missed)
    metrics = {f"recall@{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in at}
    metrics |= {f"chance@{k}": sum(chances[k]) / len(ranks) for k in at}
    ordered = sorted(ranks)
    metrics["median_rank"] = (ordered[(len(ranks) - 1) // 2] + ordered[len(ranks) // 2]) / 2
    return metrics | {"queries": len(queries), "gallery": len(gallery)}


@hypothesis.given(splits())
@hypothesis.settings(max_examples=100, deadline=None)
def test_equals_literal_loops(embedded):
    """Where rounding does not tell whether two scores are a tie, either may be said."""
    at = (1, 2, 5, 30)
    metrics = evaluate(embedded, at=at)
    ways = [("image", "text"), ("text", "image")]
    strict, lenient = (
        {
            f"{a}_to_{b}/{key}": value
            for a, b in ways
            for key, value in literal_retrieval(embedded, a, b, at, TIE * share).items()
        }
        for share in (1.25, 0.75)
    )
    assert metrics.keys() == strict.keys()
    for key, value in metrics.items():
        low, high = sorted((strict[key], lenient[key]))
        assert low - 1e-12 <= value <= high + 1e-12, key


@hypothesis.given(splits(), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=40, deadline=None)
def test_what_records_lack_is_no_item(embedded, seed):
    """Nor does what then has no right answer ask for one."""
    rng = np.random.default_rng(seed)
    for modality, rows in embedded.z.items():
        embedded.present[modality] = has_N = rng.random(len(rows)) < 0.7
        has_N[0] = True
        rows[~has_N] = np.nan
    at, label = (1, 5), embedded.labels["concept"]
    found = evaluate(embedded, at=at)
    for a, b in (("image", "text"), ("text", "image")):
        answers = {label[i] for i in literal_items(embedded, b)}
        queries = [q for q in literal_items(embedded, a) if label[q] in answers]
        strict, lenient = (
            literal_retrieval(embedded, a, b, at, TIE * share, queries) for share in (1.25, 0.75)
        )
        for key in strict:
            low, high = sorted((strict[key], lenient[key]))
            assert low - 1e-12 <= found[f"{a}_to_{b}/{key}"] <= high + 1e-12, key


def test_modalities_that_no_record_has_together():
    z = {name: np.eye(4, dtype=np.float32) for name in ("image", "text")}
    embedded = split(z, range(4), list("abcd"))
    embedded.present["image"] = np.arange(4) < 2
    embedded.present["text"] = np.arange(4) >= 2
    assert evaluate(embedded) == {}
    with pytest.raises(InputError, match="no 'image' of 'held_out' has a right answer in 'text'"):
        evaluate(embedded, pairs=[("image", "text")])
    embedded.present["text"] = np.zeros(4, bool)
    with pytest.raises(InputError, match="no record of 'held_out' has a 'text'"):
        evaluate(embedded)


@hypothesis.given(splits(), st.integers(1, 4), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=40, deadline=None)
def test_by_a_label_equals_literal_loops_over_its_queries(embedded, artists, seed):
    """The artist of a caption that several records show is that of the first of them."""
    artist_N = np.random.default_rng(seed).integers(artists, size=len(embedded.ids))
    names = ["Open Moji", "a/b", "x", "Ä ö/ü"]
    embedded = dataclasses.replace(
        embedded,
        labels={**embedded.labels, "artist": artist_N.astype(np.int32)},
        label_names={"artist": names},
    )
    at = (1, 2, 5)
    found, plain = evaluate(embedded, by="artist", at=at), evaluate(embedded, at=at)
    assert {name: found[name] for name in plain} == plain
    parts = {name: value for name, value in found.items() if name not in plain}
    expected = set()
    for a, b in (("image", "text"), ("text", "image")):
        queries = literal_items(embedded, a)
        for artist in set(artist_N[queries].tolist()):
            name = f"{a}_to_{b}/artist/" + ["Open_Moji", "a_b", "x", "Ä_ö_ü"][artist]
            own = [q for q in queries if artist_N[q] == artist]
            strict, lenient = (
                literal_retrieval(embedded, a, b, at, TIE * share, own) for share in (1.25, 0.75)
            )
            for key in strict:
                low, high = sorted((strict[key], lenient[key]))
                assert low - 1e-12 <= parts[f"{name}/{key}"] <= high + 1e-12, key
                expected.add(f"{name}/{key}")
    assert parts.keys() == expected


def test_values_without_names_are_numbers_and_equal_names_one_value():
    z = {name: np.eye(4, dtype=np.float32) for name in ("image", "text")}
    embedded = split(z, range(4), list("abcd"))
    embedded.labels["artist"] = np.array([7, 7, 2, 0])
    found = evaluate(embedded, by="artist", pairs=[("image", "text")])
    assert [found[f"image_to_text/artist/{value}/queries"] for value in (0, 2, 7)] == [1, 1, 2]
    embedded.label_names["artist"] = ["a b", "", "a/b", "", "", "", "", "c"]
    found = evaluate(embedded, by="artist", pairs=[("image", "text")])
    assert found["image_to_text/artist/a_b/queries"] == 2
    assert found["image_to_text/artist/a_b/gallery"] == 4
    assert found["image_to_text/artist/c/recall@1"] == 1


def test_devices_change_nothing():
    rng = np.random.default_rng(3)
    z = {name: random_unit_rows(rng, 157) for name in ("image", "text")}
    embedded = split(z, rng.integers(60, size=157), [f"{i % 100}" for i in range(157)])
    one = evaluate(embedded)
    for devices in (4, 8):
        with jax.set_mesh(data_mesh(jax.devices()[:devices])):
            assert evaluate(embedded) == one


def test_items_of_one_label_are_drawn_together():
    z = {name: random_unit_rows(np.random.default_rng(8), 6) for name in ("image", "text")}
    figures = retrieval.evaluate(split(z, [0, 0, 1, 1, 2, 2], list("abcdef")), None)
    recall = figures["text_to_image/recall@1"]
    assert isinstance(recall, PerItem) and recall.cluster_N.tolist() == [0, 0, 1, 1, 2, 2]


def test_chance_is_the_mean_over_every_order_of_the_gallery():
    label_Q, label_G = [0, 1, 2], [0, 0, 0, 1, 1, 2]
    right_Q = np.array([3, 2, 1])
    orders = list(itertools.permutations(label_G))
    for k in range(1, 9):
        hits = [label in order[:k] for order in orders for label in label_Q]
        assert retrieval.chance(right_Q, 6, k) == pytest.approx(np.mean(hits), abs=1e-12)


def test_random_embeddings_score_chance():
    rng = np.random.default_rng(0)
    labels = rng.integers(150, size=1000)
    z = {name: random_unit_rows(rng, 1000) for name in ("image", "text")}
    metrics = evaluate(split(z, labels, [f"{i}" for i in range(1000)]))
    for k in (1, 5, 10):
        chance = metrics[f"image_to_text/chance@{k}"]
        assert metrics[f"image_to_text/recall@{k}"] == pytest.approx(
            chance, abs=5 * math.sqrt(chance / 1000)
        )


@pytest.mark.parametrize("n", [37, 611])
def test_a_collapsed_model_comes_last(n):
    row_D = random_unit_rows(np.random.default_rng(1), 1, d=147)
    z = {name: np.repeat(row_D, n, axis=0) for name in ("image", "text")}
    labels = np.arange(n) // 2  # two right answers each
    metrics = evaluate(split(z, labels, [f"{i}" for i in range(n)]))
    assert metrics["image_to_text/recall@1"] == metrics["text_to_image/recall@10"] == 0
    assert metrics["image_to_text/median_rank"] == n - 1


def test_a_perfect_model_is_perfect():
    z_NxD = random_unit_rows(np.random.default_rng(2), 300)
    z_NxD = z_NxD[np.arange(300) // 3]  # three pictures share each caption
    captions = [f"caption {i // 3}" for i in range(300)]
    perfect = split({"image": z_NxD, "text": z_NxD}, np.arange(300) // 3, captions)
    metrics = evaluate(perfect)
    assert metrics["text_to_image/recall@1"] == metrics["image_to_text/recall@1"] == 1
    assert metrics["text_to_image/queries"] == metrics["image_to_text/gallery"] == 100
    assert metrics["text_to_image/gallery"] == metrics["image_to_text/queries"] == 300


def test_names_of_the_metrics():
    z = {name: random_unit_rows(np.random.default_rng(6), 3) for name in ("image", "text", "audio")}
    metrics = evaluate(split(z, range(3), list("abc")), at=(1, 5))
    ways = ["image_to_text", "text_to_image", "image_to_audio", "audio_to_image"]
    ways += ["text_to_audio", "audio_to_text"]
    keys = ["recall@1", "chance@1", "recall@5", "chance@5", "median_rank", "queries", "gallery"]
    assert metrics.keys() == {f"{way}/{key}" for way in ways for key in keys}
    assert json.loads(json.dumps(metrics)) == metrics
    chosen = evaluate(split(z, range(3), list("abc")), pairs=[("audio", "text")])
    assert {key.split("/")[0] for key in chosen} == {"audio_to_text"}


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 2.0])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_diverged_model_gets_no_numbers(modality, value):
    z = {name: np.eye(4, dtype=np.float32) for name in ("image", "text")}
    z[modality][2, 2] = value
    embedded = split(z, range(4), list("abcd"))
    with pytest.raises(InputError, match=f"1 of 4 '{modality}' .* diverged"):
        evaluate(embedded)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(pairs=[("image", "sound")]), r"no modality 'sound'.*\['image', 'text'\]"),
        (dict(pairs=[("image", "image")]), "name another modality"),
        (dict(label="kind"), r"no label 'kind'.*\['concept'\]"),
        (dict(by="concepts"), "no label 'concepts' in 'held_out'. Did you mean 'concept'?"),
    ],
)
def test_wrong_options_are_named(options, message):
    z = {name: np.eye(4, dtype=np.float32) for name in ("image", "text")}
    with pytest.raises(InputError, match=message):
        evaluate(split(z, range(4), list("abcd")), **options)


def test_an_empty_split_is_named():
    z = {name: np.zeros((0, 4), np.float32) for name in ("image", "text")}
    with pytest.raises(InputError, match="'held_out' has no records"):
        evaluate(split(z, [], []))
