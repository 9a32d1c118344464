"""Quickstart: pictures and names of emoji become a searchable model in minutes, on two cores.

Paper:     Radford et al. 2021 (CLIP), symmetric softmax; several pictures of one emoji are all
           positives of its caption (Khosla et al. 2020, SupCon). Captions are read as means of
           pretrained subword vectors (WordLlama, Miller 2024); all else begins from nothing.
Claim:     an artist's black and white drawings are found by caption although no such drawing was
           trained on: recall@10 of .6, against .008 by chance; and drawings of families of emoji
           that were never seen, whose words the vectors know: above .3, against .05.
Data:      1,722 emoji as OpenMoji (in colour, and as line drawings) and Twemoji draw them; a
           caption is the English name and keywords ("dog face: animal, pet, puppy"). Judged on
           pictures by an artist who was never seen (`unseen_artist`: Noto Emoji, black on white)
           and on families of emoji that were never seen (`unseen_concept`).
Command:   mmcl train experiments/quickstart.py
           `:from_scratch` has a text transformer over subwords learnt from the captions in place of
           the pretrained vectors, and 900 steps. `:runlocal` takes four small steps, to see that
           everything works.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      178 s and 305 CPU-seconds for the whole command, drawing the pictures included; 0.9 GiB.
Metric:    unseen_artist (1,217 captions and pictures) text_to_image recall@1 .272, recall@10 .635;
           image_to_text .280, .619. unseen_concept (192 captions, 384 pictures) text_to_image
           recall@10 .380, image_to_text .378, chance .05. Zero-shot over 9 groups .306 and .273,
           chance .11. Seed 0; with seed 1 text_to_image recall@10 is .639 and .312.
           `:from_scratch` .588 and .219 (seed 1 .605 and .260), 221 s and 307 CPU-seconds.
"""

from ml_collections import ConfigDict

ARGS = ("from_scratch", "runlocal")


def get_config(arg: str | None = None) -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 600
    config.batch_size = 128
    config.embed_dim = 128

    config.source = dict(name="emoji", split="train", limit=None)
    config.transforms = dict(
        image=[
            dict(name="image.affine", degrees=15.0, zoom=[0.85, 1.15], stretch=1.1, shift=0.06),
            dict(name="image.composite", colour=0.2),
            dict(name="image.jitter", brightness=0.2, contrast=0.3, saturation=0.5),
            dict(name="image.sketch", grey=0.3, outline=0.1),
            dict(name="image.resize", size=32),
        ],
        text=[
            dict(name="captions.describe", keep=0.7, nameless=0.8, categories=0.1),
            dict(name="wordllama.embed"),
        ],
    )
    config.towers = dict(
        image=dict(name="edge_convnet", widths=[96, 192], depth=1),
        text=dict(name="mlp", width=1024),
    )
    config.objective = dict(name="supcon", positives="concept", init_scale=20.0)
    config.optimizer = dict(name="adamw", b2=0.98, weight_decay=0.1, clip_norm=1.0)
    config.schedule = dict(name="warmup_cosine", peak=1.5e-3, warmup=30)
    config.ema = 0.99

    config.eval = dict(
        splits=["unseen_artist", "unseen_concept"],
        evaluators=[
            dict(name="retrieval"),
            dict(name="zeroshot", label="group", templates=["{}", "a picture of {}"]),
            dict(name="geometry"),
        ],
        every=200,
    )
    config.checkpoint = dict(every=200, keep=2)
    config.log_every = 10
    config.next_steps = [
        [
            "Ask the model",
            'mmcl search runs/quickstart --text "a sad animal"',
            "prints the nearest pictures of all splits and saves a contact sheet",
        ],
        [
            "Judge it again",
            "mmcl eval runs/quickstart --split unseen_both",
            "an unseen artist's pictures of unseen families, the hardest of the splits",
        ],
        [
            "Change one thing",
            "mmcl train experiments/siglip_emoji.py",
            "the same data and towers with the pairwise sigmoid loss; compare the two reports",
        ],
        [
            "Make it yours",
            "cp experiments/quickstart.py mine.py && mmcl train mine.py --config.steps=3000",
            "an experiment is one file; every key of it can be set on the command line",
        ],
    ]

    if arg == "from_scratch":
        config.steps = 900
        config.transforms.text = [
            dict(name="captions.describe", keep=0.7, nameless=0.8, categories=0.1),
            dict(name="text.tokenize", vocab_size=4096, length=32),
        ]
        config.towers.text = dict(name="text", vocab_size=4096, width=128, depth=1, heads=4)
        config.eval.every = config.checkpoint.every = 300
    elif arg == "runlocal":
        config.steps = 4
        config.batch_size = 16
        config.source.limit = 32
        config.schedule.warmup = 1
        config.eval.every = 2
    return config
