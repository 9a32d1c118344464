"""CLIP ViT-B/16: pictures and captions from the web, symmetric softmax over 32,768 pairs.

Paper:     Radford et al. 2021 (CLIP, arXiv:2103.00020): its towers, optimiser, schedule, batch and
           number of pairs seen (32 epochs of 400 million). Decided here: the crop's scale, since
           the paper says only that a random square is cut; the first values of the towers, which
           are mmcl's; pixels from -1 to 1, which the first layer scales as it likes.
Claim:     the published recipe, over the global batch on any mesh, without a matrix of all pairs.
Data:      pictures and captions in WebDataset tars, as img2dataset writes them; `val` is judged.
Command:   mmcl train experiments/clip_b16.py \
             --config.source.files.train='gs://bucket/train/{00000..41455}.tar' \
             --config.source.files.val='gs://bucket/val/{00000..00003}.tar' \
             --config.transforms.text.2.file=bpe_simple_vocab_16e6.txt.gz
           with the vocabulary that CLIP and open_clip ship, at an absolute path. ArrayRecord as
           `mmcl data convert` writes it: --config.source.name=arrayrecord. `:synthetic` has the
           same model, batch and steps on made-up records, to plan or time; `:runlocal` takes four
           small steps on the quickstart's emoji.
Hardware:  a pod; `mmcl plan` says which one holds it.
Time:      not measured.
Metric:    not measured.
"""

from ml_collections import ConfigDict

ARGS = ("runlocal", "synthetic")


def get_config(arg: str | None = None) -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 390_625  # 12.8 billion pairs
    config.batch_size = 32_768
    config.embed_dim = 512
    config.precision = "bfloat16"

    files = dict(train="data/train/*.tar", val="data/val/*.tar")
    config.source = dict(name="webdataset", files=files, split="train", limit=None)
    config.transforms = dict(
        image=[
            dict(name="crop.random_resized", size=224, scale=[0.9, 1.0]),
            dict(name="image.resize", size=224),
        ],
        text=[
            dict(name="text.choose"),
            dict(name="canonical.clip"),
            dict(
                name="tokens.clip_bpe",
                file="bpe_simple_vocab_16e6.txt.gz",
                vocab_size=49_408,
                length=77,
            ),
        ],
    )
    block = dict(activation="quick_gelu", epsilon=1e-5, remat="none", scan=False)
    config.towers = dict(
        image=dict(
            name="vit",
            patch=16,
            width=768,
            depth=12,
            heads=12,
            pool="cls",
            patch_bias=False,
            pre_norm=True,
            **block,
        ),
        text=dict(
            name="text",
            vocab_size=49_408,
            width=512,
            depth=12,
            heads=8,
            causal=True,
            pool="eot",
            **block,
        ),
    )
    config.objective = dict(name="infonce", init_scale=1 / 0.07, max_scale=100.0)
    config.optimizer = dict(
        name="adamw",
        b2=0.98,
        eps=1e-6,
        weight_decay=0.2,
        decay="(kernel|embedding|positions)$",  # all but gains, biases and the class token
    )
    config.schedule = dict(name="warmup_cosine", peak=5e-4, warmup=2000)
    config.mesh = dict(slice=1, data=-1, fsdp=1)

    config.eval = dict(splits=["val"], evaluators=[dict(name="retrieval")], every=10_000)
    config.checkpoint = dict(every=1000, keep=2)
    config.log_every = 100
    config.threads = 16

    if arg == "synthetic":
        config.source = dict(name="synthetic", pictures=dict(image=256), texts=dict(text=12))
        config.transforms.text = [dict(name="tokens.utf8", vocab_size=49_408, length=77)]
        config.eval.splits = []
    elif arg == "runlocal":
        config.steps = 4
        config.batch_size = 16
        config.embed_dim = 32
        config.source = dict(name="emoji", split="train", limit=32)
        config.transforms = dict(
            image=[
                dict(name="image.composite"),
                dict(name="crop.random_resized", size=32, scale=[0.9, 1.0]),
                dict(name="image.resize", size=32),
            ],
            text=[
                dict(name="captions.describe"),
                dict(name="tokens.utf8", vocab_size=512, length=32),
            ],
        )
        config.towers.text.vocab_size = 512
        for tower in config.towers.values():
            tower.update(width=32, depth=2, heads=2)
        config.schedule.warmup = 1
        config.eval.splits = ["unseen_artist"]
        config.eval.every = 2
        config.threads = 2
    return config
