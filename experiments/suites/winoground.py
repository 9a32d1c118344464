"""Winoground (Thrush et al. 2022, arXiv:2204.03162): captions of the same words in another order.

Layout:    PATH/examples.jsonl with `image_0`, `image_1`, `caption_0`, `caption_1` (`image_0` is the
           name of a file, without its ending where that is .png), and PATH/images.
Protocol:  text, image and group score of the 400 pairs; other sets of pairs can be written so.
Command:   mmcl eval RUN --suite winoground:PATH
"""

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    config = ConfigDict()
    config.source = dict(name="winoground", file=f"{path}/examples.jsonl")
    config.splits = ["test"]
    config.evaluators = [dict(name="composition", pair="pair")]
    return config
