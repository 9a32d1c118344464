"""The sizes of published trainings: what the pair engine is measured on.

mmcl bench loss --spec clip-vit-b-32
"""

from typing import NamedTuple


class Spec(NamedTuple):
    """One global batch of paired embeddings."""

    batch: int  # B, examples over all devices
    dim: int  # D, of the shared space
    source: str


SPECS = {
    "clip-vit-b-32": Spec(32_768, 512, "Radford et al. 2021 (CLIP), tables 18 and 19"),
    "clip-vit-l-14": Spec(32_768, 768, "Radford et al. 2021 (CLIP), tables 18 and 19"),
    "openclip-vit-l-14": Spec(
        86_016, 768, "Cherti et al. 2022 (OpenCLIP scaling laws), 1,024 GPUs × 84, LAION-2B"
    ),
    "siglip-b-16": Spec(32_768, 768, "Zhai et al. 2023 (SigLIP), batch 32k; width of ViT-B"),
    "siglip-so400m-14": Spec(
        32_768, 1152, "Zhai et al. 2023 (SigLIP), batch 32k; width of ViT-SO400M"
    ),
}
