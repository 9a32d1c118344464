"""Pictures learn from captions with known vectors: each is pulled to all, by how alike they are.

Paper:     P002, Srinivasa et al. 2023 (CWCL). Their locked tower sees pictures, and texts or speech
           learn; here the words' pretrained vectors are the locked side, and pictures learn.
Claim:     unseen families of emoji are sorted into the nine groups by name (zero-shot, top-1) more
           often than after training with one positive a record (`:clip`).
Parent:    clip_emoji.py; captions are WordLlama's vectors as they are, no network behind them; the
           objective differs.
Command:   mmcl train experiments/cwcl_emoji.py
           `:clip` has CLIP's loss in its place, with the same locked vectors. `:runlocal` takes
           four small steps.
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
    config.embed_dim = 256
    config.towers.text = dict(name="precomputed")
    config.objective = dict(name="cwcl", locked="text", init_scale=20.0)
    if arg == "clip":
        config.objective = dict(name="infonce", init_scale=20.0)
    return config
