"""ImageNet (ILSVRC 2012): zero-shot classification of the 50,000 pictures of its validation set.

Layout:    PATH/val/n01440764/ILSVRC2012_val_00000293.JPEG: a folder a class, as torchvision has it.
Protocol:  the nearest of 1,000 classes, each the mean direction of 80 prompts. `count` says how
           many pictures there were.
Names:     those that CLIP's authors cleaned, as open_clip 3.3.0 has them, and their 80 templates
           (Radford et al. 2021, arXiv:2103.00020): `imagenet_classes.txt`, in the order of the
           wnids, and `imagenet_templates.txt` beside this file.
           Two names are those of two classes each there (missile, sunglasses). Such classes tie,
           and a tie counts as wrong here: the 200 pictures of these four are never right at top-1,
           0.4 points of which an argmax gives up to half.
Command:   mmcl eval RUN --suite imagenet:PATH
"""

from pathlib import Path

from ml_collections import ConfigDict

HERE = Path(__file__).parent


def get_config(path: str) -> ConfigDict:
    lines = (HERE / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    templates = (HERE / "imagenet_templates.txt").read_text(encoding="utf-8").splitlines()
    config = ConfigDict()
    config.source = dict(
        name="image_folder",
        folder=path,
        classes=[line.partition(" ")[0] for line in lines],
        class_names=[line.partition(" ")[2] for line in lines],
    )
    config.splits = ["val"]
    config.evaluators = [dict(name="zeroshot", label="class", templates=templates)]
    return config
