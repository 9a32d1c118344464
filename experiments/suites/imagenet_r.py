"""ImageNet-R (Hendrycks et al. 2021, arXiv:2006.16241): 30,000 paintings, toys, cartoons and so on.

Layout:    PATH/n01443537/*.jpg: a folder for each of 200 of ImageNet's classes, as published.
Protocol:  the nearest of the 200 classes that are there, as published, and not of all 1,000.
Names:     those that CLIP's authors cleaned, as open_clip 3.3.0 has them, and their 80 templates
           (Radford et al. 2021, arXiv:2103.00020): `imagenet_classes.txt`, in the order of the
           wnids, and `imagenet_templates.txt` beside this file.
Command:   mmcl eval RUN --suite imagenet_r:PATH
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
        only_present=True,
    )
    config.splits = ["test"]
    config.evaluators = [dict(name="zeroshot", label="class", templates=templates)]
    return config
