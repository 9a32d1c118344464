"""ImageNet-Sketch (Wang et al. 2019, arXiv:1905.13549): 50,889 drawings of ImageNet's classes.

Layout:    PATH/n01440764/*.JPEG: a folder a class, which the published archive has in `sketch`.
Protocol:  that of `imagenet.py`.
Names:     those that CLIP's authors cleaned, as open_clip 3.3.0 has them, and their 80 templates
           (Radford et al. 2021, arXiv:2103.00020): `imagenet_classes.txt`, in the order of the
           wnids, and `imagenet_templates.txt` beside this file.
           Two names are those of two classes each: see `imagenet.py`.
Command:   mmcl eval RUN --suite imagenet_sketch:PATH
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
        classes=[line.partition(" ")[0] for line in lines],
        class_names=[line.partition(" ")[2] for line in lines],
    )
    config.splits = ["test"]
    config.evaluators = [dict(name="zeroshot", label="class", templates=templates)]
    return config
