"""A model that goes on to new data, and remembers how it used to tell the old apart.

Paper:     P071, Ni et al. 2023 (Mod-X).
Claim:     after a second stage on other groups of emoji, an unseen artist's drawings of the first
           stage's groups are still found by caption more often (recall@10) than when the second
           stage has CLIP's loss alone (`:clip`).
Parent:    clip_emoji.py; two stages, of which the second sees other groups of emoji than the first,
           with the towers as they were before it for a teacher.
Command:   mmcl train experiments/modx_emoji.py
           `:clip` has CLIP's loss in the second stage, too. `:runlocal` takes four small steps.
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
    if arg == "runlocal":
        config.source.limit = 300  # among fewer there are none of some groups
    everything = config.source.to_dict()
    first, second = (
        dict(name="kept", source=everything, split="train", field="group", splits=["train"], **part)
        for part in (dict(at_least=None, at_most=4), dict(at_least=5, at_most=None))
    )
    old = dict(name="infonce", init_scale=20.0)
    new = old if arg == "clip" else dict(name="modx", alpha=20.0, init_scale=20.0)
    teacher = None if arg == "clip" else dict(ema=None)
    half = config.steps // 2
    config.source = first
    config.objective = old
    config.stages = [
        dict(steps=half, source=first, objective=old),
        dict(steps=config.steps - half, source=second, objective=new, teacher=teacher),
    ]
    config.eval.evaluators = [dict(name="retrieval", by="group")]
    return config
