"""draft"""

from ml_collections import ConfigDict

ARGS = ("runlocal",)


def get_config(arg: str | None = None) -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 1500
    config.batch_size = 128
    config.embed_dim = 128

    config.source = dict(name="emoji", split="train", limit=None)
    config.transforms = dict(
        image=[
            dict(name="image.affine", degrees=15.0, zoom=(0.85, 1.15), stretch=1.1, shift=0.06),
            dict(name="image.composite", colour=0.2),
            dict(name="image.jitter", brightness=0.2, contrast=0.3, saturation=0.5),
            dict(name="image.sketch", grey=0.3, outline=0.1),
            dict(name="image.resize", size=32),
        ],
        text=[
            dict(name="captions.describe", languages=("en",), keep=0.5, nameless=0.15),
            dict(name="text.tokenize", vocab_size=4096, length=32),
        ],
    )
    config.towers = dict(
        image=dict(name="edge_convnet", widths=(96, 192), depth=1),
        text=dict(name="text", vocab_size=4096, width=128, depth=2, heads=4),
    )
    config.objective = dict(name="infonce", positives="concept", init_scale=20.0)
    config.optimizer = dict(name="adamw", b2=0.98, weight_decay=0.1, clip_norm=1.0)
    config.schedule = dict(name="warmup_cosine", peak=1.5e-3, warmup=30)
    config.ema = None
    config.eval = dict(
        splits=("unseen_artist", "unseen_concept"),
        every=500,
        evaluators=[dict(name="retrieval")],
    )
    config.checkpoint = dict(every=500, keep=2)
    config.log_every = 10
    if arg == "runlocal":
        config.steps = 4
        config.batch_size = 16
        config.source.limit = 32
        config.eval.every = 2
        config.schedule.warmup = 1
    return config
