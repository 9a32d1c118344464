"""ImageNetV2 (Recht et al. 2019, arXiv:1902.10811): 10,000 new pictures of ImageNet's classes.

Layout:    PATH/0/*.jpeg to PATH/999/*.jpeg: a folder a class number, as the published sets are
           (`imagenetv2-matched-frequency-format-val` is the one that is mostly reported).
Protocol:  that of `imagenet.py`. Folders are taken by their number, not as words are sorted.
Names:     those that CLIP's authors cleaned, as open_clip 3.3.0 has them, and their 80 templates
           (Radford et al. 2021, arXiv:2103.00020): `imagenet_classes.txt`, in the order of the
           wnids, and `imagenet_templates.txt` beside this file.
           Two names are those of two classes each: see `imagenet.py`.
Command:   mmcl eval RUN --suite imagenet_v2:PATH
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
        folder=dict(test=path),
        classes=[str(number) for number in range(len(lines))],
        class_names=[line.partition(" ")[2] for line in lines],
    )
    config.splits = ["test"]
    config.evaluators = [dict(name="zeroshot", label="class", templates=templates)]
    return config
