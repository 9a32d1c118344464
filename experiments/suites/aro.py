"""ARO (Yuksekgonul et al. 2022, arXiv:2210.01936): which of two captions of the same words is right
of a part of a picture of Visual Genome?

Layout:    PATH/visual_genome_relation.json, PATH/visual_genome_attribution.json (or one of them),
           lists of cases with `image_path`, `true_caption`, `false_caption` and `bbox_x`, `bbox_y`,
           `bbox_w`, `bbox_h`, and PATH/images.
Protocol:  how often the right caption is nearer to what lies in the box; the same averaged over
           relations, or pairs of attributes, of which every one counts, also a rare one.
Command:   mmcl eval RUN --suite aro:PATH
"""

from pathlib import Path

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    folder, splits = Path(path).expanduser(), ["relation", "attribution"]
    there = [one for one in splits if (folder / f"visual_genome_{one}.json").is_file()]
    config = ConfigDict()
    config.source = dict(name="aro", folder=path)
    config.splits = there or splits
    config.evaluators = [dict(name="caption_choice", group="relation", cluster="picture")]
    return config
