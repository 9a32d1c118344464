"""`mmcl data inspect` and `mmcl data convert`, as they are called."""

import json

import numpy as np
import pytest
from PIL import Image

from mmcl.cli import main


@pytest.fixture
def mmcl(tmp_path, monkeypatch, capsys):
    """(words) -> exit code, what was said, what was complained of."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png")
    rows = [
        {"id": "one", "image": "a.png", "text": "a black picture", "kind": 1},
        {"id": "two", "image": "gone.png", "text": "nothing", "kind": 0},
        {"id": "three", "image": "a.png", "text": "the same again, as it was", "kind": 1},
    ]
    (tmp_path / "zoo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*words):
        monkeypatch.setattr("sys.argv", ["mmcl", *words])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


PATHS = "--config.source.paths=['image']"


def test_inspect_files(mmcl, tmp_path):
    code, out, err = mmcl("data", "inspect", "zoo.jsonl", PATHS)
    assert (code, err) == (0, "")
    assert "3 records" in out and "1 cannot be used: 1 missing file" in out
    assert "PNG 9 × 8" in out and "runs/data-zoo/inspect.html" in out
    page = (tmp_path / "runs/data-zoo/inspect.html").read_text()
    assert "a black picture" in page and "gone.png is missing" in page
    assert (tmp_path / "runs/data-zoo/sheet.png").is_file()


def test_inspect_for_a_program(mmcl):
    code, out, _ = mmcl("data", "inspect", "zoo.jsonl", PATHS, "--json", "--out", "x")
    told = json.loads(out)
    assert code == 0 and told["records"] == 3
    assert told["texts"]["text"]["words"]["most"] == 6
    assert told["entries"]["kind"]["values"] == {"1": 2}
    assert [one["kind"] for one in told["rejected"]] == ["missing_file"]


def test_what_an_experiment_feeds_its_model(mmcl, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=None):\n"
        "    return ConfigDict(dict(\n"
        "        steps=1, batch_size=2, embed_dim=4, optimizer=dict(name='adamw'),\n"
        "        schedule=dict(name='constant', peak=1e-3), objective=dict(name='infonce',\n"
        "            pairs=[['text', 'other']]),\n"
        "        source=dict(name='table', files='zoo.jsonl', fields=dict(text='text', \n"
        "            other='text')),\n"
        "        transforms=dict(\n"
        "            text=[dict(name='ngrams.hashed', sizes=[2], length=16)],\n"
        "            other=[dict(name='text.drop_words', rate=0.9),\n"
        "                   dict(name='ngrams.hashed', sizes=[2], length=40)]),\n"
        "        towers=dict(text=dict(name='ngrams', buckets=64, width=8),\n"
        "                    other=dict(name='ngrams', buckets=64, width=8))))\n"
    )
    code, out, err = mmcl("data", "inspect", "mine.py", "--out", "seen")
    assert (code, err) == (0, ""), err
    assert "places" in out
    page = (tmp_path / "seen/inspect.html").read_text()
    assert "epoch 2" in page and "16 of 16 places" in page


def test_convert_and_look_again(mmcl, tmp_path):
    code, out, _ = mmcl("data", "convert", "zoo.jsonl", PATHS, "--to", "webdataset", "--out", "w")
    assert code == 0 and "2 records, each read back" in out
    assert "1 left out: 1 missing file; see w/rejected.jsonl" in out
    code, out, _ = mmcl("data", "inspect", "w")
    assert code == 0 and "2 records" in out and "PNG 9 × 8" in out


@pytest.mark.parametrize(
    "words, message",
    [
        (["inspect", "zoo.jsonl", "more.tar"], "takes one SPEC; these are 2: zoo.jsonl, more.tar"),
        (["inspect", "none.jsonl"], "none.jsonl is missing"),
        (["inspect", "zoo.jsonl", "--recrods=3"], "There is no option '--recrods=3'. Did you mean"),
        (["inspect", "zoo.jsonl", "--config.source.pats=1"], "source.pats: unknown key"),
        (["inspect", "zoo.jsonl", "--out", "zoo.jsonl"], "is a file, not a folder"),
        (["convert", "zoo.jsonl", "--to", "tfds", "--out", "t"], "only TensorFlow Datasets writes"),
        (["convert", "zoo.jsonl", "--to", "tar", "--out", "t"], "--to: there is no 'tar'"),
    ],
)
def test_a_mistake_is_one_line(mmcl, tmp_path, words, message):
    before = sorted(tmp_path.iterdir())
    code, _, err = mmcl("data", *words)
    assert code == 2 and message in err and err.startswith("mmcl: ") and err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
