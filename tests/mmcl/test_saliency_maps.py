"""The drawing of saliency maps."""

import base64
import io
import re
from typing import Any
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from matplotlib.colors import to_rgb
from PIL import Image

from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals.saliency import METHODS, Explained
from mmcl.report.saliency import SHOWN, asked_for, drawn, over, pixels, saliency_maps
from mmcl.report.svg import COLOURS


def explained(n: int, seed: int = 0) -> Explained:
    rng = np.random.default_rng(seed)
    value = rng.integers(256, size=(n, 8, 8, 3), dtype=np.uint8)
    maps = {name: rng.normal(size=(n, 8, 8)) for name in METHODS}
    return Explained(value, np.ones((n, 8, 8), bool), maps, {})


def floats(*shape: int) -> Explained:
    """Two records of other kinds than pictures."""
    rng = np.random.default_rng(len(shape))
    maps = {name: rng.normal(size=(2, *shape[:3])) for name in METHODS[:2]}
    value = rng.normal(size=(2, *shape)).astype(np.float32)
    return Explained(value, np.ones((2, *shape[:3]), bool), maps, {})


def images(svg: str) -> list[np.ndarray]:
    """The pictures in an SVG, in order."""
    data = re.findall(r"data:image/png;base64,([^\"]+)", svg)
    files = [io.BytesIO(base64.b64decode(re.sub(r"\s", "", one))) for one in data]
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def test_every_picture_and_every_map_is_drawn_and_named() -> None:
    found = [explained(2), explained(1, seed=1)]
    svg = drawn(found, ["a red fox", "<b> & more", "a very long caption that goes on"], "Saliency")
    ElementTree.fromstring(svg)
    seen = images(svg)
    assert len(seen) == 3 * (1 + len(METHODS))
    for row, value in enumerate(np.concatenate([of.value for of in found])):
        side = len(seen[0]) // 8
        shown = seen[row * (1 + len(METHODS))][side // 2 :: side, side // 2 :: side][:8, :8]
        assert np.abs(shown.astype(int) - value).mean() < 12
    for words in (*(name.replace("_", " ") for name in METHODS), "a red fox", "…"):
        assert words in svg
    assert "&lt;b&gt; &amp; more" in svg and 'aria-label="Saliency"' in svg


def test_the_same_twice() -> None:
    one, other = (drawn([explained(2)], ["x", "y"], "it") for _ in range(2))
    assert one == other
    assert drawn([explained(2, seed=1)], ["x", "y"], "it") != one


def test_the_salient_are_coloured_and_the_rest_is_pale() -> None:
    picture = pixels(explained(1).value[0])
    map_HxW = np.full((8, 8), -3.0)
    map_HxW[2, 5], map_HxW[2, 6] = 4.0, 0.0
    found = over(picture, map_HxW)
    np.testing.assert_allclose(found[2, 5], to_rgb(COLOURS[1]))
    assert (found[map_HxW <= 0] >= 0.75).all() and np.ptp(found[2, 6]) < 1e-12
    faint = over(np.ones((1, 2, 3)), np.array([[1e-9, 1.0]], np.float32))
    assert faint.max() <= 1  # also where 1 - 1e-9 is 1 in the map's precision
    for flat in (0.0, 2.0):
        np.testing.assert_allclose(over(picture, np.full((8, 8), flat)).std(axis=-1), 0, atol=1e-12)


def test_floats_of_any_range_are_seen() -> None:
    value = np.random.default_rng(0).normal(size=(4, 4, 1))
    found = pixels(value)
    assert found.shape == (4, 4, 3) and found.min() == 0 and found.max() == 1
    assert np.isfinite(pixels(np.zeros((4, 4, 3)))).all()


def test_a_signal_is_a_line_whose_salient_parts_are_coloured() -> None:
    one = floats(30)
    one.maps["integrated_gradients"][:] = -1.0
    one.maps["integrated_gradients"][:, 10] = 1.0
    one.maps["gradient_x_input"][:] = 0.0
    svg = drawn([one], ["x", "y"], "it")
    ElementTree.fromstring(svg)
    assert "<image" not in svg
    # the two stretches that meet at a salient place, of two records
    opacity = re.findall(r"stroke: var\(--c1\); stroke-opacity: ([.\d]+)", svg)
    assert opacity == ["0.5"] * 4
    assert len(drawn([floats(5000)], ["x", "y"], "it")) < 20 * len(svg)


def test_spectrograms_and_films_are_pictures() -> None:
    seen = images(drawn([floats(20, 10)], ["x", "y"], "it"))
    assert len(seen) == 2 * 3
    film = floats(3, 8, 8, 3)
    still = Explained(film.value[:, 1], film.there[:, 1],
                      {name: of[:, 1] for name, of in film.maps.items()}, {})  # fmt: skip
    both = [images(drawn([one], ["x", "y"], "it")) for one in (film, still)]
    for a, b in zip(*both):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    embedded = model.embed("unseen_artist")
    svg = saliency_maps(embedded, model)
    ElementTree.fromstring(svg)
    assert len(images(svg)) == SHOWN * (1 + len(METHODS))
    assert svg == saliency_maps(embedded, model)
    told = saliency_maps(embedded, model, modality="text", to="image")
    assert len(ElementTree.fromstring(told).findall(".//tr")) == SHOWN * len(METHODS)
    sections = [dict(name="saliency"), dict(name="saliency", modality="text", to="image")]
    model.settings.eval.evaluators[:] = sections
    (all_of_them,) = asked_for(model, [embedded]).values()
    assert all_of_them.count("<svg") == all_of_them.count("<table") == 1
    for words in embedded.shown["text"][0].split():
        assert f">{words}</span>" in told
