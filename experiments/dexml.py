"""Keywords of a picture out of all that there are: extreme multi-label retrieval by two towers.

Paper:     P043, Gupta et al. 2024 (DEXML): a picture has several right keywords, and each is told
           from the wrong ones alone, not from the other right ones.
Claim:     the decoupled softmax finds more of a picture's keywords than the softmax that sets its
           right keywords against each other.
Parent:    quickstart.py; keywords one by one in the place of captions, a smaller picture tower, and
           half the steps.
Data:      the same pictures, where they have keywords: the 3,321 English ones of emojilib are the
           pool. A step encodes 8 of them a picture, up to 4 of its own and random others. Judged by
           ranking the whole pool for each picture of an unseen artist (`unseen_artist`: 1,216), and
           of families of emoji that were never seen (`unseen_concept`: 374), as far as training
           knows their keywords.
Command:   mmcl train experiments/dexml.py
           `:softmax` has the softmax over all keywords of the batch, the right ones included,
           `:soft_top_k` the paper's loss for the best 5. `:runlocal` takes four small steps.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      not measured yet.
Metric:    not measured yet.
"""

from ml_collections import ConfigDict
from quickstart import get_config as parent

ARGS = ("softmax", "soft_top_k", "runlocal")


def get_config(arg: str | None = None) -> ConfigDict:
    config = parent("runlocal" if arg == "runlocal" else None)
    emoji = dict(name="emoji", split="train", limit=32 if arg == "runlocal" else None)
    config.source = dict(name="labelled", source=emoji, field="text.keywords", split="train")
    config.transforms = dict(
        image=config.transforms.image,
        label=[
            dict(
                name="labels.sampled",
                count=8,
                most_positives=4,
                longest=32,
                transforms=[dict(name="wordllama.embed")],
            )
        ],
    )
    config.towers = dict(
        image=dict(name="edge_convnet", widths=[64, 128], depth=1),
        label=dict(name="mlp", width=1024),
    )
    loss = arg if arg in ("softmax", "soft_top_k") else "decoupled"
    config.objective = dict(name="dexml", pairs=[["image", "label"]], loss=loss, init_scale=20.0)
    config.eval = dict(
        splits=["unseen_artist", "unseen_concept"], evaluators=[dict(name="label_ranking")]
    )
    config.next_steps = [
        [
            "Compare with the softmax",
            "mmcl compare experiments/dexml.py:softmax experiments/dexml.py --seeds 3",
            "the same data, order and steps with right keywords as each other's negatives",
        ],
        [
            "Ask the model",
            "mmcl search runs/dexml --from label --text animal",
            "prints the pictures nearest to a keyword and saves a contact sheet",
        ],
    ]
    if arg != "runlocal":
        config.steps = 300
        config.checkpoint = dict(every=300, keep=2)
    return config
