"""CLIP with alignment and uniformity beside it: the gap between modalities closes.

Paper:     P003, Fahim et al. 2024 (CUA and CUAXU).
Claim:     shown: the gap between the means of pictures and captions of an artist nobody saw is
           smaller than after training with CLIP's loss alone.
Parent:    clip_emoji.py; only the objective differs.
Command:   mmcl train experiments/cua_emoji.py
           `:pod` is clip_b16.py with this objective; `:runlocal` takes four small steps.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      not measured by itself; a run is the quickstart's with a third of its steps.
Metric:    gap of unseen_artist .201 ± .004, clip_emoji.py .282 ± .002; text_to_image recall@10 .385
           against .359 (difference from -.014 to .067); seeds 0 to 2, see RESULTS.md.
"""

from clip_b16 import get_config as clip_b16
from clip_emoji import get_config as parent
from ml_collections import ConfigDict

ARGS = ("runlocal", "pod")


def get_config(arg: str | None = None) -> ConfigDict:
    objective = dict(name="alignment_uniformity", init_scale=20.0)
    if arg == "pod":
        config = clip_b16()
        config.objective = objective
        return config
    config = parent(arg)
    config.objective = objective
    return config
