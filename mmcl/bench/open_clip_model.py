"""open_clip's model of the sizes of an experiment, and its training step, on the CPU."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.bench import open_clip
from mmcl.bench.cases import BIAS
from mmcl.experiment import Settings


class Sizes(NamedTuple):
    """What both models share."""

    batch: int
    embed_dim: int
    image: list[int]  # height, width
    patch: int
    image_tower: list[int]  # width, depth, heads
    length: int  # of a text
    vocab: int
    text_tower: list[int]
    objective: str
    optimizer: dict[str, Any]
    checkpointed: bool  # whether whole blocks are computed again in the backward pass, its way to
    # make do with the memory that micro-batches of ours need


def sizes(settings: Settings, example: Mapping[str, Any]) -> Sizes:
    """Those of an experiment.

    Args:
        example: a batch of one record, as its towers are given it.

    Raises:
        InputError: open_clip has no such model, loss or optimiser.
    """
    modules = experiment.build_towers(settings).modules
    named = {modality: section["name"] for modality, section in settings.towers.items()}
    if named != {"image": "vit", "text": "text"}:
        said = ", ".join(f"{modality}: {name}" for modality, name in named.items())
        raise InputError(
            f"--against: open_clip is given image: vit and text: text; here is {said}."
        )
    if settings.objective["name"] not in open_clip.LOSSES:
        theirs = ", ".join(open_clip.LOSSES)
        raise InputError(f"--against: open_clip has none of this objective, but {theirs}.")
    if settings.optimizer["name"] != "adamw" or settings.precision != "float32":
        raise InputError("--against: both sides train by adamw in float32; set it so.")
    vit, text = modules["image"], modules["text"]
    optimizer = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0, **settings.optimizer}
    return Sizes(
        settings.batch_size,
        settings.embed_dim,
        list(example["image"]["value"].shape[1:3]),
        vit.patch,
        [vit.width, vit.depth, vit.heads],
        example["text"]["value"].shape[1],
        text.vocab_size,
        [text.width, text.depth, text.heads],
        settings.objective["name"],
        {key: optimizer[key] for key in ("b1", "b2", "eps", "weight_decay")},
        settings.micro_batches > 1 or vit.remat == text.remat == "full",
    )


class Trained(NamedTuple):
    """A model that can be trained further.

    Attributes:
        step: make one step.
        flops: of the products of one, as torch counts them.
    """

    step: Callable[[], None]
    flops: float


def trained(sizes: Sizes, threads: int) -> Trained:
    """Build the model and make its first step.

    As in open_clip's own loop: gradients are cleared, both towers, the loss, backward, AdamW that
    decays matrices only, and the logit scale is kept below 100. Pictures are floats, as its
    transforms give them.
    """
    torch = importlib.import_module("torch")
    counter = importlib.import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = built(sizes)
    loss = open_clip.loss(sizes.objective)
    own = [p for p in (model.logit_scale, model.logit_bias) if p is not None]
    params = list(model.parameters())
    options = sizes.optimizer
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
            {"params": [p for p in params if p.ndim >= 2], "weight_decay": options["weight_decay"]},
        ],
        lr=1e-4,
        betas=(options["b1"], options["b2"]),
        eps=options["eps"],
    )
    images = torch.rand(sizes.batch, 3, *sizes.image) * 2 - 1
    ids = torch.randint(1, sizes.vocab, (sizes.batch, sizes.length))

    def step() -> None:
        optimizer.zero_grad()
        z_image, z_text = model.encode_image(images, True), model.encode_text(ids, True)
        loss(z_image, z_text, *own).backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)

    with counter:
        step()
    return Trained(step, float(counter.get_total_flops()))


def built(sizes: Sizes) -> Any:
    """The model, a torch module."""
    made = _models()
    width, depth, heads = sizes.image_tower
    vision = made.CLIPVisionCfg(
        layers=depth,
        width=width,
        head_width=width // heads,
        patch_size=sizes.patch,
        image_size=tuple(sizes.image),
    )
    width, depth, heads = sizes.text_tower
    text = made.CLIPTextCfg(
        context_length=sizes.length,
        vocab_size=sizes.vocab,
        width=width,
        heads=heads,
        layers=depth,
    )
    bias = BIAS if open_clip.LOSSES[sizes.objective] == "SigLipLoss" else None
    model = made.CLIP(sizes.embed_dim, vision, text, init_logit_bias=bias).train()
    model.set_grad_checkpointing(sizes.checkpointed)
    return model


def _models() -> ModuleType:
    """The file of open_clip's models, without the rest of the package.

    It can load models of timm and transformers, and convolutions of torchvision: none of them is
    needed for these, and what is not installed need not be.
    """
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.submodule_search_locations
    bare = ModuleType("open_clip")
    bare.__path__ = list(package.submodule_search_locations)
    norm = ModuleType("torchvision.ops.misc")
    norm.FrozenBatchNorm2d = None  # type: ignore[attr-defined]
    others: dict[str, Any] = {"open_clip": bare, "timm": None, "transformers": None}
    others |= {name: ModuleType(name) for name in ("torchvision", "torchvision.ops")}
    others |= {norm.__name__: norm}
    before = {name: sys.modules[name] for name in others if name in sys.modules}
    sys.modules.update(others)
    try:
        return importlib.import_module("open_clip.model")
    finally:
        for name in others:
            del sys.modules[name]
        sys.modules.update(before)
