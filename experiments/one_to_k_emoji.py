"""Pictures and their names in six languages at once, none of them nearer than another.

Paper:     P033, Nie et al. 2024 (1-to-K): each picture is contrasted with its K texts together.
Claim:     shown: an emoji that is found by its name in one language is found at about the same rank
           in the others: the mean rank variance of names to an unseen artist's pictures is lower
           than when each record comes with its name in one language, drawn at random (`:one`).
Parent:    clip_emoji.py; captions are names alone, in English, German, Spanish, French, Italian and
           Portuguese, read as bags of words whose vectors are learnt.
Command:   mmcl train experiments/one_to_k_emoji.py
           `:one` is CLIP's loss with one language a record; `:runlocal` takes four small steps.
Hardware:  two CPU cores (AMD EPYC), no accelerator.
Time:      not measured by itself; a run is the quickstart's with a third of its steps.
Metric:    mean rank variance over six languages 7,544 ± 410, `:one` 49,157 ± 2,068 (chance
           102,853); recall@10 by English names .446 against .135, by German ones .480 against
           .123. `:one` sees a sixth of the names in as many steps. Seeds 0 to 2, see RESULTS.md.
"""

from clip_emoji import get_config as parent
from ml_collections import ConfigDict

ARGS = ("runlocal", "one")
LANGUAGES = ["en", "de", "es", "fr", "it", "pt"]


def get_config(arg: str | None = None) -> ConfigDict:
    config = parent("runlocal" if arg == "runlocal" else None)
    config.eval.prefixes = []
    names = dict(name="captions.each_language", languages=LANGUAGES, keep=0.0)
    words = dict(name="words.hashed", length=16)
    config.transforms.text = [
        names,
        dict(name="views.each", most=len(LANGUAGES), transforms=[words]),
    ]
    config.towers.text = dict(name="bag", buckets=16384)
    config.optimizer.rates = [["text", 3.0]]
    config.objective = dict(name="one_to_k", init_scale=20.0)
    if arg == "one":
        config.transforms.text = [names, dict(name="views.choose"), words]
        config.objective = dict(name="infonce", init_scale=20.0)
    config.eval.splits = ["unseen_artist"]
    config.eval.evaluators = [
        dict(name="retrieval"),
        dict(name="mean_rank_variance", languages=LANGUAGES),
    ]
    return config
