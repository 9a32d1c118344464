"""SigLIP ViT-B/16: pictures and captions from the web, the pairwise sigmoid over 32,768 pairs.

Paper:     Zhai et al. 2023 (SigLIP, arXiv:2303.15343): its towers, optimiser (beta2 of .95, rate of
           1e-3, weight decay of 1e-4), batch, first values of scale (10) and bias (-10). The decay
           of big_vision is not scaled by the rate and mmcl's is: 1e-4 there is .1 here. Decided
           here: a run of 9 billion pairs with 10,000 steps of warm-up, and the first values of the
           towers, which are mmcl's.
Claim:     the published recipe, over the global batch on any mesh, in one pass over the pairs and
           without a matrix of them.
Parent:    clip_b16.py; attention pooling and last token, texts of 64 SentencePiece tokens, no crop,
           sigmoid, another optimiser.
Data:      pictures and captions in WebDataset tars, as img2dataset writes them; `val` is judged.
Command:   mmcl train experiments/siglip_b16.py \
             --config.source.files.train='gs://bucket/train/{00000..41455}.tar' \
             --config.source.files.val='gs://bucket/val/{00000..00003}.tar' \
             --config.transforms.text.2.file=sentencepiece.model
           with SigLIP's vocabulary of 32,000 pieces, at an absolute path. ArrayRecord as
           `mmcl data convert` writes it: --config.source.name=arrayrecord. `:synthetic` has the
           same model, batch and steps on made-up records, to plan or time; `:runlocal` takes four
           small steps on the quickstart's emoji.
Hardware:  a pod; `mmcl plan` says which one holds it.
Time:      not measured.
Metric:    not measured.
"""

from clip_b16 import get_config as parent
from ml_collections import ConfigDict

ARGS = ("runlocal", "synthetic")


def get_config(arg: str | None = None) -> ConfigDict:
    config = parent(arg)
    config.objective = dict(name="sigmoid", init_scale=10.0, init_bias=-10.0)
    config.optimizer = dict(name="adamw", b2=0.95, weight_decay=0.1, clip_norm=1.0)
    config.schedule.peak = 1e-3

    vocab_size = 512 if arg == "runlocal" else 32_000
    block = dict(width=768, depth=12, heads=12, remat="none", scan=False)
    config.towers = dict(
        image=dict(name="vit", patch=16, pool="map", projection="none", **block),
        text=dict(
            name="text",
            vocab_size=vocab_size,
            attend_padding=True,
            pool="last",
            projection="affine",
            **block,
        ),
    )
    if arg == "runlocal":
        for tower in config.towers.values():
            tower.update(width=32, depth=2, heads=2)
        config.transforms.image = [
            dict(name="image.composite"),
            dict(name="image.resize", size=32),
        ]
        config.transforms.text = [
            dict(name="captions.describe"),
            dict(name="canonical.siglip_transformers"),
            dict(name="tokens.utf8", vocab_size=vocab_size, length=32, pad=1),
        ]
        return config

    config.steps = 274_658  # 9 billion pairs
    config.embed_dim = 768
    config.schedule.warmup = 10_000
    config.transforms.image = [dict(name="image.resize", size=224)]
    tokens = dict(vocab_size=vocab_size, length=64, pad=1)
    if arg == "synthetic":
        config.transforms.text = [dict(name="tokens.utf8", **tokens)]
    else:
        config.transforms.text = [
            dict(name="text.choose"),
            dict(name="canonical.siglip_transformers"),
            dict(name="tokens.sentencepiece", file="sentencepiece.model", **tokens),
        ]
    return config
