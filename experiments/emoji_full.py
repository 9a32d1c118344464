"""Seven artists' emoji: pictures and names become a searchable model from nothing in ten minutes.

Paper:     Radford et al. 2021 (CLIP), symmetric softmax; several pictures of one emoji are all
           positives of its caption (Khosla et al. 2020, SupCon). A caption is read as the mean of
           its words' vectors (Joulin et al. 2016, fastText's input layer). No pretrained part.
Claim:     an artist's colour drawings are found by caption although nothing of his hand was
           trained on: recall@1 of .6, against .001 by chance; and so are, far more often than by
           chance, drawings of families of emoji that were never seen, by the words that their
           captions share with others: recall@10 of .35, against .05.
Data:      `emoji_full`: 1,722 emoji as six artists draw them, 8,636 pictures; a caption is the
           English name and keywords of Unicode CLDR. Judged on a seventh artist (`unseen_artist`:
           EmojiOne 1) and on families of emoji that were never seen (`unseen_concept`).
Parent:    quickstart.py:from_scratch; six artists in place of two, mostly single keywords as
           captions, a bag of words, wider augmentation, stronger weight decay, larger batches.
Command:   mmcl data get emoji-full
           mmcl train experiments/emoji_full.py
           `:runlocal` takes four small steps on the quickstart's emoji, without a download.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      564 s and 982 CPU-seconds for the whole command, with some other work beside it (650 s
           and 1,006 with more of it, and the same metrics); 1.4 GiB.
Metric:    unseen_artist (1,059 captions and pictures) text_to_image recall@1 .624, recall@10 .899;
           image_to_text .638, .910. unseen_concept (192 captions, 1,041 pictures) text_to_image
           recall@10 .359, image_to_text .390, chance .05. Seed 0; seed 1: .641, .907; .645, .912;
           .354, .406.
"""

from ml_collections import ConfigDict

ARGS = ("languages", "runlocal")

LANGUAGES = ["en", "de", "fr", "es", "ru", "el", "ar", "sw"]


def get_config(arg: str | None = None) -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 1200
    config.batch_size = 256
    config.embed_dim = 128

    config.source = dict(name="emoji_full", split="train", limit=None)
    config.transforms = dict(
        image=[
            dict(
                name="image.affine",
                degrees=20.0,
                zoom=[0.75, 1.2],
                stretch=1.2,
                shift=0.08,
                flip=0.5,
            ),
            dict(name="image.composite", colour=0.2),
            dict(name="image.jitter", brightness=0.2, contrast=0.3, saturation=0.5),
            dict(name="image.sketch", grey=0.15, outline=0.05),
            dict(name="image.resize", size=32),
        ],
        text=[
            dict(name="captions.gloss", keep=0.2, nameless=0.9),
            dict(name="words.hashed", length=48),
        ],
    )
    config.towers = dict(
        image=dict(name="edge_convnet", widths=[96, 192], depth=1),
        text=dict(name="bag", buckets=16384),
    )
    config.objective = dict(name="supcon", positives="concept", init_scale=20.0)
    config.optimizer = dict(
        name="adamw",
        b2=0.98,
        weight_decay=2.0,
        decay="(kernel|embedding)$",
        rates=[["text", 3.0]],
        clip_norm=1.0,
    )
    config.schedule = dict(name="warmup_cosine", peak=2e-3, warmup=30)
    config.ema = 0.99

    config.eval = dict(
        splits=["unseen_artist", "unseen_concept"],
        evaluators=[
            dict(name="retrieval", by="artist"),
            dict(name="zeroshot", label="group"),
            dict(name="knn", label="group"),
            dict(name="intra_modal", label="family"),
            dict(name="geometry"),
            dict(name="hubness"),
        ],
        every=400,
    )
    config.checkpoint = dict(every=400, keep=2)
    config.log_every = 10
    config.next_steps = [
        [
            "Ask the model",
            'mmcl search runs/emoji_full --text "sad animal"',
            "prints the nearest pictures and saves a contact sheet; it reads every word alike",
        ],
        [
            "Judge it again",
            "mmcl eval runs/emoji_full --split unseen_both",
            "the unseen artist's pictures of unseen families, the hardest of the splits",
        ],
        [
            "Teach it another language",
            "mmcl train experiments/emoji_full.py --workdir runs/emoji_full-sw "
            "--config.transforms.text.0.languages='[\"sw\"]'",
            "Swahili; the data has names and keywords in 100 languages",
        ],
    ]

    if arg == "languages":
        config.transforms.text[0] = dict(
            name="captions.gloss", keep=0.2, nameless=0.9, languages=LANGUAGES, share=0.125
        )
        config.towers.text.buckets = 32768
        config.eval.evaluators.append(dict(name="mean_rank_variance", languages=LANGUAGES))
    elif arg == "runlocal":
        config.steps = 4
        config.batch_size = 16
        config.source = dict(name="emoji", split="train", limit=32)
        config.transforms.text[0] = dict(name="captions.describe", keep=0.2, nameless=0.9)
        config.schedule.warmup = 1
        config.eval.every = 2
    return config
