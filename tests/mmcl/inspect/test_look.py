"""A source and a pipeline looked at: what is counted, laid out, refused."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from data_pipelines.faults import Fault
from data_pipelines.order import Order
from data_pipelines.pipeline import Pipeline
from mmcl.inspect.look import EPOCHS, faults, look
from mmcl.inspect.page import draw_sheet, plain, write_page


class Zoo:
    label_names = {"animal": ["cat", "dog"]}

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 7:
            raise Fault("vanished_shard", "it is gone")
        picture = np.full((4, 4, 3), 20 * index, np.uint8)
        return {"id": f"zoo/{index}", "image": picture, "text": "x" * index, "animal": index % 2}


def shifted(value, *, rng, train):
    return {"value": value + np.uint8(rng.integers(1, 10))} if train else {"value": value}


def letters(value, *, rng, train):
    if len(value) == 1:
        raise Fault("too_short", "one letter")
    return {
        "value": np.zeros(5, np.int32),
        "mask": np.arange(5) < len(value),
        "raw": value,
    }


@pytest.fixture(scope="module")
def looked():
    source = Zoo()
    return look(source, Pipeline({"image": [shifted], "text": [letters]}, source), seed=3, cards=4)


def test_every_record_is_counted_and_what_is_wrong_with_it(looked):
    assert (looked.records, looked.seen) == (10, 10)
    # record 0 has no letter, 1 too few of them, 7 cannot be read
    assert faults(looked) == {"empty": 1, "too_short": 1, "vanished_shard": 1}
    assert {one.index for one in looked.rejected} == {0, 1, 7}
    (text,) = looked.captions
    assert (text.count, text.blank, text.letters["most"]) == (9, 1, 9)


def test_places_of_texts(looked):
    (text,) = looked.tokens
    assert (text.modality, text.places) == ("text", 5)
    assert text.used["most"] == 5 and text.used["least"] == 2
    assert text.full == pytest.approx(4 / 7)  # 5, 6, 8, 9 letters, of 2 3 4 5 6 8 9


def test_cards_are_what_training_sees(looked):
    order = Order(10, 3)
    first = [order(position)[1] for position in range(4)]
    assert [card.index for card in looked.cards] == [i for i in first if i != 7]
    card = next(card for card in looked.cards if card.index > 1)
    assert card.stored["labels"].words == f"animal {Zoo.label_names['animal'][card.index % 2]}"
    assert len(card.received) == EPOCHS
    pipeline = Pipeline({"image": [shifted]}, None)
    for epoch, received in enumerate(card.received):
        seed = (3, 0, epoch, card.index)
        made = pipeline.apply("image", Zoo()[card.index]["image"], seed=seed, train=True)
        np.testing.assert_array_equal(received["image"].pictures[0], made["value"])


def test_a_sample_is_spread_over_the_source():
    found = look(Zoo(), records=4, cards=0)
    assert found.seen == 4 and not found.tokens and not found.cards
    assert sorted(found.entries[2].values) == [0, 1]


def test_the_page_holds_the_very_pixels(looked, tmp_path):
    page = write_page(tmp_path / "inspect.html", "zoo & co", looked).read_text(encoding="utf-8")
    assert "zoo &amp; co" in page and "vanished shard" in page and "it is gone" in page
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    drawn = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris]
    wanted = [
        picture
        for card in looked.cards
        for part in (card.stored, *card.received)
        for one in part.values()
        for picture in one.pictures
    ]
    assert len(drawn) == len(wanted)
    for a, b in zip(drawn, wanted):
        np.testing.assert_array_equal(a, b)


def test_json_and_the_sheet(looked):
    told = json.loads(json.dumps(plain(looked)))
    assert told["records"] == 10 and told["entries"]["animal"]["different"] == 2
    assert [one["kind"] for one in told["rejected"]] == ["empty", "too_short", "vanished_shard"]
    assert draw_sheet("zoo", looked).width > 200
