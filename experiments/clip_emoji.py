"""The quickstart with the plain loss of CLIP: what the other objectives are compared with.

Paper:     Radford et al. 2021 (CLIP), symmetric softmax with one positive a record.
Claim:     none; a baseline. A third as long as the quickstart, so that three seeds of it and of
           another experiment take some minutes.
Parent:    quickstart.py; the objective does not know that several pictures show one emoji; half
           as wide a picture tower, 200 steps, one evaluation at the end.
Command:   mmcl train experiments/clip_emoji.py
           `:runlocal` takes four small steps.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      not measured by itself; a run is the quickstart's with a third of its steps.
Metric:    unseen_artist text_to_image recall@10 .359 ± .006, image_to_text .328 ± .007 (chance
           .008); unseen_concept text_to_image .328 ± .014 (chance .05); zero-shot over 9 groups
           .337 ± .009; seeds 0 to 2.
"""

from ml_collections import ConfigDict
from quickstart import get_config as parent

ARGS = ("runlocal",)


def get_config(arg: str | None = None) -> ConfigDict:
    config = parent(arg)
    config.objective = dict(name="infonce", init_scale=20.0)
    config.eval.prefixes = [8, 16]
    config.next_steps = []
    if arg is None:
        config.steps = 200
        config.towers.image.widths = [48, 96]
        config.eval.every = config.checkpoint.every = None
        config.eval.evaluators = [
            dict(name="retrieval"),
            dict(name="zeroshot", label="group", templates=["{}", "a picture of {}"]),
            dict(name="geometry"),
        ]
    return config
