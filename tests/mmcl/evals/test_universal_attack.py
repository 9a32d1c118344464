"""One perturbation for all, against the formula in NumPy, on one device and on many."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.evals import retrieval, universal_attack
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
    label_names = {"kind": [str(k) for k in range(9)]}

    def __init__(self, n: int):
        rng = np.random.default_rng(0)
        self.image = rng.integers(256, size=(n, 2, 3, 3), dtype=np.uint8)
        self.tone = rng.normal(size=(n, 5)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.tone)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"id": f"r{i}", "image": self.image[i], "tone": self.tone[i], "kind": i % 4,
                "word": np.int32([i])}  # fmt: skip


PIPELINE = Pipeline({"image": [as_it_is], "tone": [as_it_is], "word": [as_it_is]}, Source(1))


@functools.cache
def compiled(mesh: Mesh) -> tuple[Towers, Any, Any]:
    source, towers = Source(1), Towers({"image": Linear(), "tone": Linear()})
    example = {"image": {"value": source.image}, "tone": {"value": source.tone}}
    params = jax.jit(towers.init)(jax.random.key(0), example)
    return towers, params, make_encoders(towers, mesh)


def setup(
    monkeypatch: pytest.MonkeyPatch, n: int, batch_size: int, mesh: Mesh
) -> tuple[Embedded, Model]:
    source = Source(n)
    towers, params, encoders = compiled(mesh)
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)
    settings: Any = SimpleNamespace(eval=SimpleNamespace(batch_size=batch_size))
    model = Model(settings, PIPELINE, towers, encoders, params, mesh)
    embedded = embed(
        model.encode_batch, source, PIPELINE, split="val", batch_size=model.batch_size,
        modalities=["image", "tone"],
    )  # fmt: skip
    return dataclasses.replace(embedded, z=embedded.z | {"word": embedded.z["tone"]}), model


@pytest.mark.parametrize("modality, to", [("image", "tone"), ("tone", "image")])
def test_equals_the_formula(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh, modality: str, to: str
) -> None:
    embedded, model = setup(monkeypatch, 9, 4, one_device)
    record = np.array([0, 2, 3, 5, 6, 7])
    epsilon, step, passes = (20.0, 6.0, 3) if modality == "image" else (0.3, 0.1, 3)
    found = universal_attack.made(
        embedded, model, record, modality, embedded.z[to], epsilon, passes, step
    )
    unit = 1 / 127.5 if modality == "image" else 1.0
    source = Source(9)
    values = source.image / 127.5 - 1 if modality == "image" else source.tone.astype(np.float64)
    w_FxD = np.asarray(model.params[modality]["w"]["kernel"], np.float64)
    delta = np.zeros(values[0].shape)
    for _ in range(passes):
        for some in (record[:4], record[4:]):
            total = np.zeros(delta.size)
            for i in some:
                x = (values[i] + delta).ravel()
                inside = np.abs(x) < 1 if modality == "image" else np.ones(len(x), bool)
                z_D = (np.clip(x, -1, 1) if modality == "image" else x) @ w_FxD
                p_D, length = embedded.z[to][i], np.linalg.norm(z_D)
                total += inside * (w_FxD @ (p_D - (z_D @ p_D) * z_D / length**2) / length)
            delta = delta - step * unit * np.sign(total).reshape(delta.shape)
            delta = np.clip(delta, -epsilon * unit, epsilon * unit)
    np.testing.assert_allclose(found, delta, atol=1e-5)
    z = universal_attack.perturbed(embedded, model, np.arange(9), modality, found)
    for i in range(9):
        x = values[i] + delta
        z_D = (np.clip(x, -1, 1) if modality == "image" else x).ravel() @ w_FxD
        np.testing.assert_allclose(z[i], z_D / np.linalg.norm(z_D), atol=1e-5)


def test_it_is_judged_on_labels_that_it_never_saw(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh
) -> None:
    embedded, model = setup(monkeypatch, 24, 8, one_device)
    seen: list[list[int]] = []
    for name in ("made", "perturbed"):
        real = getattr(universal_attack, name)

        def noted(*args: Any, real: Any = real) -> Any:
            seen.append(args[2].tolist())
            return real(*args)

        monkeypatch.setattr(universal_attack, name, noted)
    found = numbers(
        universal_attack.evaluate(embedded, model, to="tone", label="kind", epsilon=255.0, seed=1)
    )
    made_on, judged = seen
    kinds = [{i % 4 for i in those} for those in seen]
    assert len(kinds[0]) == len(kinds[1]) == 2 and not kinds[0] & kinds[1]
    assert sorted(made_on + judged) == list(range(24))
    part = np.array(judged)
    half = dataclasses.replace(
        embedded,
        z={m: z[part] for m, z in embedded.z.items()},
        labels={name: of[part] for name, of in embedded.labels.items()},
        shown={"image": np.zeros((len(part), 2, 2, 3), np.uint8), "tone": np.zeros(len(part))},
        ids=[embedded.ids[i] for i in part],
    )
    clean = numbers(retrieval.evaluate(half, model, pairs=[("image", "tone")], label="kind"))
    for k in (1, 5, 10):
        for figure in ("recall", "chance"):
            of = found[f"universal_attack/image_to_tone/clean/{figure}@{k}"]
            assert of == pytest.approx(clean[f"image_to_tone/{figure}@{k}"])
    assert found["universal_attack/tone_to_image/clean/count"] == 12
    lost = found["universal_attack/clean/cosine"] - found["universal_attack/attacked/cosine"]
    assert lost > 0.1
    assert (
        universal_attack.half(np.arange(9), 0).tolist()
        != universal_attack.half(np.arange(9), 1).tolist()
    )


def test_devices_change_nothing(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    expected = None
    for mesh in (one_device, data_mesh()):
        embedded, model = setup(monkeypatch, 22, 8, mesh)
        with jax.set_mesh(mesh):
            found = numbers(universal_attack.evaluate(embedded, model, to="tone", passes=2))
        expected = expected or found
        assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(epsilon=0.0), "epsilon=0.0, passes=10"),
        (dict(passes=0), "passes=0"),
        (dict(step=-1.0), "step=-1.0"),
        (dict(to="image"), "no partner of itself"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(label="sort"), "no label 'sort'"),
        (dict(label="same"), "'same' of 'val' has one value"),
        (dict(modality="tone", to="image"), "give epsilon in its values' unit"),
        (dict(modality="word"), "the tower of 'word' reads int32, which has no gradient"),
    ],
)
def test_wrong_options_are_named(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh, options: dict[str, Any], message: str
) -> None:
    embedded, model = setup(monkeypatch, 4, 4, one_device)
    embedded.labels["same"] = np.zeros(4, np.int32)
    with pytest.raises(InputError, match=message):
        universal_attack.evaluate(embedded, model, **{"to": "tone", **options})
