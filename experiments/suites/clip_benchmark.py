"""Any set in the layout of CLIP_benchmark's WebDatasets: classes zero-shot, or captions retrieved.

Layout:    PATH/test/nshards.txt; PATH/test/0.tar, ... of key.jpg (webp, png) with key.cls;
           PATH/classnames.txt, PATH/zeroshot_classification_templates.txt (`{c}` is the class); or,
           where PATH/dataset_type.txt says `retrieval`, with key.txt, a caption a line.
Protocol:  the nearest class, each the mean direction of its prompts; or recall@k of all captions.
           Figures are called after the folder: eval/clip_benchmark-cifar10-test of wds_cifar10.
Names:     those of the set.
Command:   mmcl eval RUN --suite clip_benchmark:PATH
"""

from pathlib import Path

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    folder = Path(path).expanduser().resolve()
    split = f"{folder.name.removeprefix('wds_')}-test"
    kind = folder / "dataset_type.txt"
    config = ConfigDict()
    config.source = dict(name="clip_benchmark", folder={split: str(folder / "test")})
    config.splits = [split]
    if kind.is_file() and kind.read_text().strip().lower() == "retrieval":
        config.evaluators = [dict(name="caption_retrieval", captions=None)]
    else:
        lines = (folder / "zeroshot_classification_templates.txt").read_text().splitlines()
        templates = [line.strip().replace("{c}", "{}") for line in lines if line.strip()]
        config.evaluators = [dict(name="zeroshot", label="class", templates=templates)]
    return config
