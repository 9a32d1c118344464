"""The molecules against the table they come from; compositions against InChI, another notation."""

import json
import pickle
import re
from collections import Counter
from importlib import util
from pathlib import Path

import msgpack
import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.sources import molecules
from data_pipelines.sources.molecules import UNSEEN, Source, composition, held_out, prepare

SPLITS = ("train", "unseen_formula")
PACKAGE = util.find_spec("chemicals")
if PACKAGE is None:
    pytest.skip("needs the extra 'quickstart'", allow_module_level=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, worker_id):
    base = tmp_path_factory.getbasetemp()
    return prepare((base if worker_id == "master" else base.parent) / "mmcl-cache")


@pytest.fixture(scope="session")
def sources(folder):
    return {split: Source(split=split, cache=folder.parent) for split in Source.splits}


@pytest.fixture(scope="session")
def splits(folder):
    """All records, read at once: one by one takes ten times as long."""
    files = {split: ArrayRecordDataSource(folder / f"{split}.arrayrecord") for split in SPLITS}
    return {
        split: [msgpack.unpackb(packed) for packed in file.__getitems__(range(len(file)))]
        for split, file in files.items()
    }


@pytest.fixture(scope="session")
def table():
    """id -> columns of the package's two tables."""
    folder = Path(PACKAGE.origin).parent / "Identifiers"
    tables = folder.glob("chemical identifiers pubchem *.tsv")
    lines = [line for path in tables for line in path.read_text(encoding="utf-8").split("\n")]
    rows = [line.split("\t") for line in lines if line]
    return {f"pubchem/{row[0]}": row for row in rows}


def elements(inchi: str) -> str:
    """Elements and numbers of an InChI: its parts added up, protons put on or taken off."""
    layers = inchi.removeprefix("InChI=1S/").split("/")
    count: Counter[str] = Counter()
    for part in layers[0].split("."):
        times, formula = re.fullmatch(r"(\d*)(.*)", part).groups()
        for element, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula):
            count[element] += int(number or 1) * int(times or 1)
    for layer in layers[1:]:
        if re.fullmatch(r"p[+-]\d+", layer):
            count["H"] += int(layer[1:])
    return "".join(f"{element}{number}" for element, number in sorted(count.items()) if number)


def test_no_composition_is_in_two_splits(splits, table):
    of_split = [{elements(table[r["id"]][5]) for r in records} for records in splits.values()]
    assert len(of_split[0]) > 30_000
    assert not of_split[0] & of_split[1]


def test_2000_are_unseen_and_the_rest_is_seen(splits, table):
    assert len(splits["unseen_formula"]) == UNSEEN == 2000
    kept = [record for records in splits.values() for record in records]
    assert len({r["id"] for r in kept}) == len(kept)
    names, keys = {row[7] for row in table.values()} - {""}, {row[6] for row in table.values()}
    assert len(kept) <= min(len(names), len(keys))
    left_out = table.keys() - {r["id"] for r in kept}
    kept_names, kept_keys = {r["name"] for r in kept}, {table[r["id"]][6] for r in kept}
    for id in left_out:
        _, _, _, _, _, _, key, name, *_ = table[id]
        assert name == "" or name in kept_names or key in kept_keys


def test_records_are_rows_of_the_table_and_no_two_are_alike(splits, table):
    kept = [record for records in splits.values() for record in records]
    for record in kept:
        assert record.keys() == {"id", "smiles", "name", "concept"}
        row = table[record["id"]]
        assert (record["smiles"], record["name"]) == (row[4], row[7])
    for values in (
        [r["smiles"] for r in kept],
        [r["name"] for r in kept],
        [table[r["id"]][6] for r in kept],
    ):
        assert len(set(values)) == len(kept)


def test_a_known_molecule(splits):
    """Caffeine, as PubChem's page of CID 2519 has it."""
    [found] = [r for records in splits.values() for r in records if r["id"] == "pubchem/2519"]
    assert found["smiles"] == "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"
    assert found["name"] == "1,3,7-trimethylpurine-2,6-dione"


def test_a_source_gives_the_records_of_its_split(sources, splits):
    assert Source.splits == SPLITS
    for split, source in sources.items():
        assert len(source) == len(splits[split])
        for index in (0, 7, len(source) - 1):
            assert source[index] == splits[split][index]


def test_concepts_are_dense_and_named(sources, splits):
    kept = [record for records in splits.values() for record in records]
    assert [r["concept"] for r in kept] == list(range(len(kept)))
    for source in sources.values():
        assert source.label_names == {"concept": [r["name"] for r in kept]}


@pytest.mark.parametrize(
    ("formula", "want"),
    [
        ("C7H9N5", "C7H9N5"),
        ("CHCl3", "C1Cl3H1"),
        ("CDCl3", "C1Cl3H1"),
        ("CH3D", "C1H4"),
        ("C20H18NO4+", "C20H18N1O4"),
        ("O6S3-2", "O6S3"),
        ("H4O3[15N]2", "H4N2O3"),
        ("DyCl3", "Cl3Dy1"),
        ("[14C]CH6O", "C2H6O1"),
    ],
)
def test_composition(formula, want):
    assert composition(formula) == want


@given(st.dictionaries(st.text("CHNO123", min_size=1), st.integers(1, 9)), st.integers(0, 40))
def test_held_out_fills_up_and_depends_on_nothing_else(molecules, number):
    chosen = held_out(Counter(molecules), number)
    left = number - sum(molecules[name] for name in chosen)
    assert left >= 0
    assert all(molecules[name] > left for name in molecules.keys() - chosen)
    assert held_out(Counter(dict(reversed(molecules.items()))), number) == chosen


def test_held_out_is_drawn_for_good_and_by_chance():
    formulas = [f"C{i}" for i in range(1000)]
    chosen = held_out(Counter(formulas), 100)
    assert sorted(chosen)[:4] == ["C109", "C118", "C125", "C140"]
    assert 400 < np.mean([int(name[1:]) for name in chosen]) < 600


def test_the_same_folder_every_time(folder, tmp_path):
    again = prepare(tmp_path)
    manifests = [json.loads((f / "manifest.json").read_text()) for f in (folder, again)]
    assert manifests[0] == manifests[1]
    assert manifests[0]["counts"]["unseen_formula"] == 2000
    attribution = (folder / "ATTRIBUTION.md").read_text()
    assert "MIT" in attribution and "PubChem" in attribution


def test_limit_keeps_the_first(sources, folder):
    few = Source(split="unseen_formula", cache=folder.parent, limit=5)
    assert len(few) == 5
    assert few[4] == sources["unseen_formula"][4]
    for index in (5, -1):
        with pytest.raises(IndexError):
            few[index]
    assert len(Source(split="unseen_formula", cache=folder.parent, limit=9999)) == 2000


def test_a_pickled_source_reads_the_same(sources):
    source = sources["unseen_formula"]
    assert pickle.loads(pickle.dumps(source))[7] == source[7]


@pytest.mark.parametrize(
    ("options", "match"),
    [({"split": "test"}, "unseen_formula"), ({"split": "train", "limit": 0}, "limit=0")],
)
def test_bad_options_are_refused(options, match, folder):
    with pytest.raises(InputError, match=match):
        Source(cache=folder.parent, **options)


def test_a_missing_package_is_named_with_its_install_command(monkeypatch, tmp_path):
    monkeypatch.setattr(molecules.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"chemicals.*pip install 'mmcl\[quickstart\]'"):
        Source(split="train", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_package_without_the_table_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(molecules, "_TABLES", ("Identifiers/nothing.tsv",))
    with pytest.raises(InputError, match=r"nothing\.tsv is missing.*pip install"):
        Source(split="train", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
