"""What `mmcl bench step --against open_clip` trains where no experiment is named: ViT-S/16.

The sizes are those of open_clip's `ViT-S-16`: pictures of 224 pixels in patches of 16, texts of 77
tokens of a vocabulary of 49,408, twelve blocks 384 wide in each tower. The data is made up. What is
cheap to compute again is not kept: on a CPU a step lasts as long, and takes half of the memory.
"""

from typing import Any

TOWER = {"width": 384, "depth": 12, "heads": 6, "remat": "dots", "scan": True}


def config() -> dict[str, Any]:
    """The experiment, in the form that `mmcl.config.load` gives."""
    return {
        "steps": 1000,
        "batch_size": 64,
        "embed_dim": 384,
        "source": {"name": "synthetic", "pictures": {"image": 224}, "texts": {"text": 16}},
        "transforms": {
            "image": [{"name": "image.resize", "size": 224}],
            "text": [{"name": "tokens.utf8", "vocab_size": 49408, "length": 77}],
        },
        "towers": {
            "image": {"name": "vit", "patch": 16, **TOWER},
            "text": {"name": "text", "vocab_size": 49408, **TOWER},
        },
        "objective": {"name": "infonce"},
        "optimizer": {"name": "adamw", "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2},
        "schedule": {"name": "warmup_cosine", "peak": 5e-4, "warmup": 100},
        "eval": {"splits": []},
    }
