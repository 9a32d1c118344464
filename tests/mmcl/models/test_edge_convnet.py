"""Oriented edges against literal loops, and what the tower promises of them."""

import jax
import numpy as np
import pytest

from mmcl.models.edge_convnet import Tower, contrasts, oriented_edges


def pictures(n: int = 2, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (n, size, size, 3)).astype(np.float32)


def literal_edges(picture: np.ndarray, orientations: int, cell: int) -> np.ndarray:
    """The docstring's formula, pixel by pixel, in float64."""
    grey = np.pad(picture.astype(np.float64).mean(-1), 1, mode="edge")
    size = len(picture)
    strength = np.zeros((size, size, orientations))
    for y in range(size):
        for x in range(size):
            gx = grey[y + 1, x + 2] - grey[y + 1, x]
            gy = grey[y + 2, x + 1] - grey[y, x + 1]
            square, theta = gx * gx + gy * gy, np.arctan2(gy, gx)
            for k in range(orientations):
                match = max(0.0, np.cos(2 * (theta - k * np.pi / orientations)))
                match *= square / (square + 1e-4)
                strength[y, x, k] = np.sqrt(square + 1e-6) * match**2
    cells = strength.reshape(size // cell, cell, size // cell, cell, orientations).mean((1, 3))
    cells = np.sqrt(cells + 1e-4) - 1e-2
    return cells / np.sqrt((cells**2).mean() + 1e-4)


@pytest.mark.parametrize(("orientations", "cell"), [(4, 1), (8, 2), (6, 4)])
def test_edges_are_those_of_the_formula(orientations: int, cell: int) -> None:
    found = oriented_edges(pictures(), orientations, cell)
    for edges, picture in zip(found, pictures()):
        np.testing.assert_allclose(edges, literal_edges(picture, orientations, cell), atol=1e-4)


def test_an_upright_edge_has_one_orientation() -> None:
    picture = np.full((1, 8, 8, 3), -1, np.float32)
    picture[:, :, 4:] = 1
    strongest = oriented_edges(picture, 8, 8)[0, 0, 0].argmax()
    lying = oriented_edges(picture.swapaxes(1, 2), 8, 8)[0, 0, 0].argmax()
    assert (strongest, lying) == (0, 4)


def test_a_negative_has_the_same_edges() -> None:
    np.testing.assert_allclose(
        oriented_edges(-pictures(), 8, 2), oriented_edges(pictures(), 8, 2), atol=1e-5
    )


def test_a_picture_of_one_colour_has_no_edges() -> None:
    assert np.abs(oriented_edges(np.ones((1, 8, 8, 3), np.float32), 8, 2)).max() < 1e-2
    grads = jax.grad(lambda x: oriented_edges(x, 8, 2).sum())(np.ones((1, 8, 8, 3), np.float32))
    assert np.isfinite(grads).all()


def test_contrasts_are_of_colour_alone() -> None:
    grey = np.repeat(pictures()[..., :1], 3, axis=-1)
    np.testing.assert_allclose(contrasts(grey, 2), 0, atol=1e-6)
    one = np.zeros((1, 2, 2, 3), np.float32)
    one[..., :] = (0.8, 0.2, -0.4)
    np.testing.assert_allclose(contrasts(one, 2)[0, 0, 0], (0.6, 0.9), rtol=1e-6)
    assert contrasts(pictures(size=8), 4).shape == (2, 2, 2, 2)


def test_parameters_and_shapes() -> None:
    tower = Tower(embed_dim=5, widths=(8, 16), depth=2, orientations=4, cell=2)
    inputs = {"value": pictures(3, 16)}
    params = tower.init(jax.random.key(0), inputs)["params"]
    down = (9 * 6 * 8 + 8) + (9 * 8 * 16 + 16)
    residual = 2 * (2 * (2 * 8 + 9 * 8 * 8)) + 2 * (2 * (2 * 16 + 9 * 16 * 16))
    head = 2 * 16 + 2 * 2 * 16 * 5  # 16 pixels, cells of 2, two halvings: a map of 2 × 2
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == down + residual + head
    assert tower.apply({"params": params}, inputs).z.shape == (3, 5)


def test_no_example_sees_another() -> None:
    tower = Tower(embed_dim=5, widths=(8,), depth=1)
    inputs = {"value": pictures(4, 16)}
    variables = tower.init(jax.random.key(0), inputs)
    together = tower.apply(variables, inputs).z
    alone = tower.apply(variables, {"value": inputs["value"][2:3]}).z
    np.testing.assert_allclose(together[2:3], alone, atol=1e-5)
