"""The integration rate against scipy's matrix square root, normal distributions and removals."""

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
from mmcl.evals import integration_rate
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.evals.integration_rate import frechet, without_outliers


def unit(z_NxD: np.ndarray) -> np.ndarray:
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(z: dict[str, np.ndarray]) -> Embedded:
    n = len(next(iter(z.values())))
    return Embedded(
        split="held_out",
        z=z,
        labels={"concept": np.arange(n, dtype=np.int32)},
        shown={name: [f"the same {name}"] * n for name in z},
        ids=[f"record {i}" for i in range(n)],
        label_names={},
    )


def evaluate(z: dict[str, np.ndarray]) -> dict[str, float]:
    return numbers(integration_rate.evaluate(split(z), None))


@hypothesis.given(
    st.integers(10, 40), st.integers(10, 40), st.integers(1, 8), st.integers(0, 2**32 - 1)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_distance_equals_scipy(n: int, m: int, d: int, seed: int) -> None:
    """Of covariances of full rank, which scipy asks for."""
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(seed)
    a_NxD, b_MxD = (rng.normal(size=(k, d)) * rng.uniform(0.1, 3, size=d) for k in (n, m))
    cov_a, cov_b = (np.cov(rows, rowvar=False).reshape(d, d) for rows in (a_NxD, b_MxD))
    root_a = linalg.sqrtm(cov_a + 0j).real
    shared = np.trace(linalg.sqrtm(root_a @ cov_b @ root_a + 0j)).real
    apart = sum((x - y) ** 2 for x, y in zip(a_NxD.mean(axis=0), b_MxD.mean(axis=0)))
    expected = apart + np.trace(cov_a) + np.trace(cov_b) - 2 * shared
    assert frechet(a_NxD, b_MxD) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@hypothesis.given(
    st.integers(2, 12), st.integers(2, 12), st.integers(1, 30), st.integers(0, 2**32 - 1)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_distance_of_fewer_records_than_directions(n: int, m: int, d: int, seed: int) -> None:
    """The roots of the eigenvalues of S_a S_b are the singular values of the centred X_a X_b^T."""
    rng = np.random.default_rng(seed)
    a_NxD, b_MxD = rng.normal(size=(n, d)), rng.normal(size=(m, d)) + rng.normal(size=d)
    a_centred, b_centred = (rows - rows.mean(axis=0) for rows in (a_NxD, b_MxD))
    shared = np.linalg.norm(a_centred @ b_centred.T, "nuc") / math.sqrt((n - 1) * (m - 1))
    spread = sum(np.square(rows).sum() / (len(rows) - 1) for rows in (a_centred, b_centred))
    apart = np.square(a_NxD.mean(axis=0) - b_MxD.mean(axis=0)).sum()
    assert frechet(a_NxD, b_MxD) == pytest.approx(apart + spread - 2 * shared, abs=1e-9)


def test_of_one_direction_it_is_known() -> None:
    """(difference of means)^2 + (difference of standard deviations)^2."""
    a_Nx1, b_Mx1 = np.array([[0.0], [2.0], [4.0]]), np.array([[5.0], [6.0], [7.0], [8.0]])
    deviations = math.sqrt(4), math.sqrt(5 / 3)
    expected = 4.5**2 + (deviations[0] - deviations[1]) ** 2
    assert frechet(a_Nx1, b_Mx1) == pytest.approx(expected)


def test_a_shift_counts_its_square_and_a_rotation_of_both_nothing() -> None:
    rng = np.random.default_rng(0)
    z_NxD = rng.normal(size=(30, 5))
    shift_D = rng.normal(size=5)
    assert frechet(z_NxD, z_NxD + shift_D) == pytest.approx(np.sum(shift_D**2))
    turn_DxD = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    other_MxD = rng.normal(size=(20, 5)) * np.arange(5)
    turned = frechet(z_NxD @ turn_DxD, other_MxD @ turn_DxD)
    assert frechet(z_NxD, other_MxD) == pytest.approx(turned)
    assert frechet(other_MxD, z_NxD) == pytest.approx(turned)


@pytest.mark.parametrize("n, d", [(500, 64), (20, 256)])
def test_equal_sets_are_at_no_distance(n: int, d: int) -> None:
    z_NxD = unit(np.random.default_rng(1).normal(size=(n, d)))
    found = evaluate({"image": z_NxD, "text": z_NxD[::-1]})
    assert found["integration/image_text/frechet"] < 1e-12
    assert found["integration/image_text/rate"] == -12


def test_a_whole_evaluation_by_hand() -> None:
    """Two points 2 apart against one: variance 2 of which nothing is shared, means 1 apart."""
    east, north = np.eye(2, dtype=np.float32)
    found = evaluate({"image": np.stack([east, -east]), "text": np.stack([north, north])})
    expected = {"frechet": 3, "rate": math.log10(3), "count_image": 2, "count_text": 2}
    assert found == pytest.approx({f"integration/image_text/{k}": v for k, v in expected.items()})


@hypothesis.given(st.integers(2, 60), st.integers(0, 3), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=50, deadline=None)
def test_outliers_are_those_beyond_three_sigma(n: int, odd: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z_NxD = unit(rng.normal(size=(n, 4)) + 20 * np.eye(4)[0]).astype(np.float64)
    z_NxD[: min(odd, n)] *= -1
    mean = [sum(row[d] for row in z_NxD) / n for d in range(4)]
    apart = [math.dist(row, mean) for row in z_NxD]
    middle = sum(apart) / n
    sigma = math.sqrt(sum((x - middle) ** 2 for x in apart) / n)
    hypothesis.assume(all(abs(x - middle - 3 * sigma) > 1e-12 for x in apart))
    expected = [i for i in range(n) if apart[i] <= middle + 3 * sigma]
    np.testing.assert_array_equal(without_outliers(z_NxD), z_NxD[expected])


def test_one_wrong_picture_of_many_hardly_matters() -> None:
    rng = np.random.default_rng(3)
    z = {name: unit(rng.normal(size=(300, 8)) + 9 * np.eye(8)[0]) for name in ("image", "text")}
    rate = "integration/image_text/rate"
    good = evaluate(z)[rate]
    z["image"][7] *= -1
    assert abs(evaluate(z)[rate] - good) < 0.1
    assert math.log10(frechet(z["image"], z["text"])) - good > 0.5


def test_every_two_of_three_modalities() -> None:
    rng = np.random.default_rng(1)
    found = evaluate({name: unit(rng.normal(size=(9, 4))) for name in ("image", "text", "sound")})
    tasks = {name.rpartition("/")[0] for name in found}
    assert tasks == {f"integration/{pair}" for pair in ("image_text", "image_sound", "text_sound")}
    assert len(found) == 12


@pytest.mark.parametrize("z", [{"image": np.eye(4)}, {"image": np.eye(1), "text": np.eye(1)}])
def test_too_little_is_named(z: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="needs two modalities and two records"):
        evaluate(z)


def test_a_diverged_model_gets_no_numbers() -> None:
    with pytest.raises(InputError, match="2 of 2 'text' .* diverged"):
        evaluate({"image": np.eye(2), "text": np.full((2, 2), np.nan)})


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    tiny_config["eval"]["evaluators"] = [{"name": "integration_rate"}]
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    found = model.evaluate(model.embed("unseen_artist"))
    task = "eval/unseen_artist/integration/image_text"
    assert 0 < found[f"{task}/frechet"] < 4
    assert found[f"{task}/rate"] == pytest.approx(math.log10(found[f"{task}/frechet"]))
