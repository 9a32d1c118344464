"""Objectives against independent implementations in torch, values and gradients, in float64."""

import importlib.util
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce, queue, sigmoid, soft_targets, supcon

INSTALL = "needs `pip install 'mmcl[test]'` on Python 3.11"
torch = pytest.importorskip("torch", reason=INSTALL)

B, D = 65, 16
SCALE = 7.0


@pytest.fixture(scope="module")
def open_clip():
    """Its losses, which need torch only; the package itself would import torchvision."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        pytest.skip("needs `pip install --no-deps open_clip_torch==3.3.0`")
    file = Path(spec.origin).parent / "loss.py"
    spec = importlib.util.spec_from_file_location("open_clip_loss", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(seed=0):
    """Raw embeddings, a teacher's, and labels of which several records share one."""
    rng = np.random.default_rng(seed)
    z, teacher = ({m: rng.normal(size=(B, D)) for m in ("image", "text")} for _ in range(2))
    batch = {
        "present": {m: np.ones(B, bool) for m in z},
        "concept": rng.integers(0, B // 3, B),
        "teacher": teacher,
    }
    return z, batch


def assert_equal(objective, oracle, z, batch, state=None, **learned):
    """`oracle(image, text, scale, bias)` of unit embeddings has our value and our gradients."""
    learned = {"log_scale": np.float64(math.log(SCALE)), **learned}

    def loss(params, z):
        embeddings = {m: Embedding(x) for m, x in z.items()}
        (term,) = objective(params, state, embeddings, batch, jax.random.key(0)).terms.values()
        return term.mean()

    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(loss, (0, 1)))
        value, gradients = jax.device_get(run(learned, z))
    params = {k: torch.tensor(x, requires_grad=True) for k, x in learned.items()}
    raw = {m: torch.tensor(x, requires_grad=True) for m, x in z.items()}
    image, text = (torch.nn.functional.normalize(raw[m], dim=1) for m in ("image", "text"))
    theirs = oracle(image, text, params["log_scale"].exp(), params.get("bias"))
    theirs.backward()
    np.testing.assert_allclose(value, theirs.item(), rtol=1e-12)
    leaves = {**{f"d {k}": (gradients[0][k], p) for k, p in params.items()},
              **{f"d {m}": (gradients[1][m], x) for m, x in raw.items()}}  # fmt: skip
    for name, (ours, leaf) in leaves.items():
        if leaf.grad is None:  # a modality that this loss does not use
            assert not ours.any(), name
            continue
        error = np.abs(ours - leaf.grad.numpy()).max()
        assert error <= 1e-12 * leaf.grad.abs().max().item(), name


def test_infonce_is_the_clip_loss_of_open_clip(open_clip):
    def oracle(image, text, scale, bias):
        return open_clip.ClipLoss()(image, text, scale)

    assert_equal(infonce.Objective(), oracle, *drawn())


def test_sigmoid_is_the_siglip_loss_of_open_clip(open_clip):
    def oracle(image, text, scale, bias):
        return open_clip.SigLipLoss()(image, text, scale, bias)

    assert_equal(sigmoid.Objective(), oracle, *drawn(), bias=np.float64(-3.0))


def test_soft_targets_are_the_distillation_loss_of_open_clip(open_clip):
    z, batch = drawn()
    teacher = [
        torch.nn.functional.normalize(torch.tensor(batch["teacher"][m]), dim=1)
        for m in ("image", "text")
    ]

    def oracle(image, text, scale, bias):
        loss = open_clip.DistillClipLoss()
        hard, soft = loss(image, text, scale, *teacher, 5.0)
        return 0.3 * soft + 0.7 * hard

    assert_equal(soft_targets.Objective(mix=0.3, teacher_scale=5.0), oracle, z, batch)


def test_infonce_is_two_directions_of_info_nce():
    InfoNCE = pytest.importorskip("info_nce", reason=INSTALL).InfoNCE

    def oracle(image, text, scale, bias):
        info_nce = InfoNCE(temperature=1 / scale)
        return (info_nce(image, text) + info_nce(text, image)) / 2

    assert_equal(infonce.Objective(), oracle, *drawn())


def test_the_queue_is_info_nce_with_more_negatives():
    InfoNCE = pytest.importorskip("info_nce", reason=INSTALL).InfoNCE
    (past, _), (z, batch) = drawn(1), drawn()
    past = {m: x / np.linalg.norm(x, axis=1, keepdims=True) for m, x in past.items()}
    state = {
        "queue": {m: {"z": x, "present": np.ones(B, bool)} for m, x in past.items()},
        "slot": np.int32(0),
    }

    def negatives(of, past):
        others = torch.stack([of[torch.arange(B) != i] for i in range(B)])
        return torch.cat([others, torch.tensor(past).expand(B, B, D)], dim=1)

    def oracle(image, text, scale, bias):
        info_nce = InfoNCE(temperature=1 / scale, negative_mode="paired")
        by_image = info_nce(image, text, negatives(text, past["text"]))
        by_text = info_nce(text, image, negatives(image, past["image"]))
        return (by_image + by_text) / 2

    assert_equal(queue.Objective(D, length=B), oracle, z, batch, state)


@pytest.fixture
def supcon_of_metric_learning():
    return pytest.importorskip("pytorch_metric_learning.losses", reason=INSTALL).SupConLoss


def test_supcon_within_a_modality(supcon_of_metric_learning):
    z, batch = drawn()
    labels = torch.tensor(batch["concept"])
    counts = np.bincount(batch["concept"])
    assert 1 in counts and counts.max() > 2  # one without a positive, and one with several

    def oracle(image, text, scale, bias):
        return supcon_of_metric_learning(temperature=1 / scale)(image, labels)

    objective = supcon.Objective("concept", pairs=(("image", "image"),))
    assert_equal(objective, oracle, z, batch)


def test_supcon_between_modalities(supcon_of_metric_learning):
    z, batch = drawn()
    labels = torch.tensor(batch["concept"])

    def oracle(image, text, scale, bias):  # it changes reference labels that are the same tensor
        loss = supcon_of_metric_learning(temperature=1 / scale)
        by_image = loss(image, labels, ref_emb=text, ref_labels=labels.clone())
        by_text = loss(text, labels, ref_emb=image, ref_labels=labels.clone())
        return (by_image + by_text) / 2

    assert_equal(supcon.Objective("concept"), oracle, z, batch)
