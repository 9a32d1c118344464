"""Evaluation of the leading dimensions of embeddings alone."""

from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import retrieval
from mmcl.evals.figure import numbers


def test_every_evaluator_sees_the_short_embeddings(
    tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    """Those that look at what was embedded, and those that encode something new."""
    zeroshot = {"name": "zeroshot", "label": "group"}
    attack = {"name": "adversarial", "steps": 1}
    judged = {"evaluators": [{"name": "retrieval"}, zeroshot, attack], "prefixes": [3, 8]}
    config = tiny_config | {"eval": tiny_config["eval"] | judged}
    with jax.set_mesh(one_device):
        stage = build(experiment.stages(config)[0], one_device)
        model = stage.model(stage.init())
        embedded = model.embed("unseen_artist")
        figures = numbers(model.judge(embedded))
        plain = {name for name in figures if "/prefix_" not in name}
        for prefix in (3, 8):
            of_prefix = {name for name in figures if f"/prefix_{prefix}/" in name}
            at = "eval/unseen_artist/"
            assert of_prefix == {
                name.replace(at, f"{at}prefix_{prefix}/")
                for name in plain
                if "rejected" not in name
            }
        for name in plain:  # all eight are all there are
            whole = figures[name.replace(at, f"{at}prefix_8/")]
            np.testing.assert_allclose(whole, figures[name], rtol=1e-4, atol=1e-4, err_msg=name)
        short = embedded.short(3)
        for m, z_NxD in embedded.z.items():
            cut = np.float64(z_NxD[:, :3])
            np.testing.assert_allclose(
                short.z[m], cut / np.linalg.norm(cut, axis=1, keepdims=True), rtol=1e-4, atol=1e-6
            )
        for name, value in numbers(retrieval.evaluate(short, model)).items():
            assert figures[f"eval/unseen_artist/prefix_3/{name}"] == value
        words = ["dog face", "cat"]
        short_2x3 = model.short(3).encode("text", words)
        whole_2xD = model.encode("text", words)[:, :3]
        whole_2xD /= np.linalg.norm(whole_2xD, axis=1, keepdims=True)
        np.testing.assert_allclose(short_2x3, whole_2xD, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "prefixes, line",
    [
        ([0], "config.eval.prefixes.0: 0 should be 1 or more"),
        ([4, 9], "prefixes.1: 9 is more than"),
    ],
)
def test_what_is_wrong_is_said(tiny_config: dict[str, Any], prefixes: Any, line: str) -> None:
    changes = {"eval": tiny_config["eval"] | {"prefixes": prefixes}}
    with pytest.raises(InputError, match=line):
        experiment.stages(tiny_config | changes)
