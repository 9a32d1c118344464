"""Picture files against Pillow's own full decode, and files that are none."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from data_pipelines import picture_file
from data_pipelines.faults import Fault
from data_pipelines.picture_file import PictureFile

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged notes


def photo(height=60, width=80, channels=3):
    """Smooth, with an edge, and another colour in each corner."""
    y, x = np.mgrid[:height, :width]
    made = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9 + y / 7)], 2)
    made[height // 3 :, width // 2 :] //= 2
    made = made.astype(np.uint8)
    if channels == 4:
        made = np.dstack([made, (255 * (x + y) / (height + width)).astype(np.uint8)])
    return made


def encoded(picture, format="PNG", **options):
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF"])
def test_formats_without_loss_give_what_was_put_in(format):
    options = {"WEBP": {"lossless": True}}.get(format, {})
    picture = photo()
    if format == "GIF":
        picture = np.asarray(Image.fromarray(picture).quantize(8).convert("RGB"))
    file = PictureFile(encoded(picture, format, **options))
    assert (file.height, file.width) == (60, 80)
    found = file.pixels()
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
def test_jpegs_are_decoded_as_pillow_does(options):
    data = encoded(photo(), "JPEG", quality=90, **options)
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(PictureFile(data).pixels() - want).max() <= 1


@pytest.mark.parametrize("scale, side", [(1.0, 80), (0.6, 80), (0.5, 40), (0.3, 40), (0.2, 20)])
def test_a_jpeg_is_decoded_no_smaller_than_asked_for(scale, side):
    data = encoded(photo(), "JPEG", quality=95)
    found = PictureFile(data).pixels(scale)
    assert found.shape[1] in (side, 30) and found.shape[1] >= scale * 80  # 3/8 where it can
    want = Image.fromarray(photo()).resize(found.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(found - np.asarray(want).astype(int)).mean() < 4


@pytest.mark.parametrize("mode", ["L", "CMYK", "1", "P", "YCbCr"])
def test_any_colours_become_rgb(mode):
    format = {"CMYK": "JPEG", "YCbCr": "TIFF"}.get(mode, "PNG")
    picture = Image.fromarray(photo()).convert(mode)
    data = encoded(picture, format, **({"quality": 100} if format == "JPEG" else {}))
    found = PictureFile(data).pixels()
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert found.shape == (60, 80, 3)
    assert np.abs(found - want).max() <= 1
    if mode == "L":
        assert (found == found[..., :1]).all()


def test_a_grey_jpeg_becomes_rgb():
    grey = photo()[..., 0]
    found = PictureFile(encoded(grey, "JPEG", quality=95)).pixels()
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0] - grey.astype(int)).mean() < 2


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_the_higher_eight_of_sixteen_bits_are_kept(format):
    grey = np.random.default_rng(0).integers(0, 2**16, (5, 7), np.uint16)
    found = PictureFile(encoded(Image.fromarray(grey), format)).pixels()
    np.testing.assert_array_equal(found, np.repeat(grey[..., None] // 256, 3, axis=2))


@pytest.mark.parametrize("values", [np.full((2, 2), 1e9, np.float32), np.full((2, 2), -1, "<i4")])
def test_values_without_a_range_are_refused(values):
    with pytest.raises(Fault, match="grey values") as caught:
        PictureFile(encoded(Image.fromarray(values), "TIFF")).pixels()
    assert caught.value.kind == "unreadable_image"


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_what_is_transparent_lies_on_white(format):
    picture = photo(channels=4)
    data = encoded(picture, format, **({"lossless": True} if format == "WEBP" else {}))
    np.testing.assert_array_equal(PictureFile(data).pixels(mode="RGBA")[..., 3], picture[..., 3])
    alpha = picture[..., 3:] / 255
    want = picture[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(PictureFile(data).pixels() - want).max() <= 1.5


def test_a_transparent_colour_of_a_palette_lies_on_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    data = encoded(picture, "PNG", transparency=0)
    assert PictureFile(data).pixels().tolist() == [[[255, 255, 255], [40, 50, 60]]]
    found = PictureFile(data).pixels(mode="RGBA")
    assert found[0, 0, 3] == 0 and found[0, 1].tolist() == [40, 50, 60, 255]


def test_alpha_of_a_jpeg_is_full():
    found = PictureFile(encoded(photo(), "JPEG")).pixels(mode="RGBA")
    assert found.shape == (60, 80, 4) and (found[..., 3] == 255).all()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_pictures_stand_upright(format, turned):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    data = encoded(photo(), format, exif=exif, **options)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    file = PictureFile(data)
    assert (file.height, file.width) == want.shape[:2] == ((80, 60) if turned > 4 else (60, 80))
    assert np.abs(file.pixels() - want).max() <= 1


def test_a_broken_note_on_orientation_is_passed_over():
    data = encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12")
    assert PictureFile(data).pixels().shape == (60, 80, 3)


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert PictureFile(data).pixels()[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_a_fault(format, share):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    data = encoded(noise, format)
    with pytest.raises(Fault) as caught:
        PictureFile(data[: int(share * len(data))]).pixels()
    assert caught.value.kind in ("truncated_image", "unreadable_image")
    if format in ("JPEG", "PNG"):
        assert caught.value.kind == "truncated_image"


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"<html></html>", b"%!PS-Adobe-3.0 EPSF\n"])
def test_what_is_no_picture_is_a_fault(data):
    with pytest.raises(Fault) as caught:
        PictureFile(data)
    assert caught.value.kind == "unreadable_image"
    assert "\n" not in caught.value.reason


def test_damaged_bytes_never_raise_anything_but_a_fault():
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        data = np.frombuffer(encoded(photo(), format), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            places = rng.integers(0, min(len(data), 400), 3)
            damaged[places] = rng.integers(0, 256, 3)
            try:
                file = PictureFile(damaged.tobytes(), most_pixels=10**5)
                assert file.pixels(0.5).dtype == np.uint8
            except Fault as fault:
                assert fault.kind in ("unreadable_image", "truncated_image", "huge_image")


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    data = encoded(photo())
    assert PictureFile(data, most_pixels=4800).pixels().shape == (60, 80, 3)
    with pytest.raises(Fault, match="80 × 60 pixels; at most 4799") as caught:
        PictureFile(data, most_pixels=4799)
    assert caught.value.kind == "huge_image"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 60_000])
def test_pillows_own_limit_is_the_same_fault(side):
    data = bytearray(encoded(photo(1, 1), "BMP"))
    data[18:26] = side.to_bytes(4, "little") * 2
    with pytest.raises(Fault) as caught:
        PictureFile(bytes(data))
    assert caught.value.kind == "huge_image"


@pytest.mark.parametrize(
    "value, found",
    [
        (photo().astype(np.float32), "float32"),
        (photo()[..., 0], r"\(60, 80\)"),
        (photo()[..., :2], r"\(60, 80, 2\)"),
        ("a.jpg", "str"),
    ],
)
def test_pixels_of_another_kind_are_a_fault(value, found):
    with pytest.raises(Fault, match=f"not .*{found}") as caught:
        picture_file.opened(value)
    assert caught.value.kind == "wrong_dtype"


def test_files_and_pixels_are_opened_alike():
    for value in (encoded(photo()), photo()):
        found = picture_file.opened(value)
        assert (found.height, found.width) == (60, 80)
        np.testing.assert_array_equal(found.pixels(0.5), photo())
