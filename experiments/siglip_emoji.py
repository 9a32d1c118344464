"""The quickstart with the pairwise sigmoid loss.

Paper:     Zhai et al. 2023 (SigLIP). The bias starts at -5 instead of -10: a batch of 128 has one
           positive in 128 pairs, not one in 32,768.
Claim:     the sigmoid loss needs no softmax over the batch and reaches nearly the same in the same
           steps.
Parent:    quickstart.py; only the objective differs.
Command:   mmcl train experiments/siglip_emoji.py
Time:      PENDING
"""

from ml_collections import ConfigDict
from quickstart import get_config as parent

ARGS = ("runlocal",)


def get_config(arg: str | None = None) -> ConfigDict:
    config = parent(arg)
    config.objective = dict(name="sigmoid", positives="concept", init_scale=20.0, init_bias=-5.0)
    config.next_steps = [
        [
            "Compare with the softmax loss",
            "mmcl train experiments/quickstart.py",
            "the parent of this experiment; read the two reports side by side",
        ],
        [
            "Ask the model",
            'mmcl search runs/siglip_emoji --text "a sad animal"',
            "prints the nearest pictures of all splits and saves a contact sheet",
        ],
    ]
    return config
