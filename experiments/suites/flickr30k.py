"""Flickr30k: retrieval between the 1,000 pictures of Karpathy's test split and their captions.

Layout:    PATH/dataset_flickr30k.json, Karpathy's, and PATH/flickr30k-images/1007129816.jpg.
Protocol:  Karpathy and Fei-Fei 2015 (arXiv:1412.2306): any of a picture's five captions answers it,
           every caption is a query.
Command:   mmcl eval RUN --suite flickr30k:PATH
"""

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    config = ConfigDict()
    config.source = dict(
        name="karpathy",
        file=f"{path}/dataset_flickr30k.json",
        folder=f"{path}/flickr30k-images",
    )
    config.splits = ["test"]
    config.evaluators = [dict(name="caption_retrieval", captions=5)]
    return config
