"""COCO: retrieval between the 5,000 pictures of Karpathy's test split and their 25,000 captions.

Layout:    PATH/dataset_coco.json, Karpathy's, and PATH/val2014/COCO_val2014_000000391895.jpg, which
           holds the pictures of `test`, `val` and `restval`; which is which the JSON says.
Protocol:  Karpathy and Fei-Fei 2015 (arXiv:1412.2306): recall@k over the whole split, not the mean
           of five folds of 1,000; any of a picture's own captions answers it, every caption is a
           query; of a picture with more than five captions the first five count.
Command:   mmcl eval RUN --suite coco:PATH
"""

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    config = ConfigDict()
    config.source = dict(name="karpathy", file=f"{path}/dataset_coco.json")
    config.splits = ["test"]
    config.evaluators = [dict(name="caption_retrieval", captions=5)]
    return config
