"""Objectives against independent implementations in torch, values and gradients, in float64."""

import importlib
import importlib.util
import math
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from mmcl.models.embedding import Embedding
from mmcl.objectives import (
    alignment_uniformity,
    cwcl,
    decoupled,
    dexml,
    infonce,
    matryoshka,
    modx,
    one_to_k,
    queue,
    sigmoid,
    soft_targets,
    supcon,
)

INSTALL = "needs `pip install 'mmcl[test]'` on Python 3.11"
torch = pytest.importorskip("torch", reason=INSTALL)

B, D, K = 65, 16, 3
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
    """`oracle(image, text, scale, bias)` of unit embeddings has our value and our gradients.

    Where `z[modality]` is (B, K, D), these are views.
    """
    learned = {"log_scale": np.float64(math.log(SCALE)), **learned}

    def embedding(x):
        return Embedding(x) if x.ndim == 2 else Embedding(x[:, 0], views=x)

    def loss(params, z):
        embeddings = {m: embedding(x) for m, x in z.items()}
        terms = objective(params, state, embeddings, batch, jax.random.key(0)).terms
        return sum(term.mean() for term in terms.values())

    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(loss, (0, 1)))
        value, gradients = jax.device_get(run(learned, z))
    params = {k: torch.tensor(x, requires_grad=True) for k, x in learned.items()}
    raw = {m: torch.tensor(x, requires_grad=True) for m, x in z.items()}
    image, text = (torch.nn.functional.normalize(raw[m], dim=-1) for m in ("image", "text"))
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


@pytest.fixture
def dcl(monkeypatch):
    """The decoupled losses of lightly, whose package itself would import torchvision."""
    spec = importlib.util.find_spec("lightly")
    if spec is None:
        pytest.skip("needs `pip install --no-deps lightly==1.6.0`")
    folder = Path(spec.origin).parent
    for name in ("lightly", "lightly.loss", "lightly.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, package)
    return importlib.import_module("lightly.loss.dcl_loss")


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_decoupled_is_the_loss_of_lightly(dcl, sigma):
    """Its negatives within a modality are put so far away that they do not count; its weights, the
    same as ours, stand still, so that here they are made anew.
    """
    z, batch = drawn()

    def weights(one, other):
        return 2 - B * ((one * other).sum(dim=1) / sigma).softmax(dim=0)

    def one_way(of, others, scale):
        of, others = torch.cat([of, torch.ones(B, 1)], 1), torch.cat([others, torch.zeros(B, 1)], 1)
        far = -1e4 * torch.nn.functional.one_hot(torch.full((B,), D)).to(of.dtype)
        loss = dcl.DCLLoss(1 / scale, weights if sigma else None)
        return loss._loss(of, others, far, others)

    def oracle(image, text, scale, bias):
        if sigma:
            theirs = dcl.negative_mises_fisher_weights(image, text, sigma)
            torch.testing.assert_close(weights(image, text).detach(), theirs)
        return (one_way(image, text, scale) + one_way(text, image, scale)) / 2

    assert_equal(decoupled.Objective(sigma=sigma), oracle, z, batch)


def test_the_prefixes_are_the_clip_loss_of_each(open_clip):
    def oracle(image, text, scale, bias):
        short = [
            [torch.nn.functional.normalize(x[:, :m], dim=1) for x in (image, text)] for m in (4, D)
        ]
        first, whole = (open_clip.ClipLoss()(*pair, scale) for pair in short)
        return 0.5 * first + 2 * whole

    assert_equal(matryoshka.Objective(prefixes=(4, D), weights=(0.5, 2.0)), oracle, *drawn())


def test_alignment_and_uniformity_are_distances_of_torch(open_clip):
    """`pdist` has each pair of one modality once, `cdist` all between two."""

    def spread(distances):
        return distances.square().mul(-2).exp().mean().log()

    def oracle(image, text, scale, bias):
        within = (spread(torch.pdist(image)) + spread(torch.pdist(text))) / 2
        between = spread(torch.cdist(image, text)[~torch.eye(B, dtype=torch.bool)])
        near = torch.nn.functional.pairwise_distance(image, text, eps=0).square().mean()
        return open_clip.ClipLoss()(image, text, scale) + 0.7 * near + within + 0.3 * between

    assert_equal(alignment_uniformity.Objective(align=0.7, cross=0.3), oracle, *drawn())


def test_cwcl_is_the_cross_entropy_of_soft_labels():
    cross_entropy = torch.nn.functional.cross_entropy

    def oracle(image, text, scale, bias):
        image = image.detach()
        logits, closeness = scale * image @ text.T, (1 + image @ image.T) / 2
        soft = cross_entropy(logits, closeness / closeness.sum(dim=1, keepdim=True))
        return (soft + cross_entropy(logits.T, torch.arange(B))) / 2

    assert_equal(cwcl.Objective(), oracle, *drawn())


def test_what_is_kept_of_the_old_model_is_a_divergence_of_torch(open_clip):
    z, batch = drawn()
    batch["teacher"]["text"] += 0.6 * batch["teacher"]["image"]
    old = [
        torch.nn.functional.normalize(torch.tensor(batch["teacher"][m]), dim=1)
        for m in ("image", "text")
    ]
    kl_div = torch.nn.functional.kl_div

    def oracle(image, text, scale, bias):
        new, was = scale * image @ text.T, 5.0 * old[0] @ old[1].T
        kept = 0
        for now, before in ((new, was), (new.T, was.T)):
            targets = before.log_softmax(dim=1)
            costs = kl_div(now.log_softmax(dim=1), targets, reduction="none", log_target=True)
            known = before.argmax(dim=1) == torch.arange(B)
            assert 0 < known.sum() < B
            kept = kept + costs.sum(dim=1)[known].sum() / B
        return open_clip.ClipLoss()(image, text, scale) + 3.0 * kept / 2

    assert_equal(modx.Objective(alpha=3.0, teacher_scale=5.0), oracle, z, batch)


def views_of(z, batch, seed=0):
    """Views of the texts, of which 1 to K are there, each with a label of its own or another's."""
    rng = np.random.default_rng(seed)
    z["text"] = rng.normal(size=(B, K, D))
    there = rng.random((B, K)) < 0.6
    there[np.arange(B), rng.integers(0, K, B)] = True
    ids = rng.integers(0, 2 * B, (B, K))
    positives = np.where(there, ids, -1)
    labels = {"ids": ids.astype(np.int32), "positives": positives.astype(np.int32)}
    batch["text"] = {"present": there, **labels}
    return torch.tensor(there)


def test_one_to_k_is_supcon_with_the_record_as_label(supcon_of_metric_learning):
    DoNothing = pytest.importorskip("pytorch_metric_learning.reducers").DoNothingReducer
    z, batch = drawn()
    there = views_of(z, batch)
    of_image, of_view = torch.arange(B), there.nonzero()[:, 0]

    def oracle(image, text, scale, bias):
        views = text[there]
        loss = supcon_of_metric_learning(temperature=1 / scale, reducer=DoNothing())

        def losses(of, labels, others, other_labels):
            found = loss(of, labels, ref_emb=others, ref_labels=other_labels.clone())["loss"]
            assert list(found["indices"]) == list(range(len(of)))
            return found["losses"]

        by_image = losses(image, of_image, views, of_view)
        by_view = losses(views, of_view, image, of_image) / there.sum(dim=1)[of_view]
        return (by_image.mean() + by_view.sum() / B) / 2

    assert_equal(one_to_k.Objective(), oracle, z, batch)


def labelled():
    """Queries and labels; where each label is first, and whose right answer it is (B, C)."""
    z, batch = drawn()
    there = np.flatnonzero(views_of(z, batch))
    ids, first = np.unique(batch["text"]["ids"].ravel()[there], return_index=True)
    assert len(ids) < len(there)
    right = (batch["text"]["positives"][:, :, None] == ids).any(axis=1)
    assert right.sum(axis=1).min() == 1 and right.sum(axis=1).max() == K
    return z, batch, torch.tensor(there[first]), torch.tensor(right)


def test_dexml_is_info_nce_of_every_right_label_among_the_wrong_ones():
    InfoNCE = pytest.importorskip("info_nce", reason=INSTALL).InfoNCE
    z, batch, first, right = labelled()

    def oracle(image, text, scale, bias):
        info_nce, labels = InfoNCE(temperature=1 / scale), text.reshape(-1, D)[first]
        return sum(
            info_nce(query.expand(int(own.sum()), D), labels[own], labels[~own])
            for query, own in zip(image, right)
        ) / len(image)

    assert_equal(dexml.Objective(pairs=(("image", "text"),)), oracle, z, batch)


def test_dexml_with_the_usual_softmax_is_supcon(supcon_of_metric_learning):
    z, batch, first, right = labelled()

    def oracle(image, text, scale, bias):
        labels = text.reshape(-1, D)[first]
        pairs = *right.nonzero(as_tuple=True), *(~right).nonzero(as_tuple=True)
        loss = supcon_of_metric_learning(temperature=1 / scale)
        return loss(image, indices_tuple=pairs, ref_emb=labels)

    assert_equal(dexml.Objective(pairs=(("image", "text"),), loss="softmax"), oracle, z, batch)
