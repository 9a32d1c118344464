"""CLIP with a temperature that follows how well pairs agree already.

Paper:     P223, Huang et al. 2023 (MACL).
Claim:     an unseen artist's drawings are found by caption more often (recall@10) than after
           training with CLIP's learned temperature.
Parent:    clip_emoji.py; only the objective differs.
Command:   mmcl train experiments/macl_emoji.py
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
    objective = dict(name="macl", temperature=0.05, alpha=0.5)
    if arg == "pod":
        config = clip_b16()
        config.objective = objective
        return config
    config = parent(arg)
    config.objective = objective
    return config
