"""What the same losses cost in open_clip, the library that most people come from.

Only a process that measures it loads torch, and open_clip's own file of losses by its path: the
rest of that package asks for much more than torch.
"""

import importlib
import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mmcl.bench.cases import BIAS, SCALE
from pallas_kernels.pair_reduce.benchmark import STRIP, Cost, best, peak_mib

LOSSES = {"clip": "ClipLoss", "siglip": "SigLipLoss"}
LOSSES |= {"infonce": LOSSES["clip"], "sigmoid": LOSSES["siglip"]}
INSTALL = "pip install torch && pip install --no-deps open_clip_torch"


def missing() -> list[str]:
    """Which of the packages are not installed."""
    return [name for name in ("torch", "open_clip") if importlib.util.find_spec(name) is None]


def run(name: str, batch: int, dim: int, repeats: int, dtype: str = "float32") -> Cost:
    """Measure open_clip's loss on unit embeddings, on the CPU."""
    torch = importlib.import_module("torch")
    counter = importlib.import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
    value = loss(name)
    rng = np.random.default_rng(0)
    image, text = (
        torch.from_numpy(z / np.linalg.norm(z, axis=1, keepdims=True))
        .to(getattr(torch, dtype))
        .requires_grad_()
        for z in rng.standard_normal((2, batch, dim), dtype=np.float32)
    )
    first = [math.log(SCALE), BIAS] if LOSSES[name] == "SigLipLoss" else [math.log(SCALE)]
    params = [torch.tensor(x, requires_grad=True) for x in first]

    def call() -> Any:
        out = value(image, text, *params)
        out.backward()
        gradients = [x.grad for x in (image, text, *params)]
        for x in (image, text, *params):
            x.grad = None
        return out, gradients

    a, b = image.detach(), text.detach()
    strips = a.split(max(1, STRIP // (4 * batch)))
    room = torch.empty(len(strips[0]), batch, dtype=a.dtype)

    def multiply() -> None:
        for strip in strips:
            torch.mm(strip, b.T, out=room[: len(strip)])

    with counter:
        call()
    spent, one = best([call, multiply], repeats)
    products = counter.get_total_flops() / (2 * batch * batch * dim)
    return Cost(*spent, peak_mib(call), None, one.cpu_s, products)


def loss(name: str) -> Any:
    """`f(image_BxD, text_BxD, log scale[, bias])` -> value, all tensors."""
    value = getattr(_losses(), LOSSES[name])()
    return lambda image, text, log_scale, *bias: value(image, text, log_scale.exp(), *bias)


def _losses() -> ModuleType:
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "loss.py"
    spec = importlib.util.spec_from_file_location("open_clip_losses", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
