"""draft"""

from ml_collections import ConfigDict

ARGS = ("runlocal",)


def get_config(arg: str | None = None) -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 800
    config.batch_size = 192
    config.embed_dim = 128

    config.source = dict(name="emoji", split="train", limit=None)
    config.transforms = dict(
        image=[
            dict(name="image.affine", degrees=12.0, zoom=(0.85, 1.1), shift=0.06),
            dict(name="image.composite", colour=0.2),
            dict(name="image.jitter", brightness=0.2, contrast=0.2, saturation=0.5),
            dict(name="image.sketch", grey=0.3, outline=0.15),
            dict(name="image.resize", size=32),
        ],
        text=[
            dict(name="text.choose", languages=("en",)),
            dict(name="text.drop_words", rate=0.1),
            dict(name="text.tokenize", vocab_size=4096, length=16),
        ],
    )
    config.towers = dict(
        image=dict(name="vit", patch=4, width=128, depth=4, heads=4),
        text=dict(name="text", vocab_size=4096, width=128, depth=2, heads=4),
    )
    config.objective = dict(name="infonce", positives="concept")
    config.optimizer = dict(name="adamw", b2=0.98, weight_decay=0.2, clip_norm=1.0)
    config.schedule = dict(name="warmup_cosine", peak=2e-3, warmup=50)
    config.eval = dict(
        splits=("unseen_artist", "unseen_concept"),
        every=200,
        evaluators=[dict(name="retrieval")],
    )
    config.checkpoint = dict(every=200, keep=2)
    config.log_every = 10
    if arg == "runlocal":
        config.steps = 4
        config.batch_size = 16
        config.source.limit = 32
        config.eval.every = 2
        config.schedule.warmup = 1
    return config
