"""CLIP on nested prefixes of one embedding, so that a short one is a good one.

Paper:     P087, Kusupati et al. 2022 (MRL).
Claim:     shown: with 8 of 128 dimensions left, an unseen artist's drawings are found by caption
           more often (recall@10) than after training with CLIP's loss.
Parent:    clip_emoji.py; only the objective differs.
Command:   mmcl train experiments/matryoshka_emoji.py
           `:pod` is clip_b16.py with this objective; `:runlocal` takes four small steps.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      not measured by itself; a run is the quickstart's with a third of its steps.
Metric:    unseen_artist text_to_image recall@10 of 8 dimensions .137 ± .008, clip_emoji.py .047 ±
           .003; of 16 .206 against .104; of all 128 it costs some: .314 against .359. Seeds 0 to 2,
           see RESULTS.md.
"""

from clip_b16 import get_config as clip_b16
from clip_emoji import get_config as parent
from ml_collections import ConfigDict

ARGS = ("runlocal", "pod")


def get_config(arg: str | None = None) -> ConfigDict:
    if arg == "pod":
        config = clip_b16()
        config.objective = dict(name="matryoshka", prefixes=[32, 64, 128, 256, 512])
        return config
    config = parent(arg)
    config.objective = dict(name="matryoshka", prefixes=[8, 16, 32, 64, 128], init_scale=20.0)
    return config
