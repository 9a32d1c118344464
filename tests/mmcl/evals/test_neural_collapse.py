"""Neural collapse against the formulas with matrices, known shapes, and a real model."""

import math
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
from mmcl.evals import neural_collapse
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(z_NxD: np.ndarray, groups: Any, captions: list[str] | None = None) -> Embedded:
    n = len(groups)
    pictures = np.zeros((n, 2, 2, 3), np.uint8)
    return Embedded(
        split="held_out",
        z={"image": z_NxD},
        labels={"group": np.asarray(groups, np.int32), "concept": np.arange(n, dtype=np.int32)},
        shown={"image": pictures if captions is None else captions},
        ids=[f"record {i}" for i in range(n)],
        label_names={},
    )


def evaluate(embedded: Embedded) -> dict[str, float]:
    found = numbers(neural_collapse.evaluate(embedded, None))
    prefix = "neural_collapse_group/image/"
    assert all(name.startswith(prefix) for name in found)
    return {name.removeprefix(prefix): value for name, value in found.items()}


def literal(embedded: Embedded) -> dict[str, float]:
    """The scatters as matrices, item after item, and their pseudo-inverse."""
    z_NxD, group_N = embedded.z["image"].astype(np.float64), embedded.labels["group"]
    members = {g: [i for i in range(len(group_N)) if group_N[i] == g] for g in set(group_N)}
    members = {g: those for g, those in sorted(members.items()) if len(those) > 1}
    c, d = len(members), z_NxD.shape[1]
    means = {g: sum(z_NxD[i] for i in those) / len(those) for g, those in members.items()}
    middle_D = sum(means.values()) / c
    within_DxD, between_DxD = np.zeros((d, d)), np.zeros((d, d))
    nearest = []
    for g, those in members.items():
        between_DxD += np.outer(means[g] - middle_D, means[g] - middle_D) / c
        for i in those:
            within_DxD += np.outer(z_NxD[i] - means[g], z_NxD[i] - means[g]) / len(those) / c
            half = {h: np.sum((z_NxD[i] - mean_D) ** 2) / 2 for h, mean_D in means.items()}
            others = min(half[h] for h in members if h != g)
            hypothesis.assume(abs(others - half[g] - TIE) > 1e-6)  # rounding decides
            nearest.append(others - half[g] > TIE)
    norms = [math.dist(mean_D, middle_D) for mean_D in means.values()]
    apart = []
    for g in members:
        for h in members:
            if g != h:
                a_D, b_D = means[g] - middle_D, means[h] - middle_D
                cosine = a_D @ b_D / math.dist(means[g], middle_D) / math.dist(means[h], middle_D)
                apart.append(abs(cosine + 1 / (c - 1)))
    pinv_DxD = np.linalg.pinv(between_DxD, rcond=1e-9, hermitian=True)
    return {
        "nc4": float(np.mean(nearest)),
        "nc1": float(np.trace(within_DxD @ pinv_DxD)) / c,
        "nc1_traces": float(np.trace(within_DxD) / np.trace(between_DxD)),
        "nc2_norms": float(np.std(norms) / np.mean(norms)),
        "nc2_angles": sum(apart) / len(apart),
        "chance": 1 / c,
        "classes": c,
        "count": len(nearest),
    }


@hypothesis.given(
    st.sampled_from([4, 12, 40]), st.integers(2, 9), st.booleans(), st.integers(0, 2**32 - 1)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_equals_the_formulas(n: int, classes: int, tight: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.concatenate([[-3, -3, 5, 5], rng.integers(classes, size=n - 4)])
    noise = 0.1 if tight else 1.0
    z_NxD = unit(rng.normal(size=(10, 5))[groups] + noise * rng.normal(size=(n, 5)))
    embedded = split(z_NxD, groups)
    assert evaluate(embedded) == pytest.approx(literal(embedded), rel=1e-5, abs=1e-9)


def simplex(classes: int) -> np.ndarray:
    return unit(np.eye(classes) - 1 / classes)


def test_a_simplex_has_collapsed() -> None:
    found = evaluate(split(simplex(5)[[0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]], list("00111223344")))
    assert found == pytest.approx(
        {"nc4": 1, "nc1": 0, "nc1_traces": 0, "nc2_norms": 0, "nc2_angles": 0, "chance": 0.2,
         "classes": 5, "count": 11},
        abs=1e-6,
    )  # fmt: skip


def test_a_square_is_no_simplex() -> None:
    """Cosines 0, 0 and -1 where a simplex of four has -1/3."""
    corners = np.float32([[1, 0], [0, 1], [-1, 0], [0, -1]])
    found = evaluate(split(corners[[0, 0, 1, 1, 2, 2, 3, 3]], list("00112233")))
    assert found["nc2_angles"] == pytest.approx(4 / 9)
    assert found["nc2_norms"] == pytest.approx(0, abs=1e-7)


def test_a_known_scatter() -> None:
    """Two classes at cos 0.8 east and west, a little north and south: S_W = diag(0, 0.36) and
    S_B = diag(0.64, 0), so that all scatter is where the means do not differ."""
    z_NxD = np.float32([[0.8, 0.6], [0.8, -0.6], [-0.8, 0.6], [-0.8, -0.6]])
    found = evaluate(split(z_NxD, [0, 0, 1, 1]))
    assert found["nc1"] == pytest.approx(0, abs=1e-9)
    assert found["nc1_traces"] == pytest.approx(0.36 / 0.64)
    assert found["nc4"] == 1


def test_a_mean_in_the_middle_has_no_direction() -> None:
    z_NxD = np.float32([[1, 0], [1, 0], [-1, 0], [-1, 0], [1, 0], [-1, 0]])
    found = evaluate(split(z_NxD, [0, 0, 1, 1, 2, 2]))
    assert found["nc2_angles"] == pytest.approx((2 * 0.5 + 4 * 0.5) / 6)


def test_a_collapsed_model_has_no_classes_apart() -> None:
    found = evaluate(split(np.tile(np.float32([0.6, 0.8]), (6, 1)), [0, 0, 1, 1, 2, 2]))
    assert found == pytest.approx({"nc4": 0, "chance": 1 / 3, "classes": 3, "count": 6})


def test_many_classes_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    u_CxD = np.random.default_rng(0).normal(size=(50, 7))
    whole = neural_collapse.angles(u_CxD)
    monkeypatch.setattr(neural_collapse, "ROWS", 16)
    assert neural_collapse.angles(u_CxD) == pytest.approx(whole)


def test_equal_strings_are_one_item() -> None:
    z_NxD = np.float32([[1, 0], [1, 0], [0.6, 0.8], [0, 1], [0, 1]])
    found = evaluate(split(z_NxD, [0, 0, 0, 1, 1], ["a", "a", "b", "c", "d"]))
    assert found["count"] == 4


def test_items_of_one_concept_are_drawn_together() -> None:
    embedded = split(simplex(2)[[0, 0, 1, 1]], [0, 0, 1, 1])
    embedded.labels["concept"][:] = [7, 7, 8, 9]
    nc4 = neural_collapse.evaluate(embedded, None)["neural_collapse_group/image/nc4"]
    assert isinstance(nc4, PerItem) and nc4.cluster_N is not None
    assert nc4.cluster_N.tolist() == [7, 7, 8, 9]


def test_devices_change_nothing() -> None:
    rng = np.random.default_rng(2)
    embedded = split(unit(rng.normal(size=(301, 16))), np.arange(301) % 7)
    one = evaluate(embedded)
    with jax.set_mesh(data_mesh()):
        assert evaluate(embedded) == one


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 0, 1, 2], [0, 1, 2, 3]])
def test_too_few_classes_are_named(groups: list[int]) -> None:
    with pytest.raises(InputError, match="no modality of 'held_out' has two classes of two"):
        evaluate(split(np.eye(4, dtype=np.float32), groups))


def test_a_modality_without_classes_is_left_out() -> None:
    embedded = split(simplex(2)[[0, 0, 1, 1]], [0, 0, 1, 1])
    embedded.z["text"], embedded.shown["text"] = embedded.z["image"], ["a", "a", "b", "b"]
    found = neural_collapse.evaluate(embedded, None)
    assert found and all("/image/" in name for name in found)


def test_no_such_label() -> None:
    with pytest.raises(InputError, match="no label 'artist'"):
        embedded = split(np.eye(4, dtype=np.float32), [0, 0, 1, 1])
        neural_collapse.evaluate(embedded, None, label="artist")


def test_a_diverged_model_gets_no_numbers() -> None:
    with pytest.raises(InputError, match="1 of 4 'image' .* diverged"):
        evaluate(split(np.diag([1, 1, 1, np.nan]), [0, 0, 1, 1]))


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    tiny_config["eval"]["evaluators"] = [{"name": "neural_collapse", "label": "group"}]
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    found = model.evaluate(model.embed("unseen_artist"))
    for modality in ("image", "text"):
        task = f"eval/unseen_artist/neural_collapse_group/{modality}"
        assert 0 <= found[f"{task}/nc4"] <= 1
        assert all(found[f"{task}/{name}"] > 0 for name in ("nc1", "nc1_traces", "nc2_angles"))
