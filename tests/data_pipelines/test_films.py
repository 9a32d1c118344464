"""Which frames come out of a film, when they are shown, and how many are decoded for them."""

import io
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import films
from data_pipelines.faults import Fault

av = pytest.importorskip("av", reason="needs the extra 'video'")

STEP = 4  # of grey, from one frame to the next; a corner is red


def pixels(n, width=48, height=32):
    value = np.empty((n, height, width, 3), np.uint8)
    value[:] = (STEP * np.arange(n))[:, None, None, None]
    value[:, :8, :8] = (255, 0, 0)
    return value


def number(pixels_HxWx3):
    """Of the frame, from its middle."""
    height, width, _ = pixels_HxWx3.shape
    return round(int(pixels_HxWx3[height // 2, width // 2, 1]) / STEP)


def encoded(n, codec="libx264", form="mp4", rate=25, gop=12, b_frames=2, times=None, **size):
    written = io.BytesIO()
    with av.open(written, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        value = pixels(n, **size)
        stream.height, stream.width = value.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        for i, image in enumerate(value):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (times or range(n))[i], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return written.getvalue()


def animated(n, form="WEBP", duration=40, **options):
    images = [Image.fromarray(image) for image in pixels(n)]
    written = io.BytesIO()
    images[0].save(
        written, form, save_all=True, append_images=images[1:], duration=duration, **options
    )
    return written.getvalue()


FORMS = {
    "x264": ({"codec": "libx264", "form": "mp4", "gop": 12}, 40),
    "every frame a key": ({"codec": "libx264", "form": "mp4", "gop": 1, "b_frames": 0}, 12),
    "short groups": ({"codec": "libx264", "form": "matroska", "gop": 3}, 40),
    "mpeg4": ({"codec": "mpeg4", "form": "mp4", "gop": 7}, 40),
    "stream": ({"codec": "libx264", "form": "mpegts", "gop": 10}, 40),
    "vp8": ({"codec": "libvpx", "form": "webm", "gop": 10}, 40),
    "vp9": ({"codec": "libvpx-vp9", "form": "webm", "gop": 10}, 40),
    "avi": ({"codec": "mpeg4", "form": "avi", "gop": 10, "b_frames": 0}, 40),
}


@pytest.fixture(scope="module")
def written():
    return {name: encoded(n, **options) for name, (options, n) in FORMS.items()}


def numbers(found):
    return [number(np.asarray(picture)) for picture, _ in found]


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_the_chosen_frames_come_with_their_times(written, name, data):
    n = FORMS[name][1]
    chosen = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=5)))
    seen = []
    found = films.frames(written[name], lambda n: seen.append(n) or chosen)
    assert seen == [n]
    assert numbers(found) == chosen
    np.testing.assert_allclose([time for _, time in found], np.array(chosen) / 25, atol=1e-3)


def test_times_are_those_of_the_film():
    times = [5, 6, 9, 20, 21, 30]
    value = encoded(6, times=times)
    found = films.frames(value, lambda n: range(n))
    np.testing.assert_allclose([time for _, time in found], (np.array(times) - 5) / 25, atol=1e-6)


class Counted:
    """A container that counts the frames it decodes."""

    def __init__(self, container):
        self.container, self.decoded = container, 0

    def __enter__(self):
        self.container.__enter__()
        return self

    def __exit__(self, *error):
        return self.container.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.container, name)

    def decode(self, stream):
        for frame in self.container.decode(stream):
            self.decoded += 1
            yield frame


def test_only_what_leads_to_a_frame_is_decoded(monkeypatch):
    value = encoded(60, "libvpx", "webm", gop=10)
    opened = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda file: opened.append(Counted(real(file))) or opened[-1])
    assert numbers(films.frames(value, lambda n: [21, 23, 52])) == [21, 23, 52]
    assert opened[0].decoded == 4 + 3  # 20 to 23, 50 to 52


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1), (0, 0)])
def test_a_turned_film_is_upright(degrees, turns):
    """An mp4 says in its track's header by how much a player turns it clockwise."""
    value = bytearray(encoded(2))
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    place = value.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", value[place : place + 36]) == (
        65536,
        0,
        0,
        0,
        65536,
        0,
        0,
        0,
        2**30,
    )
    matrix = (cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 2**30)
    value[place : place + 36] = struct.pack(">9i", *matrix)
    ((picture, _),) = films.frames(bytes(value), lambda n: [1])
    want = np.rot90(pixels(2)[1].astype(int), turns)
    assert picture.size == want.shape[1::-1]
    assert np.abs(np.asarray(picture).astype(int) - want).mean() < 2  # the corner is 6


@pytest.mark.parametrize("form", ["WEBP", "GIF", "PNG"])
def test_animations_keep_frames_and_times(form):
    durations = [40, 100, 40, 200, 60, 40]
    options = {"lossless": True} if form == "WEBP" else {}
    value = animated(6, form, duration=durations, **options)
    for chosen in ([0, 1, 2, 3, 4, 5], [1, 4], [5]):
        found = films.frames(value, lambda n, chosen=chosen: chosen if n == 6 else [])
        assert numbers(found) == chosen
        clock = np.cumsum([0, *durations])[chosen] / 1000
        np.testing.assert_allclose([time for _, time in found], clock)


def test_a_still_is_a_film_of_one_frame():
    for form in ("WEBP", "PNG", "GIF"):
        written = io.BytesIO()
        Image.fromarray(pixels(1)[0]).save(written, form)
        ((picture, time),) = films.frames(written.getvalue(), lambda n: range(n))
        assert (picture.size, picture.mode, time) == ((48, 32), "RGB", 0)


def test_what_is_transparent_is_white():
    value = np.zeros((2, 8, 8, 4), np.uint8)
    value[:, :4] = (0, 0, 255, 255)
    written = io.BytesIO()
    images = [Image.fromarray(image) for image in value + np.uint8([[[[0]]], [[[0]]]])]
    images[1].putpixel((7, 0), (0, 255, 0, 255))
    images[0].save(written, "WEBP", save_all=True, append_images=images[1:], lossless=True)
    for picture, _ in films.frames(written.getvalue(), lambda n: range(n)):
        pixels = np.asarray(picture)
        assert (pixels[4:] == 255).all()
        assert (pixels[:4, :7] == (0, 0, 255)).all()


def test_arrays_are_films_of_a_rate_that_is_told():
    value = pixels(9)
    found = films.frames(value, lambda n: [0, n - 1], rate=4.0)
    assert numbers(found) == [0, 8]
    assert [time for _, time in found] == [0, 2]


def sound_alone():
    written = io.BytesIO()
    with av.open(written, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 99), "i2"), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return written.getvalue()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"", "bad_video"),
        (b"no film at all" * 20, "bad_video"),
        ("a/path.mp4", "bad_video"),
        (encoded(20)[:-40], "bad_video"),
        (encoded(20)[:2000], "bad_video"),
        (animated(5)[:200], "bad_video"),
        (animated(5, "GIF")[:200], "bad_video"),
        (sound_alone(), "bad_video"),
        (np.zeros((2, 8, 8, 3), "f4"), "bad_video"),
        (np.zeros((2, 8, 8), np.uint8), "bad_video"),
        (np.zeros((0, 8, 8, 3), np.uint8), "empty_video"),
    ],
)
def test_what_is_no_film_is_a_fault(value, kind):
    with pytest.raises(Fault) as caught:
        films.frames(value, lambda n: list(range(n)))
    assert caught.value.kind == kind


@pytest.mark.parametrize("form", ["WEBP", "GIF", "PNG"])
def test_an_animation_cut_anywhere_is_a_fault(form):
    """But a gif cut between two frames is a shorter gif."""
    value = animated(6, form)
    faults = 0
    for size in range(20, len(value) - 20, 7):
        try:
            found = films.frames(value[:size], lambda n: list(range(n)))
        except Fault as fault:
            assert fault.kind == "bad_video"
            faults += 1
        else:
            assert form == "GIF"
            assert numbers(found) == list(range(len(found)))
    assert faults > 0.8 * len(range(20, len(value) - 20, 7))


def test_an_mp4_cut_short_behind_its_index_is_a_fault(tmp_path):
    path = str(tmp_path / "film.mp4")
    with (
        av.open(io.BytesIO(encoded(20))) as source,
        av.open(path, "w", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    value = (tmp_path / "film.mp4").read_bytes()
    assert value.index(b"moov") < value.index(b"mdat")
    assert numbers(films.frames(value, lambda n: [0, 19])) == [0, 19]
    with pytest.raises(Fault, match="cut short"):
        films.frames(value[:-50], lambda n: list(range(n)))


@pytest.mark.parametrize("written", [encoded(2), animated(2)])
def test_frames_too_large_for_memory_are_a_fault(written, monkeypatch):
    monkeypatch.setattr(films, "MOST", 48 * 32 - 1)
    with pytest.raises(Fault) as caught:
        films.frames(written, lambda n: [0])
    assert caught.value.kind == "large_video"
