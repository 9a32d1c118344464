"""Several views of one record: where they were cut, and that chance is each view's own."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import transform_list
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.pipeline import Pipeline, stack
from data_pipelines.transforms import crop, views

quick = settings(max_examples=20, deadline=None)
SMALL = {"size": 24, "local_size": 12, "local_count": 3}


def run(transform, value, seed=0, train=True, **options):
    return transform(value, rng=np.random.default_rng(seed), train=train, **options)


def map_of_places(height=120, width=200):
    """Red says how far right a pixel is, green how far down."""
    y, x = np.mgrid[:height, :width]
    shares = [255 * (x + 0.5) / width, 255 * (y + 0.5) / height, 0 * x]
    return np.stack(shares, 2).astype(np.uint8)


def encoded(value, format="PNG"):
    file = io.BytesIO()
    Image.fromarray(value).save(file, format, quality=98)
    return file.getvalue()


@quick
@given(seed=st.integers(0, 999), format=st.sampled_from([None, "PNG", "JPEG"]))
def test_boxes_say_where_a_view_was_cut(seed, format):
    value = map_of_places() if format is None else encoded(map_of_places(), format)
    found = run(views.multi_crop, value, seed, **SMALL)
    for part, count, size in ((found, 2, 24), (found["local"], 3, 12)):
        assert part["value"].shape == (count, size, size, 3) and part["value"].dtype == np.uint8
        assert part["boxes"].shape == (count, 4) and part["boxes"].dtype == np.float32
        assert part["flipped"].shape == (count,) and part["flipped"].dtype == bool
        for view, (x0, y0, x1, y1), flipped in zip(part["value"], part["boxes"], part["flipped"]):
            across, down = view[..., 0].mean(0) / 255, view[..., 1].mean(1) / 255
            if flipped:
                across = across[::-1]
            middles = (np.arange(size) + 0.5) / size
            np.testing.assert_allclose(across, x0 + (x1 - x0) * middles, atol=0.015)
            np.testing.assert_allclose(down, y0 + (y1 - y0) * middles, atol=0.015)


def test_large_and_small_views_keep_to_their_shares():
    options = SMALL | {"scale": (0.5, 0.9), "local_scale": (0.05, 0.2), "flip": 0.3}
    found = [run(views.multi_crop, map_of_places(), seed, **options) for seed in range(150)]

    def areas(parts):
        boxes = np.concatenate([part["boxes"] for part in parts])
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    large, small = areas(found), areas([one["local"] for one in found])
    assert large.min() > 0.45 and large.max() < 0.93 and np.ptp(large) > 0.25
    assert small.min() > 0.04 and small.max() < 0.22 and np.ptp(small) > 0.1
    flipped = np.concatenate([[*one["flipped"], *one["local"]["flipped"]] for one in found])
    assert abs(flipped.mean() - 0.3) < 0.06


def test_evaluation_has_the_same_shapes_and_no_chance():
    value = map_of_places()
    options = SMALL | {"transforms": [{"name": "augment.solarize", "probability": 1.0}]}
    first, second = (run(views.multi_crop, value, s, train=False, **options) for s in range(2))
    trained = run(views.multi_crop, value, **options)
    np.testing.assert_array_equal(first["value"], second["value"])
    for part, other in ((first, trained), (first["local"], trained["local"])):
        assert part["value"].shape == other["value"].shape
        assert not part["flipped"].any()
        np.testing.assert_allclose(part["boxes"], [[0.2, 0, 0.8, 1]] * len(part["boxes"]))
    want = run(crop.random_resized, value, train=False, size=24)
    np.testing.assert_array_equal(first["value"], [want, want])
    np.testing.assert_array_equal(first["raw"], want)
    assert "raw" not in trained


def test_without_local_views_there_is_no_entry_for_them():
    assert "local" not in run(views.multi_crop, map_of_places(), size=8, local_count=0)


def test_each_view_is_transformed_by_itself():
    noise = [{"name": "image.jitter", "brightness": 0.9}]
    value = np.full((40, 40, 3), 100, np.uint8)
    found = run(views.multi_crop, value, count=4, transforms=noise, **SMALL)
    assert len({int(view[0, 0, 0]) for view in found["value"]}) == 4
    assert (found["local"]["value"] == 100).all()
    found = run(views.multi_crop, value, local_transforms=noise, **SMALL)
    assert (found["value"] == 100).all()
    assert len({int(view[0, 0, 0]) for view in found["local"]["value"]}) == 3


def test_what_is_done_to_one_view_leaves_the_chances_of_others_alone():
    value = np.full((40, 40, 3), 100, np.uint8)
    noise = [{"name": "image.jitter", "brightness": 0.9}]
    found = [
        run(views.multi_crop, value, transforms=first, local_transforms=noise, **SMALL)
        for first in ([], noise, noise * 2)
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other["local"]["value"], found[0]["local"]["value"])


DRAW = {"name": "drawn_for_views.draw"}


@pytest.fixture(scope="module", autouse=True)
def own_transform(tmp_path_factory):
    """A number to which a random one is added in training."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "drawn_for_views.py").write_text(
        "import numpy as np\n\n\ndef draw(value, *, rng, train):\n"
        "    return np.float32(value + (rng.random() if train else 0))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


def test_repeat_draws_anew_each_time():
    found = run(views.repeat, 5.0, count=4, transforms=[DRAW])
    again = run(views.repeat, 5.0, count=4, transforms=[DRAW])
    np.testing.assert_array_equal(found["value"], again["value"])
    assert found["value"].shape == (4,) and len(set(found["value"].tolist())) == 4
    still = run(views.repeat, 5.0, train=False, count=4, transforms=[DRAW])
    assert still["value"].tolist() == [5.0] * 4


def test_repeat_works_for_text():
    found = run(
        views.repeat,
        " ".join("abcdefgh"),
        count=3,
        transforms=[
            {"name": "text.drop_words", "rate": 0.5},
            {"name": "tokens.utf8", "vocab_size": 259, "length": 16},
        ],
    )
    assert found["value"].shape == found["mask"].shape == (3, 16)
    assert len({row.tobytes() for row in found["value"]}) == 3
    assert isinstance(found["raw"], str)


def test_each_keeps_all_captions_and_says_which_are_there():
    sections = [{"name": "tokens.utf8", "vocab_size": 259, "length": 4}]
    found = run(views.each, ["ab", "c"], most=3, transforms=sections)
    assert found["value"].tolist() == [[100, 101, 1, 0], [102, 1, 0, 0], [0, 0, 0, 0]]
    assert found["mask"].tolist() == [
        [True, True, True, False],
        [True, True, False, False],
        [False] * 4,
    ]
    assert found["present"].tolist() == [True, True, False]
    assert found["raw"] == "ab"
    alone = run(views.each, "ab", most=2, transforms=sections)
    assert alone["present"].tolist() == [True, False]


def test_each_takes_some_of_too_many():
    options = {"most": 2, "transforms": [DRAW]}
    still = run(views.each, [1.0, 2.0, 3.0, 4.0], train=False, **options)
    assert still["value"].tolist() == [1.0, 2.0]
    seen = {
        tuple(np.floor(run(views.each, [1.0, 2.0, 3.0, 4.0], s, **options)["value"]).tolist())
        for s in range(150)
    }
    assert len(seen) == 12  # ordered pairs of different ones


def test_choose_takes_one_or_some():
    stored = ["a", "b", "c"]
    assert run(views.choose, stored, train=False) == "a"
    assert run(views.choose, stored, train=False, count=2) == ["a", "b"]
    assert {run(views.choose, stored, s) for s in range(40)} == set(stored)
    pairs = {tuple(run(views.choose, stored, s, count=2)) for s in range(100)}
    assert len(pairs) == 6
    assert run(views.choose, stored, count=5) == stored
    assert run(views.choose, b"file") == b"file"


@pytest.mark.parametrize("train", [False, True])
def test_no_value_is_a_fault(train):
    for transform, options in ((views.choose, {}), (views.each, {"most": 2, "transforms": []})):
        with pytest.raises(Fault) as caught:
            run(transform, [], train=train, **options)
        assert caught.value.kind == "missing_value"


def test_views_go_through_a_pipeline_into_a_batch():
    sections = [
        {"name": "views.multi_crop", "transforms": [{"name": "augment.grey"}], **SMALL},
    ]
    functions = transform_list.build(sections, "config.transforms.image")
    pipeline = Pipeline({"image": functions})
    records = [{"id": str(i), "image": encoded(map_of_places(50 + i, 70))} for i in range(3)]
    records.append({"id": "3", "image": None})
    source = type("Source", (), {"label_names": {}, "__len__": lambda s: 4})
    source.__getitem__ = lambda s, i: records[i]
    pipeline = Pipeline({"image": functions}, source())
    batch = stack([pipeline(r, i, seed=(0, i), train=True) for i, r in enumerate(records)])
    assert batch["image"]["value"].shape == (4, 2, 24, 24, 3)
    assert batch["image"]["local"]["boxes"].shape == (4, 3, 4)
    assert batch["present"]["image"].tolist() == [True, True, True, False]
    assert not batch["image"]["value"][3].any()


def test_nested_sections_are_checked_with_the_others():
    nested = [{"name": "augment.blurr"}]
    section = {"name": "views.repeat", "count": 2, "transforms": nested}
    with pytest.raises(InputError, match=r"x\.transforms\.0\.name: .*'augment\.blur'"):
        transform_list.find(section, "x")
    section["transforms"] = [{"name": "views.repeat", "count": 1, "transforms": [{"name": 3}]}]
    with pytest.raises(InputError, match=r"x\.transforms\.0\.transforms\.0: .*should be a section"):
        transform_list.find(section, "x")
