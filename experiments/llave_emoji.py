"""CLIP with negatives that count the more the harder they are.

Paper:     P264, Lan et al. 2025 (LLaVE): hardness-weighted InfoNCE, without its language model.
Claim:     an unseen artist's drawings are found by caption more often (recall@10) than after
           training with CLIP's loss.
Parent:    clip_emoji.py; only the objective differs.
Command:   mmcl train experiments/llave_emoji.py
           `:pod` is clip_b16.py with this objective; `:runlocal` takes four small steps.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      not measured by itself; a run is the quickstart's with a third of its steps.
Metric:    not compared over seeds yet.
"""

from clip_b16 import get_config as clip_b16
from clip_emoji import get_config as parent
from ml_collections import ConfigDict

ARGS = ("runlocal", "pod")


def get_config(arg: str | None = None) -> ConfigDict:
    objective = dict(name="hardness", alpha=9.0, init_scale=20.0)
    if arg == "pod":
        config = clip_b16()
        config.objective = objective
        return config
    config = parent(arg)
    config.objective = objective
    return config
