"""Some frames of a film: chosen by number, and only these made into pictures.

A film is an mp4, webm or whatever else FFmpeg reads, an animated webp, gif or png, or an array.
"""

import bisect
import io
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import extra
from data_pipelines.faults import Fault

Choose = Callable[[int], Sequence[int]]  # how many frames there are -> which, in order
Frames = list[tuple[Image.Image, float]]  # RGB, seconds since the first of all frames

MOST = 2**26  # pixels of a frame: more would fill the memory
_DAMAGED = (  # what Pillow raises on a damaged file
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)
_ANIMATED = (b"GIF8", b"\x89PNG", b"RIFF")


def frames(value: bytes | np.ndarray, choose: Choose, rate: float | None = None) -> Frames:
    """The chosen frames of a film and their times.

    Args:
        value: the file, or uint8 (T, H, W, 3).
        rate: frames a second of an array; a file knows its own.

    Raises:
        Fault: `bad_video` (no film, damaged or cut short), `empty_video`, `large_video`.
        InputError: FFmpeg is needed and `video` is not installed.
    """
    if isinstance(value, np.ndarray):
        return _of_array(value, choose, rate or 1.0)
    if not isinstance(value, bytes):
        raise Fault("bad_video", f"it is a {type(value).__name__}, not the bytes of a file")
    if value.startswith(_ANIMATED) and value[8:12] != b"AVI ":
        return _of_animation(value, choose)
    return _of_file(value, choose)


def _of_array(pixels_TxHxWx3: np.ndarray, choose: Choose, rate: float) -> Frames:
    if pixels_TxHxWx3.dtype != np.uint8 or pixels_TxHxWx3.ndim != 4 or pixels_TxHxWx3.shape[3] != 3:
        shape = f"{pixels_TxHxWx3.dtype.name} {pixels_TxHxWx3.shape}"
        raise Fault("bad_video", f"it is an array of {shape}, not of uint8 (T, H, W, 3)")
    if not pixels_TxHxWx3.size:
        raise Fault("empty_video", "it has no frames")
    chosen = choose(len(pixels_TxHxWx3))
    return [(Image.fromarray(pixels_TxHxWx3[i]), i / rate) for i in chosen]


def _of_animation(value: bytes, choose: Choose) -> Frames:
    """By Pillow, which goes through all frames up to the last; what is transparent is white."""
    made: Frames = []
    clock = 0.0
    try:
        with Image.open(io.BytesIO(value)) as film:
            _check_size(*film.size)
            chosen = choose(getattr(film, "n_frames", 1))
            for i in range(chosen[-1] + 1):
                film.seek(i)
                film.load()  # it is then that the frame's own duration is known
                if i in chosen:
                    white = Image.new("RGBA", film.size, "white")
                    picture = Image.alpha_composite(white, film.convert("RGBA")).convert("RGB")
                    made.append((picture, clock))
                clock += film.info.get("duration", 0) / 1000
    except _DAMAGED as error:
        raise Fault("bad_video", str(error) or "it is cut short") from error
    return made


def _of_file(value: bytes, choose: Choose) -> Frames:
    """By FFmpeg: all packets are listed, and only those decoded that lie between a chosen frame and
    the key frame before it.
    """
    av = extra.load("av", "video")
    if _cut_short(value):
        raise Fault("bad_video", "it is cut short")
    try:
        with av.open(io.BytesIO(value)) as container:
            if not container.streams.video:
                raise Fault("bad_video", "there are no pictures in it")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the loader has threads of its own
            _check_size(stream.codec_context.width, stream.codec_context.height)
            shown: set[int] = set()
            keys: dict[int, int] = {}  # when a key frame is shown -> when it is decoded
            for packet in container.demux(stream):
                time = packet.dts if packet.pts is None else packet.pts
                if time is not None and packet.size and not packet.is_discard:
                    shown.add(time)
                if time is not None and packet.is_keyframe:
                    keys[time] = time if packet.dts is None else packet.dts
            if not shown or not keys:
                raise Fault("empty_video", "it has no frames with a time")
            times, starts = sorted(shown), sorted(keys)
            wanted = [times[i] for i in choose(len(times))]
            made: Frames = []
            for start, group in itertools.groupby(
                wanted, lambda time: starts[max(0, bisect.bisect(starts, time) - 1)]
            ):
                made += _decoded(container, stream, (start, keys[start]), list(group), times[0])
    except (av.FFmpegError, ValueError) as error:
        raise Fault("bad_video", str(error)) from error
    return made


def _decoded(
    container: Any, stream: Any, starts: Sequence[int], wanted: list[int], first: int
) -> Frames:
    """The frame that is shown at each wanted time, or next.

    Args:
        starts: when the key frame before them is shown and decoded: some formats are searched by
            the one, some by the other.
        first: when the film's first frame is shown.
    """
    made: Frames = []
    for start in starts:
        container.seek(start, stream=stream)
        shown = (frame for frame in container.decode(stream) if frame.pts is not None)
        last = next(shown, None)
        if last is not None and last.pts <= wanted[0]:
            break
    if last is None:
        raise Fault("bad_video", "its frames cannot be decoded")
    for frame in itertools.chain([last], shown):
        last = frame
        while wanted and frame.pts >= wanted[0]:
            made.append(_picture(frame, first, stream))
            wanted = wanted[1:]
        if not wanted:
            return made
    return made + [_picture(last, first, stream)] * len(wanted)


def _picture(frame: Any, first: int, stream: Any) -> tuple[Image.Image, float]:
    if frame.is_corrupt:
        raise Fault("bad_video", "a frame is damaged")
    pixels_HxWx3 = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    seconds = float((frame.pts - first) * stream.time_base)
    return Image.fromarray(np.ascontiguousarray(pixels_HxWx3)), seconds


def _cut_short(value: bytes) -> bool:
    """Whether an mp4 ends inside one of its boxes; FFmpeg does not mind."""
    place = 0
    while value[4:8] == b"ftyp" and place + 8 <= len(value):
        size = int.from_bytes(value[place : place + 4])
        if size == 1:
            size = int.from_bytes(value[place + 8 : place + 16])
        if size < 8:  # 0: to the end, whatever that is
            return False
        place += size
    return place > len(value)


def _check_size(width: int, height: int) -> None:
    if width * height > MOST:
        raise Fault("large_video", f"its frames have {width} × {height} pixels")
