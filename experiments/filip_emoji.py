"""Words look for their part of a picture: similarity token by token.

Paper:     P139, Yao et al. 2021 (FILIP).
Claim:     an unseen artist's drawings are found by caption more often (recall@10) than after
           training with one vector a picture and a caption (`:clip`).
Parent:    clip_emoji.py; captions are bags of words whose vectors are learnt, pictures give a
           vector a place; the objective and how it is judged differ.
Command:   mmcl train experiments/filip_emoji.py
           `:clip` has CLIP's loss on the same towers' pooled vectors. `:runlocal` takes four small
           steps.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      not measured by itself; a run is the quickstart's with a third of its steps.
Metric:    not compared over seeds yet.
"""

from clip_emoji import get_config as parent
from ml_collections import ConfigDict

ARGS = ("runlocal", "clip")


def get_config(arg: str | None = None) -> ConfigDict:
    config = parent("runlocal" if arg == "runlocal" else None)
    config.eval.prefixes = []
    config.transforms.text = [
        dict(name="captions.describe", keep=0.7, nameless=0.8),
        dict(name="words.hashed", length=24),
    ]
    config.towers.image.tokens = True
    config.towers.text = dict(name="bag", buckets=8192)
    config.optimizer.rates = [["text", 3.0]]
    if arg == "clip":
        config.eval.evaluators = [dict(name="retrieval")]
        return config
    config.objective = dict(name="filip", init_scale=20.0)
    config.eval.evaluators = [dict(name="late_interaction")]
    return config
