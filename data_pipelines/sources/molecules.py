"""70,000 molecules, each as a structure (SMILES) and as a systematic name.

A record is one molecule: `smiles`, PubChem's line notation of its structure; `name`, its preferred
IUPAC name in lower case; the integer label `concept`, which molecule it is.

The splits part molecular formulas: no molecule of `unseen_formula` (2,000) is composed of the same
elements in the same numbers as one of `train`, so isomers stay together. Charge and isotopes do not
count: an ion, a radical and a deuterated compound go with the neutral one. A salt or hydrate has
its own formula, so it can be in `train` while its acid or base is in `unseen_formula`.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from rich.console import Console
from rich.progress import track

from data_pipelines import records
from data_pipelines.cache import prepared
from data_pipelines.errors import InputError
from data_pipelines.records import Records

NAME = "molecules-v1"
UNSEEN = 2000
_TABLES = [f"Identifiers/chemical identifiers pubchem {size}.tsv" for size in ("small", "large")]
_INSTALL = "run pip install 'mmcl[quickstart]'"
_ATTRIBUTION = """\
# Where these molecules come from

Identifiers (SMILES, IUPAC names, InChIKeys, CIDs) are from PubChem (https://pubchem.ncbi.nlm.nih.gov),
National Library of Medicine, by way of the package chemicals
(https://github.com/CalebBell/chemicals), copyright Caleb Bell and its other authors. Licence of the
package: MIT. Molecules without an IUPAC name, and further ones of the same name or the same
InChIKey, were left out; nothing else was changed.
"""


class Source:
    """One split of the molecules: `source[i]` is a record, read when it is asked for.

    Threads may share a source, and a pickled one opens its file anew.

    Args:
      split: one of `Source.splits`.
      cache: where prepared data is kept; None: $MMCL_CACHE or ~/.cache/mmcl.
      limit: keep the first so many molecules of the split.

    Raises:
      InputError: no such split, or the data cannot be prepared or is damaged.
    """

    splits: tuple[str, ...] = ("train", "unseen_formula")

    def __init__(
        self, *, split: str, cache: str | os.PathLike | None = None, limit: int | None = None
    ):
        if split not in self.splits:
            raise InputError(
                f"molecules has no split {split!r}: use one of {', '.join(self.splits)}"
            )
        if limit is not None and limit < 1:
            raise InputError(f"limit={limit} leaves no molecule: use 1 or more, or None for all")
        self.folder = prepare(cache)
        self._records = Records(self.folder / f"{split}.arrayrecord")
        self._length = min(len(self._records), limit or len(self._records))
        labels = (self.folder / "labels.json").read_text(encoding="utf-8")
        self.label_names: dict[str, list[str]] = json.loads(labels)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict:
        if index >= self._length:
            raise IndexError(f"record {index} of {self._length}")
        return self._records[index]


def prepare(cache: str | os.PathLike | None = None) -> Path:
    """The folder of molecules, made in seconds if it is not there.

    It holds a file of records for each split, labels.json, ATTRIBUTION.md and manifest.json.

    Raises:
      InputError: the package is missing, or the folder cannot be written or is damaged.
    """
    return prepared(NAME, _build, cache)


def composition(formula: str) -> str:
    """Elements and their numbers in alphabetical order; without charge, isotopes as their element.

    "C20H18NO4+" -> "C20H18N1O4", "CDCl3" -> "C1Cl3H1", "H4O3[15N]2" -> "H4N2O3".
    """
    count: Counter[str] = Counter()
    for element, number in re.findall(r"([A-Z][a-z]?)\]?(\d*)", formula):
        count["H" if element in ("D", "T") else element] += int(number or 1)
    return "".join(f"{element}{number}" for element, number in sorted(count.items()))


def held_out(molecules: Counter[str], number: int) -> set[str]:
    """Compositions that have `number` molecules together, in the order of a hash of each.

    A composition with more molecules than are still needed is passed over.
    """
    chosen: set[str] = set()
    needed = number
    for name in sorted(molecules, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if molecules[name] <= needed:
            chosen.add(name)
            needed -= molecules[name]
    return chosen


def _build(folder: Path) -> dict:
    molecules = list(_molecules())
    unseen = held_out(Counter(composition for _, composition in molecules), UNSEEN)
    split_of = {True: "unseen_formula", False: "train"}
    splits: dict[str, list[dict]] = {split: [] for split in Source.splits}
    for record, formula in molecules:
        splits[split_of[formula in unseen]].append(record)
    for concept, record in enumerate(record for split in splits.values() for record in split):
        record["concept"] = concept
    for split, listed in splits.items():
        records.write(
            folder / f"{split}.arrayrecord",
            track(listed, f"molecules: {split}", console=Console(stderr=True)),
        )
    names = {"concept": [record["name"] for split in splits.values() for record in split]}
    (folder / "labels.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    (folder / "ATTRIBUTION.md").write_text(_ATTRIBUTION, encoding="utf-8")
    return {
        "counts": {split: len(listed) for split, listed in splits.items()},
        "unseen_formulas": len(unseen),
        "packages": {"chemicals": metadata.version("chemicals")},
    }


def _molecules() -> Iterator[tuple[dict, str]]:
    """Records without their label, and compositions: one of each name and each InChIKey.

    Raises:
      InputError: the package is not installed, or has not its tables.
    """
    package = util.find_spec("chemicals")
    if package is None or package.origin is None:
        raise InputError(f"the molecules need chemicals: {_INSTALL}")
    seen: set[str] = set()
    for table in (Path(package.origin).parent / name for name in _TABLES):
        if not table.is_file():
            raise InputError(f"{table} is missing: {_INSTALL} --force-reinstall")
        for line in table.read_text(encoding="utf-8").removesuffix("\n").split("\n"):
            cid, _, formula, _, smiles, _, inchikey, name, *_ = line.split("\t")
            if name and seen.isdisjoint((name, inchikey)):
                seen |= {name, inchikey}
                record = {"id": f"pubchem/{cid}", "smiles": smiles, "name": name}
                yield record, composition(formula)
