"""Attacks on inputs, against the formula in NumPy, on one device and on many."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import adversarial, retrieval
from mmcl.evals.embed import embed, make_encoders
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.mesh import data_mesh
from mmcl.model import Model
from mmcl.models.embedding import Embedding
from mmcl.models.towers import Towers


class Linear(nn.Module):
    """z = W x, x flattened."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        x_BxF = inputs["value"].reshape(len(inputs["value"]), -1)
        return Embedding(nn.Dense(4, use_bias=False, name="w")(x_BxF))


def as_it_is(value: Any, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": value}


class Source:
    """Pictures and vectors at random, of n records."""

    label_names: dict[str, list[str]] = {}

    def __init__(self, n: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.image = rng.integers(256, size=(n, 2, 3, 3), dtype=np.uint8)
        self.tone = rng.normal(size=(n, 5)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.tone)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"id": f"r{i}", "image": self.image[i], "tone": self.tone[i], "word": np.int32([i])}


PIPELINE = Pipeline({"image": [as_it_is], "tone": [as_it_is], "word": [as_it_is]}, Source(1))


@functools.cache
def compiled(mesh: Mesh) -> tuple[Towers, Any, Any]:
    source, towers = Source(1), Towers({"image": Linear(), "tone": Linear()})
    example = {"image": {"value": source.image}, "tone": {"value": source.tone}}
    params = jax.jit(towers.init)(jax.random.key(0), example)
    return towers, params, make_encoders(towers, mesh)


def setup(
    monkeypatch: pytest.MonkeyPatch, source: Source, batch_size: int, mesh: Mesh
) -> tuple[Embedded, Any]:
    towers, params, encoders = compiled(mesh)
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)
    settings: Any = SimpleNamespace(eval=SimpleNamespace(batch_size=batch_size))
    model = Model(settings, PIPELINE, towers, encoders, params, mesh)
    embedded = embed(
        model.encode_batch,
        source,
        PIPELINE,
        split="val",
        batch_size=model.batch_size,
        modalities=["image", "tone"],
    )
    return dataclasses.replace(embedded, z=embedded.z | {"word": embedded.z["tone"]}), model


def attacked(embedded: Embedded, model: Any, modality: str, to: str, **options: Any) -> Any:
    given = dict(epsilon=None, steps=4, step=None, seed=0) | options
    record = np.arange(len(embedded.ids))
    return adversarial.attacked(embedded, model, record, modality, embedded.z[to], **given)


def literal(x_N: Any, start_N: Any, w_FxD: Any, p_D: Any, budget: float, step: float, steps: int,
            pixels: bool) -> np.ndarray:  # fmt: skip
    """One record, in float64: z of what the steps lead to."""
    w_FxD, p_D = w_FxD.astype(np.float64), p_D.astype(np.float64)
    x, now = x_N.astype(np.float64).ravel(), start_N.astype(np.float64).ravel()
    for _ in range(steps):
        z_D = now @ w_FxD
        length = np.sqrt(sum(z_D**2))
        slope_F = w_FxD @ (p_D - (z_D @ p_D) * z_D / length**2) / length
        now = now - step * np.sign(slope_F)
        now = np.minimum(np.maximum(now, x - budget), x + budget)
        if pixels:
            now = np.minimum(np.maximum(now, -1), 1)
    z_D = now @ w_FxD
    return z_D / np.sqrt(sum(z_D**2))


@pytest.mark.parametrize("modality, to", [("image", "tone"), ("tone", "image")])
@pytest.mark.parametrize("epsilon, steps, step", [(4.0, 3, None), (30.0, 2, 40.0), (0.25, 3, 0.1)])
def test_equals_the_formula(
    monkeypatch: pytest.MonkeyPatch,
    one_device: Mesh,
    modality: str,
    to: str,
    epsilon: float,
    steps: int,
    step: float | None,
) -> None:
    source = Source(9)
    embedded, model = setup(monkeypatch, source, 4, one_device)
    found = attacked(embedded, model, modality, to, epsilon=epsilon, steps=steps, step=step, seed=7)
    pixels = modality == "image"
    scale = 1 / 127.5 if pixels else 1
    values = source.image / 127.5 - 1 if pixels else source.tone
    w_FxD = np.asarray(model.params[modality]["w"]["kernel"])
    size = 2.5 * epsilon / steps if step is None else step
    for i, x in enumerate(values):
        key = jax.random.fold_in(jax.random.key(7), i)
        start = x + epsilon * scale * np.asarray(jax.random.uniform(key, x.shape, minval=-1.0))
        start = np.clip(start, -1, 1) if pixels else start
        p_D, e = embedded.z[to][i], epsilon * scale
        z_fgsm = literal(x, x, w_FxD, p_D, e, e, 1, pixels)
        z_pgd = literal(x, start, w_FxD, p_D, e, size * scale, steps, pixels)
        np.testing.assert_allclose(found["fgsm"][i], z_fgsm, atol=2e-5)
        np.testing.assert_allclose(found["pgd"][i], z_pgd, atol=2e-5)


@functools.partial(jax.jit, static_argnames="pixels")
def walked(byte: Any, weight: Any, budget: Any, seed: Any, pixels: bool) -> list[Any]:
    """Where small steps and one large one lead to, up a plane, from two starts."""
    value = adversarial.floats(byte)
    low, high = adversarial.bounds(value, budget, pixels=pixels)
    start = value + budget * adversarial.directions(value, jnp.arange(len(byte)), seed)
    return [
        adversarial.descend(lambda _: weight, jnp.clip(at, low, high), low, high, step, steps)
        for at in (value, start)
        for step, steps in ((budget / 3, 5), (3 * budget, 1))
    ]


@hypothesis.given(st.integers(0, 2**31 - 1), st.sampled_from([0.5, 4.0, 400.0]), st.booleans())
@hypothesis.settings(max_examples=30)
def test_budget_and_range_are_kept(seed: int, epsilon: float, pixels: bool) -> None:
    rng = np.random.default_rng(seed)
    byte = rng.integers(256, size=(3, 2, 2, 3), dtype=np.uint8)
    value, budget = byte / 127.5 - 1, epsilon / 127.5
    weight = rng.normal(size=byte.shape).astype(np.float32)
    low, high = value - budget, value + budget
    if pixels:
        low, high = np.maximum(low, -1), np.minimum(high, 1)
    for x in walked(byte, weight, np.float32(budget), seed, pixels):
        assert (x >= low - 1e-5).all() and (x <= high + 1e-5).all()
        assert not pixels or np.abs(x).max() <= 1
    for x in walked(byte, weight, np.float32(budget), seed, pixels)[1::2]:
        np.testing.assert_allclose(x, np.where(weight > 0, low, high), atol=1e-5)


def test_starts_hang_on_seed_and_record_alone() -> None:
    value = jnp.zeros((4, 50))
    u = adversarial.directions(value, jnp.array([3, 1, 4, 1]), jnp.int32(0))
    np.testing.assert_array_equal(u[1], u[3])
    np.testing.assert_array_equal(u[:1], adversarial.directions(value[:1], jnp.array([3]), 0))
    assert float(jnp.abs(u[0] - u[1]).max()) > 0.1
    assert float(jnp.abs(u - adversarial.directions(value, jnp.array([3, 1, 4, 1]), 1)).max()) > 0.1
    assert float(u.min()) < -0.9 and float(u.max()) > 0.9


def test_devices_and_batches_change_nothing(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh
) -> None:
    source = Source(21)
    expected = None
    for mesh, batch_size in ((one_device, 4), (one_device, 21), (data_mesh(), 8)):
        embedded, model = setup(monkeypatch, source, batch_size, mesh)
        with jax.set_mesh(mesh):
            found = numbers(adversarial.evaluate(embedded, model, to="tone", steps=3))
        expected = expected or found
        assert found == pytest.approx(expected, abs=1e-5)


def test_one_program_serves_all_batches(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    embedded, model = setup(monkeypatch, Source(22), 4, one_device)
    adversarial._attacked.clear_cache()
    for n in (1, 2):
        attacked(embedded, model, "image", "tone", epsilon=n / 3, steps=n, step=n / 4, seed=n)
    assert adversarial._attacked._cache_size() == 1


def test_a_larger_budget_does_more_harm(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    embedded, model = setup(monkeypatch, Source(40), 4, one_device)
    embedded.z["tone"][:] = embedded.z["image"]  # all are right
    by = {
        epsilon: numbers(adversarial.evaluate(embedded, model, to="tone", epsilon=epsilon))
        for epsilon in (1e-4, 8.0, 255.0)
    }
    for found in by.values():
        for way in ("image_to_tone", "tone_to_image"):
            assert found[f"adversarial/{way}/clean/recall@1"] == 1
            assert found[f"adversarial/{way}/clean/count"] == 40
            for attack in ("fgsm", "pgd"):
                success = found[f"adversarial/{way}/{attack}/success"]
                assert success == pytest.approx(1 - found[f"adversarial/{way}/{attack}/recall@1"])
    assert by[1e-4]["adversarial/image_to_tone/pgd/success"] == 0
    assert by[255.0]["adversarial/image_to_tone/pgd/success"] == 1
    cosines = [found["adversarial/pgd/cosine"] for found in by.values()]
    assert cosines == sorted(cosines, reverse=True) and cosines[0] == pytest.approx(1, abs=1e-4)
    assert by[8.0]["adversarial/pgd/cosine"] < by[8.0]["adversarial/fgsm/cosine"] + 1e-3


def test_success_is_of_those_that_were_right() -> None:
    rank = {"clean": np.array([1, 1, 1, 1, 2]), "fgsm": np.array([1, 2, 1, 1, 1]),
            "pgd": np.array([2, 2, 2, 1, 3])}  # fmt: skip
    label_N = np.array([0, 0, 1, 2, 3])
    found = numbers(adversarial.answered("a_to_b", rank, label_N, label_N, [1]))
    assert found == pytest.approx(
        {
            "a_to_b/clean/recall@1": 0.8,
            "a_to_b/fgsm/recall@1": 0.8,
            "a_to_b/pgd/recall@1": 0.2,
            "a_to_b/clean/chance@1": 0.2 * (0.4 + 0.4 + 0.2 + 0.2 + 0.2),
            "a_to_b/fgsm/success": 0.25,
            "a_to_b/pgd/success": 0.75,
            "a_to_b/clean/count": 5,
        }
    )


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    embedded = model.embed("unseen_artist")
    with jax.set_mesh(one_device):
        found = numbers(adversarial.evaluate(embedded, model, epsilon=1e-3, steps=2))
        clean = numbers(retrieval.evaluate(embedded, model))
        harmed = numbers(adversarial.evaluate(embedded, model, epsilon=16.0, steps=2))
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            name = f"adversarial/{way}"
            assert found[f"{name}/clean/recall@{k}"] == clean[f"{way}/recall@{k}"]
            assert found[f"{name}/clean/chance@{k}"] == clean[f"{way}/chance@{k}"]
    pgd, cosine = found["adversarial/pgd/cosine"], found["adversarial/clean/cosine"]
    assert pgd == pytest.approx(cosine, abs=1e-3)  # the floats are what the tower sees of bytes
    assert harmed["adversarial/fgsm/cosine"] < cosine - 0.01
    assert harmed["adversarial/pgd/cosine"] < cosine - 0.01


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(epsilon=0.0), "epsilon=0.0, steps=10"),
        (dict(steps=0), "steps=0"),
        (dict(step=-1.0), "step=-1.0"),
        (dict(to="image"), "no partner of itself"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(label="kind"), "no label 'kind'"),
        (dict(modality="tone", to="image"), "give epsilon in the unit of its values"),
        (dict(modality="word"), "the tower of 'word' reads int32, which has no gradient"),
    ],
)
def test_wrong_options_are_named(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh, options: dict[str, Any], message: str
) -> None:
    embedded, model = setup(monkeypatch, Source(4), 4, one_device)
    with pytest.raises(InputError, match=message):
        adversarial.evaluate(embedded, model, **{"to": "tone", **options})


def test_a_diverged_model_gets_no_numbers(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh
) -> None:
    embedded, model = setup(monkeypatch, Source(4), 4, one_device)
    embedded.z["image"][1] = np.nan
    with pytest.raises(InputError, match="1 of 4 'image' .* diverged"):
        adversarial.evaluate(embedded, model, to="tone")
