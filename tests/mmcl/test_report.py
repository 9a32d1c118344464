import base64
import dataclasses
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmcl.config import override
from mmcl.evals.embedded import Embedded
from mmcl.report import logged, plots, svg
from mmcl.report.gallery import gallery
from mmcl.report.pictures import Pictures
from mmcl.report.report import write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Node:
    def __init__(self, tag="", attrs=(), parent=None):
        self.tag, self.attrs, self.parent, self.children = tag, dict(attrs), parent, []

    @property
    def text(self):
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return " ".join("".join(parts).split())

    def all(self, tag=None, cls=None):
        for child in self.children:
            if isinstance(child, Node):
                classes = child.attrs.get("class", "").split()
                if (tag is None or child.tag == tag) and (cls is None or cls in classes):
                    yield child
                yield from child.all(tag, cls)

    def one(self, tag=None, cls=None):
        (found,) = self.all(tag, cls)
        return found


class Page(HTMLParser):
    """A page as a tree; complains of tags that do not match."""

    def __init__(self, html):
        super().__init__()
        self.root = self.at = Node()
        self.feed(html)
        self.close()
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs, self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


def report(workdir, *, name="quick", config=None, rows=(), splits=(), next_steps=()):
    path = write_report(
        workdir,
        name=name,
        config=config or {},
        rows=list(rows),
        splits=splits,
        next_steps=next_steps,
    )
    assert path == workdir / "report.html"
    return Page(path.read_text(encoding="utf-8")).root


def unit(z):
    z = np.asarray(z, np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


# Caption 0 points at pictures 1..6 before its own picture 0, which is the 7th of 8; all others
# point at their own.
Z_TEXT = np.eye(8)
Z_TEXT[0] = [0.2, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.1]


def emojis(**changes):
    pixels = np.zeros((8, 6, 6, 3), np.uint8)
    pixels[..., 0] = 30 * np.arange(8)[:, None, None]
    embedded = Embedded(
        split="unseen",
        z={"image": np.eye(8, dtype=np.float32), "text": unit(Z_TEXT)},
        labels={"concept": np.arange(8, dtype=np.int32)},
        shown={"image": pixels, "text": [f"caption {i}" for i in range(8)]},
        ids=[f"id{i}" for i in range(8)],
        label_names={},
    )
    return dataclasses.replace(embedded, **changes)


def words(n=6, **changes):
    z = unit(np.random.default_rng(0).normal(size=(n, 4)))
    embedded = Embedded(
        split="molecules",
        z={"smiles": z, "name": z},
        labels={"concept": np.arange(n, dtype=np.int32)},
        shown={"smiles": ["C" * (i + 1) for i in range(n)], "name": [f"{i}-ane" for i in range(n)]},
        ids=[str(i) for i in range(n)],
        label_names={},
    )
    return dataclasses.replace(embedded, **changes)


def table_rows(page, cls):
    return [
        [cell.text for cell in row.children if isinstance(cell, Node)]
        for row in page.one("table", cls).one("tbody").all("tr")
    ]


def section(page, id):
    return next(node for node in page.all("section") if node.attrs.get("id") == id)


def queries(page, title, mark):
    """The queries listed under `title` (`text → image`) as right or wrong: text -> (node)."""
    section_ = section(page, "split-1")
    nodes = [node for node in section_.children if isinstance(node, Node)]
    start = next(i for i, node in enumerate(nodes) if node.tag == "h3" and node.text == title)
    box = next(node for node in nodes[start:] if node.tag == "div")
    found = {}
    for listed in box.all(cls="queries"):
        if mark in listed.attrs["class"].split():
            for item in listed.all("li"):
                if asked := [n for n in item.children if isinstance(n, Node) and n.tag == "div"]:
                    found[shown(asked[0])] = item
    return found


def shown(node):
    """The words, or the name of the picture, in a node."""
    (thing,) = [*node.all(cls="words"), *node.all(cls="picture")]
    return thing.text or thing.attrs["aria-label"]


def answers(query):
    return [node for node in query.one("ol", "answers").children if isinstance(node, Node)]


def test_recall_table_of_an_embedded_split(tmp_path):
    page = report(tmp_path, splits=[emojis()])
    image_to_text, text_to_image = table_rows(page, "recall")
    assert image_to_text[0] == "unseen"
    # by hand: 1 of 8 captions misses at 1 and 5; chance is K / 8
    assert image_to_text[1:] == [
        *["image → text", "8", "8"],
        *["100.0 %", "12.5 %", "100.0 %", "62.5 %", "100.0 %", "100.0 %", "1"],
    ]
    assert text_to_image[1:] == [
        *["text → image", "8", "8"],
        *["87.5 %", "12.5 %", "87.5 %", "62.5 %", "100.0 %", "100.0 %", "1"],
    ]


def test_logged_recall_goes_before_what_the_embeddings_give(tmp_path):
    name = "eval/unseen/text_to_image"
    row = {
        f"{name}/recall@1": 0.483,
        f"{name}/recall@10": 0.75,
        f"{name}/chance@1": 0.00069,
        f"{name}/chance@10": 0.0069,
        f"{name}/queries": 1450.0,
        "eval/unseen/zeroshot_group/top1": 0.6125,
        "eval/unseen/zeroshot_group/count": 1457.0,
        f"{name}_languages/mean_rank_variance": 7.25,
        f"{name}_languages/chance": 9.5,  # no share, and of no K
    }
    rows = [{"step": 1, f"{name}/recall@1": 0.1}, {"step": 2, **row, "final": True}]
    page = report(tmp_path, rows=rows, splits=[emojis()])
    assert table_rows(page, "recall") == [
        ["unseen", "text → image", "1,450", "–", "48.3 %", "0.069 %", "75.0 %", "0.69 %", "–"]
    ]
    headline = page.one(cls="headline")
    assert [row.text for row in headline.all("tr")] == [
        "text → image recall@1 48.3 % chance 0.069 %",
        "recall@10 75.0 % chance 0.69 %",
    ]
    assert [bar.attrs["style"] for bar in headline.all("i")] == ["width:48.3%", "width:75.0%"]
    assert [metric.text for metric in page.all(cls="metric")] == [
        "top1 0.613",
        "count 1,457",
        "mean_rank_variance 7.250",
        "chance 9.500",
    ]


def test_a_wrong_retrieval_is_marked_wrong_with_the_rank_of_the_true_answer(tmp_path):
    page = report(tmp_path, splits=[emojis()])
    wrong = queries(page, "text → image", "wrong")
    assert list(wrong) == ["caption 0"]
    *five, missed = answers(wrong["caption 0"])
    assert [node.attrs["class"] for node in five] == ["wrong"] * 5
    assert [shown(node) for node in five] == [f"caption {i}" for i in range(1, 6)]
    norm = np.linalg.norm(Z_TEXT[0])
    scores = [f"✗ {score / norm:.2f}" for score in Z_TEXT[0, 1:6]]
    assert [node.one(cls="score").text for node in five] == scores
    assert missed.attrs["class"] == "missed"
    assert (shown(missed), missed.one(cls="score").text) == ("caption 0", "✓ rank 7")


def test_a_right_retrieval_is_marked_right(tmp_path):
    page = report(tmp_path, splits=[emojis()])
    assert not queries(page, "image → text", "wrong")
    right = queries(page, "text → image", "right")
    assert set(right) == {f"caption {i}" for i in range(1, 8)}
    first, *others = answers(right["caption 3"])
    assert (first.attrs["class"], shown(first)) == ("right", "caption 3")
    assert first.one(cls="score").text == "✓ 1.00"
    assert [node.attrs["class"] for node in others] == ["wrong"] * 4


def test_the_picture_shown_is_the_picture_of_the_record(tmp_path):
    page = report(tmp_path, splits=[emojis()])
    css = page.one("style").text
    for item in answers(queries(page, "text → image", "right")["caption 5"]):
        picture = item.one(cls="picture")
        name = picture.attrs["class"].split()[1]
        png = re.search(rf"\.{name}{{background-image:url\(data:image/png;base64,(.+?)\)}}", css)
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png[1]))).convert("RGB"))
        record = int(picture.attrs["aria-label"].removeprefix("caption "))
        np.testing.assert_array_equal(pixels, emojis().shown["image"][record])


def test_several_right_answers_and_equal_captions():
    # records 0, 1 are drawings of one concept with one caption, 2 of another concept
    z = unit([[1, 0.1], [1, 0], [0, 1]])
    embedded = emojis(
        z={"image": z, "text": unit([[0.9, 0.1], [0.9, 0.1], [0.6, 0.5]])},
        labels={"concept": np.array([4, 4, 7], np.int32)},
        shown={"image": emojis().shown["image"][:3], "text": ["cat", "cat", "dog"]},
        ids=["a", "b", "c"],
    )
    found = gallery(embedded, "text", "image", 8)
    assert (found.queries, found.right_queries) == (2, 1)  # "cat" is one query
    (cat,), (dog,) = found.right, found.wrong
    assert [(answer.record, answer.right) for answer in cat.answers] == [
        (0, True),
        (1, True),
        (2, False),
    ]
    assert dog.rank == 3 and dog.answers[2].record == 2 and dog.missed is None


def test_what_records_lack_is_neither_asked_nor_answered():
    z = np.eye(4, dtype=np.float32)
    embedded = words(4, z={"smiles": z, "name": z})
    embedded.present["name"] = np.array([False, True, True, True])
    there, back = gallery(embedded, "smiles", "name", 8), gallery(embedded, "name", "smiles", 8)
    assert (there.queries, back.queries) == (3, 3)
    assert {answer.record for query in there.right for answer in query.answers} == {1, 2, 3}
    embedded.present["smiles"] = np.array([True, False, False, False])
    assert gallery(embedded, "smiles", "name", 8).queries == 0


def test_galleries_show_the_same_few_queries_in_every_run():
    z = unit(np.random.default_rng(1).normal(size=(60, 8)))
    noisy = unit(z + 0.8 * np.random.default_rng(2).normal(size=(60, 8)))
    embedded = words(60, z={"smiles": z, "name": noisy})
    first, again = (gallery(embedded, "smiles", "name", 8) for _ in range(2))
    assert first == again
    assert (len(first.right), len(first.wrong)) == (8, 8)
    # literal oracle
    s = z @ noisy.T
    ranks = 1 + (s > np.diag(s)[:, None]).sum(axis=1)
    assert first.right_queries == np.sum(ranks == 1)
    for query in first.right + first.wrong:
        assert query.rank == ranks[query.record]
        assert [a.record for a in query.answers] == list(np.argsort(-s[query.record])[:5])
        assert query.missed == (query.record if query.rank > 5 else None)
    assert any(query.missed for query in first.wrong)


def test_text_only_modalities_and_three_of_them(tmp_path):
    embedded = words()
    z, names = embedded.z["name"], [f"C{i}H{i}" for i in range(6)]
    three = words(z={**embedded.z, "formula": z}, shown={**embedded.shown, "formula": names})
    page = report(tmp_path, splits=[three])
    assert not list(page.all(cls="picture"))
    titles = [node.text for node in section(page, "split-1").all("h3")]
    directions = ["smiles → name", "smiles → formula", "name → smiles"]
    directions += ["name → formula", "formula → smiles", "formula → name"]
    assert titles == [*directions, "The shared space"]
    assert len(list(page.all("figure", "heat"))) == 3
    assert shown(answers(queries(page, "name → formula", "right")["3-ane"])[0]) == "C3H3"


EVIL = '<script>alert("1")</script>&amp;</style>{{ 7 * 7 }}$x^{$'


def test_every_string_of_the_user_is_escaped(tmp_path):
    embedded = emojis(
        split=EVIL,
        z={EVIL: np.eye(8, dtype=np.float32), "text": unit(Z_TEXT)},
        labels={"concept": np.arange(8, dtype=np.int32), "group": np.arange(8, dtype=np.int32)},
        shown={EVIL: emojis().shown["image"], "text": [f"{EVIL} {i}" for i in range(8)]},
        label_names={"group": [f"{EVIL} {i}" for i in range(8)]},
    )
    page = report(
        tmp_path,
        name=EVIL,
        config={EVIL: EVIL},
        rows=[{"step": i, f"train/{EVIL}": i, "hardware/chip": EVIL} for i in range(3)],
        splits=[embedded],
        next_steps=[(EVIL, EVIL, EVIL)],
    )
    assert not list(page.all("script"))
    assert page.one("h1").text == EVIL
    assert section(page, "next").one("code").text == EVIL
    assert EVIL in section(page, "config").one("code").text
    assert any(node.text == EVIL for node in page.one("dl").all("dd"))
    heat = page.one("figure", "heat").one("svg")
    assert any(node.text.startswith("<script>") for node in heat.all("text"))
    assert f"{EVIL} 3" in queries(page, f"text → {EVIL}", "right")


def full_page(tmp_path):
    rows = [
        {"step": i, "train/loss": 9.0 - i, "eval/unseen/text_to_image/recall@1": i / 9}
        for i in range(1, 9)
    ]
    steps = [("Again", "mmcl train x.py", "for fun")]
    config = {"steps": 8}
    return report(tmp_path, rows=rows, splits=[emojis(), words()], next_steps=steps, config=config)


def test_the_page_needs_nothing_from_outside(tmp_path):
    page = full_page(tmp_path)
    ids = [node.attrs["id"] for node in page.all() if "id" in node.attrs]
    assert len(ids) == len(set(ids))
    assert not {node.tag for node in page.all()} & {"script", "link", "iframe", "img", "object"}
    for node in page.all():
        for key, value in node.attrs.items():
            if key in ("href", "xlink:href"):
                assert value.startswith("data:image/png;") or value.removeprefix("#") in ids, value
            elif key in ("src", "srcset", "data", "action") or key.startswith("on"):
                pytest.fail(f"{node.tag} {key}={value}")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    for address in re.findall(r"url\(['\"]?([^)]{0,40})", html):
        assert address.startswith("data:image/png;") or address.removeprefix("#") in ids, address
    assert not re.search(r"@import|https?:", html)


def test_every_section_is_there(tmp_path):
    page = full_page(tmp_path)
    ids = [node.attrs["id"] for node in page.all("section") if "id" in node.attrs]
    assert ids == ["training", "retrieval", "split-1", "split-2", "next", "config"]
    links = [node.attrs["href"] for node in page.one("nav").all("a")]
    assert links == [f"#{id}" for id in ids]
    assert len(list(page.all("svg"))) == 2 + 2 * 2  # loss, recall; heat map and plane of each split
    for figure in page.all("figure"):
        assert figure.one("svg").attrs["aria-label"]
    assert "not finished" in page.one("header").text


@pytest.mark.parametrize(
    "rows, splits",
    [
        ([], []),
        ([], [emojis(z={"image": np.eye(8, dtype=np.float32)})]),
        ([], [words(1)]),
        ([], [words(0)]),
        ([{"step": 1, "train/loss": float("nan")}, {"step": 2, "train/loss": float("nan")}], []),
        ([{"step": 5, "train/lr": 1e-3, "eval/a/zeroshot/top1": 0.5, "final": True}], []),
    ],
    ids=["nothing", "one modality", "one record", "no record", "diverged", "one row"],
)
def test_little_logged_is_a_sensible_page(tmp_path, rows, splits):
    page = report(tmp_path, rows=rows, splits=splits)
    assert "No curves" in section(page, "training").text
    if not (splits and len(splits[0].z) > 1 and splits[0].ids):
        assert "No split has been evaluated" in section(page, "retrieval").text
        assert not list(page.all(cls="headline")) and not list(page.all(cls="queries"))
    assert ("final loss" in page.text) == ("train/loss" in (rows or [{}])[0])


def test_facts_of_a_run(tmp_path):
    stages = [{"steps": 10}, {"steps": 5000, "batch_size": 8}]
    config = {"batch_size": 4, "steps": 9, "stages": stages}
    rows = [
        {"step": 10, "time": 30.0, "hardware/devices": "8 × TPU v5"},
        {"step": 1500, "time": 3725.4, "train/loss": 1.23456, "train/logit_scale": 14.285},
    ]
    page = report(tmp_path, config=config, rows=[*rows, {"step": 1500, "final": True}])
    facts = {node.one("dt").text: node.one("dd").text for node in page.one("dl").all("div")}
    assert facts == {
        "steps": "1,500",
        "pairs seen": "11,960",  # 10 * 4 + 1490 * 8
        "wall time": "1 h 02 min",
        "final loss": "1.235",
        "logit scale": "14.3",
        "devices": "8 × TPU v5",
    }
    assert "not finished" not in page.one("header").text


def test_a_curve_for_each_thing_logged(tmp_path):
    rows = [
        {
            "step": step,
            "train/loss": loss,
            "train/softmax": loss,  # the only term
            "train/bias": -float(step),
            "train/grad_norm/image": 1.0,
            "train/grad_norm/text": 2.0,
            "train/examples_per_s": 100.0,
        }
        for step, loss in [(10, 3.0), (20, 1.0), (30, 2.0)]
    ]
    page = section(report(tmp_path, rows=rows), "training")
    assert [node.text for node in page.all("h3")] == ["Loss", "Gradient norm", "Speed", "Bias"]
    loss, norm, _, bias = page.all("svg")
    assert {"image", "text"} <= {node.text for node in norm.all("text")}
    # the line goes through the values: as drawn, y is affine in the value (and grows downwards)
    drawn = [node for node in loss.all("path") if "stroke: var(--c0)" in node.attrs["style"]]
    x, y = np.array(re.findall(r"[ML] (\S+) (\S+)", drawn[-1].attrs["d"]), float).T
    np.testing.assert_allclose((x - x[0]) / (x[2] - x[0]), [0, 0.5, 1], atol=1e-4)
    np.testing.assert_allclose((y - y[0]) / (y[1] - y[0]), [0, 1, 0.5], atol=1e-4)
    assert y[1] > y[0]


def test_one_plot_for_all_sources_of_a_mixture(tmp_path):
    rows = [
        {
            "step": step,
            "train/loss": 3.0 - step,
            "train/epoch": step / 7,
            "train/weight/a": 0.1 * step,
            "train/weight/b": 1 - 0.1 * step,
            "train/by_source/softmax/a": 1.0,
            "train/by_source/softmax/b": math.nan if step == 2 else 2.0,
        }
        for step in (1, 2, 3)
    ]
    page = section(report(tmp_path, rows=rows), "training")
    titles = ["Loss", "Weight", "By source softmax"]
    assert [node.text for node in page.all("h3")] == titles
    for plot in list(page.all("svg"))[1:]:
        assert {"a", "b"} <= {node.text for node in plot.all("text")}


def test_recall_curves_show_first_and_last_k(tmp_path):
    rows = []
    for step in (10, 20):
        for k in (1, 5, 10):
            key = f"eval/unseen/a_to_b/{{}}@{k}"
            rows.append({"step": step, key.format("recall"): step / 40, key.format("chance"): 0.1})
    svg_ = section(report(tmp_path, rows=rows), "retrieval").one("svg")
    texts = [node.text for node in svg_.all("text")]
    assert [t for t in texts if "@" in t] == ["recall@10", "recall@1", "chance@10"]
    assert "a → b" in texts


def test_series_leaves_out_what_is_missing_or_not_finite():
    rows = [{"step": 1, "x": 2}, {"step": 2}, {"step": 3, "x": float("nan")}, {"step": 4, "x": 5.0}]
    step, value = logged.series(rows, "x")
    np.testing.assert_array_equal(step, [1, 4])
    np.testing.assert_array_equal(value, [2, 5])


def test_long_curves_are_averaged_not_cut():
    step = np.arange(10_000.0)
    thin_step, thin_value = plots.thinned(step, step**2)
    assert len(thin_step) == plots.LINE_POINTS
    np.testing.assert_allclose(thin_step, step.reshape(-1, 25).mean(axis=1))
    np.testing.assert_allclose(thin_value, (step**2).reshape(-1, 25).mean(axis=1))


def test_modality_gap(tmp_path):
    a, b = unit([[1, 0, 0], [1, 1, 0]]), unit([[0, 0, 1], [0, 1, 1]])
    embedded = words(2, z={"smiles": a, "name": b})
    page = report(tmp_path, splits=[embedded])
    gap = np.sqrt(sum((a.mean(axis=0) - b.mean(axis=0)) ** 2))
    assert f"smiles to name {gap:.2f} " in page.one("figure", "plane").one("figcaption").text


def test_principal_plane_holds_the_most_variance():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 6)) * [1, 5, 0.1, 3, 1, 1]
    markup, _ = plots.modality_map(words(50, z={"smiles": z[:, :], "name": z[::-1]}))
    singular = np.linalg.svd(np.concatenate([z, z]) - z.mean(axis=0), compute_uv=False) ** 2
    texts = [node.text for node in Page(markup).root.all("text")]
    assert f"first component, {singular[0] / singular.sum():.0%} of the variance" in texts
    assert f"second component, {singular[1] / singular.sum():.0%}" in texts


def test_heat_map_is_in_the_order_of_groups(tmp_path):
    group = np.array([1, 0, 1, 0, 1, 0, 1, 0], np.int32)
    names = {"group": ["animals_&_nature", "food"]}
    embedded = emojis(
        labels={"concept": np.arange(8, dtype=np.int32), "group": group}, label_names=names
    )
    heat = report(tmp_path, splits=[embedded]).one("figure", "heat").one("svg")
    texts = [node.text for node in heat.all("text")]
    order = [1, 3, 5, 7, 0, 2, 4, 6]
    assert [t for t in texts if t.startswith("caption")] == [f"caption {i}" for i in order]
    assert texts.index("animals & nature") < texts.index("food")
    s = (unit(Z_TEXT) @ np.eye(8, dtype=np.float32))[np.ix_(order, order)]
    (alpha,) = [
        pixels[..., 3] for pixels in map(decoded, heat.all("image")) if pixels.shape[:2] == (8, 8)
    ]
    np.testing.assert_allclose(alpha / 255, (s - s.min()) / (s.max() - s.min()), atol=0.004)


def decoded(image):
    png = base64.b64decode(image.attrs["href"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_heat_map_takes_distinct_concepts_of_every_group():
    concept = np.random.default_rng(0).integers(0, 40, 400)
    group = np.where(concept < 36, concept % 9, 8).astype(np.int32)  # 9 groups, the last largest
    embedded = words(400, labels={"concept": concept, "group": group}, label_names={"group": ["g"]})
    records = plots.heat_records(embedded)
    assert len(set(concept[records])) == len(records) == 32
    values, counts = np.unique(group[records], return_counts=True)
    assert list(counts) == [4] * 8 and 8 in values
    assert list(group[records]) == sorted(group[records])


def test_pictures_are_stored_once_and_within_the_budget():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (15, 120, 90, 3), dtype=np.uint8)
    pictures = Pictures()
    names = [pictures.add(picture) for picture in [*noise, *noise[:7]]]
    assert names[15:] == names[:7] and len(set(names)) == 15
    for budget in (250_000, 60_000, 30_000):
        css = pictures.css(budget)
        assert css.count("background-image") == 15
        assert len(css) <= budget + len(names)
        sizes = {
            Image.open(io.BytesIO(base64.b64decode(png))).size
            for png in re.findall("base64,(.+?)\\)", css)
        }
        assert len(sizes) == 1 and max(*sizes.pop()) >= 24


def test_the_page_stays_below_three_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    n, modalities = 60, ["photo", "scan", "drawing", "map"]
    embedded = Embedded(
        split="noise",
        z={modality: unit(rng.normal(size=(n, 16))) for modality in modalities},
        labels={"concept": np.arange(n, dtype=np.int32)},
        shown={m: rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8) for m in modalities},
        ids=[str(i) for i in range(n)],
        label_names={},
    )
    rows = [
        {"step": i, **{f"train/{j}": value for j, value in enumerate(rng.normal(size=6))}}
        for i in range(3000)
    ]
    report(tmp_path, rows=rows, splits=[embedded])
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_the_old_report_stays_when_the_new_one_cannot_be_put_in_place(tmp_path, monkeypatch):
    report(tmp_path, name="old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("mmcl.report.report.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report(tmp_path, name="new")
    assert Page((tmp_path / "report.html").read_text()).root.one("h1").text == "old"


@pytest.mark.parametrize(
    "share, written",
    [(0.4834, "48.3 %"), (1, "100.0 %"), (0.00069, "0.069 %"), (0.0053, "0.53 %"), (0, "0.0 %")],
)
def test_percent(share, written):
    assert logged.percent(share) == written


@pytest.mark.parametrize(
    "seconds, written",
    [(41.7, "42 s"), (59.6, "1 min 00 s"), (252, "4 min 12 s"), (11_100, "3 h 05 min")],
)
def test_duration(seconds, written):
    assert logged.duration(seconds) == written


leaves = st.none() | st.booleans() | st.integers() | st.text("abc", min_size=1) | st.just([1, 2])
keys = st.text("abc_", min_size=1, max_size=4)
configs = st.recursive(
    leaves,
    lambda inner: (
        st.dictionaries(keys, inner, max_size=3) | st.lists(inner, min_size=1, max_size=3)
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, configs, min_size=1, max_size=4))
def test_config_keys_are_those_that_override(config):
    flat = logged.flat(config)
    assert flat
    for key, value in flat.items():
        leaf = config
        for part in key.split("."):
            leaf = leaf[int(part)] if isinstance(leaf, list) else leaf[part]
        assert repr(leaf) == value
        override(config, key, value)


def test_plots_have_no_colour_of_their_own():
    lines = {"a": (np.arange(3.0), np.arange(3.0)), "b": (np.arange(3.0), np.ones(3))}
    markup = plots.curves(lines, "loss")
    assert "var(--c0)" in markup and "var(--c1)" in markup and "var(--muted)" in markup
    assert not any(colour in markup for colour in svg.PALETTE.values())
    assert not re.search("fill: #|stroke: #", markup)
