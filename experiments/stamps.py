"""Stamps: pictures, captions in seven languages and human voices share one space.

Paper:     Radford et al. 2021 (CLIP), symmetric softmax, between captions and pictures and between
           captions and voices; stamps of one caption are positives of each other (Khosla et al.
           2020, SupCon).
Claim:     on 783 stamps alone, with nothing pretrained, captions in seven languages find pictures
           of stamps that were never seen, and voices the captions that they read: recall@10 of .34
           and .18, against .07 by chance.
Data:      `stamps`: Tux Paint's 783 stamps to train on and 167 others to judge by.
Command:   mmcl data get stamps
           mmcl train experiments/stamps.py
           `:runlocal` takes four small steps on the quickstart's emoji, which have no voices.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      444 CPU-seconds, pictures and sounds decoded beforehand; the whole command was not
           measured.
Metric:    `val`, recall@10 of text_to_image .338, image_to_text .359, speech_to_text .185,
           text_to_speech .196, chance .07; image and speech, which are never contrasted, .148 and
           .117, chance .08. Text_to_image by English captions alone .252, by German ones .288. One
           run, seed 0.
"""

from ml_collections import ConfigDict

ARGS = ("runlocal",)

LANGUAGES = ["en", "fr", "es", "de", "ru", "ro", "bg"]
SPOKEN = ["fr", "es", "ru", "ro", "bg", "el", "da", "lt", "nl", "en", "pt-BR", "ml"]


def get_config(arg: str | None = None) -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 300
    config.batch_size = 96
    config.embed_dim = 128

    config.source = dict(name="stamps", split="train", limit=None)
    config.transforms = dict(
        image=[
            dict(name="image.decode"),
            dict(name="crop.pad"),
            dict(name="crop.random_resized", size=40, scale=[0.5, 1.0]),
            dict(name="augment.flip"),
            dict(name="image.jitter", brightness=0.2, contrast=0.3, saturation=0.3),
            dict(name="image.sketch", grey=0.15, outline=0.05),
            dict(name="image.resize", size=32),
        ],
        text=[
            dict(name="captions.each_language", languages=LANGUAGES),
            dict(
                name="views.each",
                most=len(LANGUAGES),
                transforms=[dict(name="words.hashed", length=16)],
            ),
        ],
        speech=[
            dict(name="captions.each_language", languages=SPOKEN),
            dict(name="views.choose"),
            dict(name="audio.decode", rate=16000),
            dict(name="audio.clip", seconds=2.56, at="first"),
            dict(name="audio.log_mel", mels=40, fft=512, hop=320, frames=128, floor=1e-6),
            dict(name="audio.normalise", mean=-5.8, std=3.6),
            dict(name="audio.mask", frequency=8, time=12),
        ],
    )
    config.towers = dict(
        image=dict(name="edge_convnet", widths=[96, 192], depth=1),
        text=dict(name="bag", buckets=8192),
        speech=dict(name="frames", widths=[96, 192], depth=1),
    )
    config.objective = dict(
        name="supcon",
        positives="concept",
        pairs=[["image", "text"], ["speech", "text"]],
        init_scale=20.0,
    )
    config.optimizer = dict(
        name="adamw",
        b2=0.98,
        weight_decay=1.0,
        decay="(kernel|embedding)$",
        rates=[["text", 3.0]],
        clip_norm=1.0,
    )
    config.schedule = dict(name="warmup_cosine", peak=2e-3, warmup=30)
    config.ema = 0.98

    config.eval = dict(
        splits=["val"],
        evaluators=[
            dict(name="retrieval"),
            dict(name="mean_rank_variance", languages=LANGUAGES),
            dict(name="zeroshot", label="category"),
            dict(name="geometry"),
        ],
        every=100,
    )
    config.checkpoint = dict(every=100, keep=2)
    config.log_every = 10
    config.next_steps = [
        [
            "Ask the model in any of its languages",
            'mmcl search runs/stamps --text "un oiseau rouge"',
            "prints the nearest pictures of both splits and saves a contact sheet",
        ],
        [
            "Ask for a voice",
            'mmcl search runs/stamps --from text --to speech --text "красная птица"',
            "the nearest clips; the contact sheet shows their spectrograms",
        ],
        [
            "Bind pictures and voices directly",
            "mmcl train experiments/stamps.py --workdir runs/stamps-bound --config.objective.pairs="
            '\'[["image","text"],["speech","text"],["image","speech"]]\'',
            "here they meet by way of the captions alone",
        ],
    ]

    if (
        arg == "runlocal"
    ):  # on the emoji, which are pixels, have names in three languages, no voices
        config.steps = 4
        config.batch_size = 16
        config.source = dict(name="emoji", split="train", limit=32)
        config.transforms.image[:2] = [dict(name="image.composite")]
        languages = config.transforms.text[0]["languages"] = ["en", "de", "fr"]
        config.transforms.text[1]["most"] = len(languages)
        del config.transforms["speech"], config.towers["speech"]
        config.objective.pairs = [["image", "text"]]
        config.schedule.warmup = 1
        config.eval = dict(
            splits=["unseen_artist"],
            evaluators=[
                dict(name="retrieval"),
                dict(name="mean_rank_variance", languages=languages),
                dict(name="zeroshot", label="group"),
                dict(name="geometry"),
            ],
            every=2,
        )
    return config
