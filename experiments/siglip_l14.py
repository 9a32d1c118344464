"""SigLIP with towers of size L and patches of 14 pixels.

Paper:     Zhai et al. 2023 (SigLIP, arXiv:2303.15343); its large model is L/16, and patches of 14
           pixels are those of CLIP's L/14 (Radford et al. 2021, arXiv:2103.00020).
Claim:     the recipe of siglip_b16.py with larger towers.
Parent:    siglip_b16.py; width 1,024, 24 blocks, 16 heads in both towers, 256 patches a picture,
           embeddings of 1,024; parameters are shared out over 16 devices, and all but the products
           with them is computed again in the backward pass.
Data:      pictures and captions in WebDataset tars, as img2dataset writes them; `val` is judged.
Command:   mmcl train experiments/siglip_l14.py \
             --config.source.files.train='gs://bucket/train/{00000..41455}.tar' \
             --config.source.files.val='gs://bucket/val/{00000..00003}.tar' \
             --config.transforms.text.2.file=sentencepiece.model
           as its parent; `:synthetic` and `:runlocal` too.
Hardware:  a pod of a multiple of 16 devices; `mmcl plan` says which one holds it (v5e:16x16 does
           where `remat` is "full").
Time:      not measured.
Metric:    not measured.
"""

from ml_collections import ConfigDict
from siglip_b16 import get_config as parent

ARGS = ("runlocal", "synthetic")


def get_config(arg: str | None = None) -> ConfigDict:
    config = parent(arg)
    if arg == "runlocal":
        config.transforms.image[1]["size"] = 28
        config.towers.image.patch = 14
        return config
    config.embed_dim = 1024
    config.towers.image.patch = 14
    for tower in config.towers.values():
        tower.update(width=1024, depth=24, heads=16, remat="dots", scan=True)
    config.mesh.fsdp = 16
    return config
