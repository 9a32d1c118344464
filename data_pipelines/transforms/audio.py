"""Sound transforms: from a file's bytes to a waveform or a log-mel spectrogram of static shape.

Every transform is a function `f(value, *, rng, train, **options) -> value`. Between them goes
`{"value": samples, "rate": per second}`: float32 samples, 1 being full scale, (S,) if there is one
channel and (C, S) if there are more; `mask` (S,) comes with the clip. What a tower gets is named by
the last: `clip` gives a waveform, `log_mel` and `fbank` a spectrogram. In evaluation `raw` is a
picture of it.
"""

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from data_pipelines import drawn, extra, spectrogram
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.floats import NPY, loaded
from data_pipelines.spectrogram import Scale

MOST = 2**28  # samples of all channels, 1 GiB: a longer sound would fill the memory
_STREAMED = 0x7FFF0000  # a WAV that says to be longer was written before its length was known


def decode(
    value: bytes | np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    rate: int,
    channels: int = 1,
    array_rate: int | None = None,
) -> dict[str, Any]:
    """The samples of a wav, flac, ogg (Vorbis, Opus), mp3 or other file that libsndfile reads,
    resampled by soxr.

    An Ogg file that was cut between two pages looks like a shorter one, and is taken as that.

    Args:
        value: the file, or samples as (S,) or (S, C): floats with 1 as full scale, or integers of
            16 bits (however wide their type).
        rate: samples a second to give.
        channels: 1 takes the mean of all; more are taken as they are, or one for all of them.
        array_rate: samples a second of an array, which cannot tell; a file does.

    Returns:
        `value` (S,) or (channels, S) float32, `rate` int32.

    Raises:
        Fault: `bad_audio` (no sound file, damaged or cut short, other channels), `nan_audio`,
            `empty_audio`, `long_audio`.
        InputError: `audio` is not installed, or `array_rate` missing.
    """
    if isinstance(value, bytes) and not value.startswith(NPY):
        sample_SxC, own_rate = _read(value)
    elif array_rate is None:
        raise InputError("audio.decode: arrays do not tell their rate: set array_rate.")
    else:
        array = loaded(value, "audio") if isinstance(value, bytes) else np.asarray(value)
        sample_SxC, own_rate = _scaled(array), array_rate
    if not np.isfinite(sample_SxC).all():
        raise Fault("nan_audio", "some samples are NaN or infinite")
    if channels == 1:
        sample_SxC = sample_SxC.mean(axis=1, keepdims=True)
    elif sample_SxC.shape[1] not in (1, channels):
        raise Fault("bad_audio", f"it has {sample_SxC.shape[1]} channels, not {channels}")
    if own_rate != rate and len(sample_SxC):
        sample_SxC = extra.load("soxr", "audio").resample(sample_SxC, own_rate, rate)
    if not len(sample_SxC):
        raise Fault("empty_audio", "it has no samples")
    if channels == 1:
        return {"value": sample_SxC[:, 0], "rate": np.int32(rate)}
    sample_CxS = np.broadcast_to(sample_SxC.T, (channels, len(sample_SxC)))
    return {"value": np.ascontiguousarray(sample_CxS), "rate": np.int32(rate)}


def clip(
    value: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    train: bool,
    seconds: float,
    at: Literal["centre", "first"] = "centre",
    pad: Literal["zeros", "repeat"] = "zeros",
) -> dict[str, Any]:
    """So many seconds of a sound: a random stretch in training, its centre or beginning else.

    A shorter sound is followed by zeros. With `repeat` (CLAP's "repeatpad"; Wu et al. 2023,
    arXiv:2211.06687) it is first repeated as often as it fits whole.

    Returns:
        `value` (L,) or (C, L) float32, `mask` (L,) bool, False on zeros put in, `rate` int32; in
        evaluation `raw`, the curve as a picture.
    """
    sample_S = value["value"]
    n, length = sample_S.shape[-1], round(seconds * int(value["rate"]))
    if n >= length:
        start = 0 if at == "first" else (n - length) // 2
        if train:
            start = int(rng.integers(n - length + 1))
        sample_L, n = sample_S[..., start : start + length], length
    else:
        if pad == "repeat":
            sample_S = np.concatenate([sample_S] * (length // n), axis=-1)
            n = sample_S.shape[-1]
        sample_L = np.zeros((*sample_S.shape[:-1], length), np.float32)
        sample_L[..., :n] = sample_S
    made = {"value": sample_L, "mask": np.arange(length) < n, "rate": value["rate"]}
    return made if train else made | {"raw": drawn.curves(np.atleast_2d(sample_L).T)}


def log_mel(
    value: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    train: bool,
    mels: int = 80,
    fft: int = 400,
    hop: int = 160,
    window: int | None = None,
    low: float = 0.0,
    high: float | None = None,
    scale: Scale = "slaney",
    unit_area: bool = True,
    log: Literal["natural", "db", "whisper"] = "natural",
    floor: float = 1e-10,
    frames: int | None = None,
) -> dict[str, Any]:
    """Logarithm of the power in mel bands, over time.

    Frames have their middle on every `hop`-th sample, from the first on; the signal is mirrored at
    its ends. Power below `floor` counts as `floor`, so that silence is a number.

    What known models were trained on:
      - Whisper: `decode` at 16000, `clip` of 30 seconds, `log="whisper"`, `frames=3000`;
        `mels=128` from large-v3 on.
      - CLAP (LAION, without fusion): 48000, 10 seconds with `pad="repeat"`, `mels=64`, `fft=1024`,
        `hop=480`, `low=50.0`, `high=14000.0`, `log="db"`.
      - AST and other models that hear with Kaldi: see `fbank`.

    Args:
        mels: number of bands.
        fft: samples of a spectrum.
        hop: samples from one frame to the next.
        window: samples of the Hann window, in the middle of a frame; None: all of `fft`.
        low, high: in Hz, where the bands begin and end; None: half the rate.
        scale, unit_area: see `spectrogram.mel_filters`.
        log: `natural`; `db`, 10 log₁₀; or `whisper`, (max(log₁₀ x, its maximum − 8) + 4) / 4
            (Radford et al. 2022, arXiv:2212.04356).
        frames: how many to keep, from the first on; None: all 1 + S // hop.

    Returns:
        `value` (F, mels) float32, or (F, mels, C) of several channels; `mask` (F,) bool, False
        where the middle of a frame is padding; in evaluation `raw`, the spectrogram as a picture.

    Raises:
        InputError: `high` is above half the rate, or a size does not fit.
    """
    rate, sample_S = int(value["rate"]), value["value"]
    high = rate / 2 if high is None else high
    window = fft if window is None else window
    n = sample_S.shape[-1]
    if not 0 <= low < high <= rate / 2:
        raise InputError(_no_band("log_mel", low, high, rate))
    if not 0 < window <= fft or min(hop, mels) < 1:
        raise InputError(
            f"audio.log_mel: window={window} should be within fft={fft}, and hop "
            "and mels 1 or more."
        )
    before = fft // 2 - (fft - window) // 2  # of the first frame's middle
    ends = [(0, 0)] * (sample_S.ndim - 1) + [(before, window - before)]
    frame_FxW = spectrogram.framed(np.pad(sample_S, ends, "reflect"), window, hop)
    filters = spectrogram.mel_filters(rate, fft, mels, low, high, scale=scale, unit_area=unit_area)
    power_FxM = spectrogram.power(frame_FxW, spectrogram.hann(window), fft) @ filters
    if frames is not None:
        if frames > power_FxM.shape[-2]:
            raise InputError(
                f"audio.log_mel: frames={frames}, but the clip has only "
                f"{power_FxM.shape[-2]}: make it longer."
            )
        power_FxM = power_FxM[..., :frames, :]
    power_FxM = np.maximum(power_FxM, np.float32(floor))
    if log == "natural":
        log_FxM = np.log(power_FxM)
    elif log == "db":
        log_FxM = 10 * np.log10(power_FxM)
    else:
        log_FxM = np.log10(power_FxM)
        log_FxM = (np.maximum(log_FxM, log_FxM.max() - 8) + 4) / 4
    middle_F = np.minimum(hop * np.arange(log_FxM.shape[-2]), n - 1)
    return _spectrogram(log_FxM, middle_F, value, train)


def fbank(
    value: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    train: bool,
    mels: int = 128,
    low: float = 20.0,
    high: float | None = None,
    window: Literal["hanning", "povey"] = "hanning",
) -> dict[str, Any]:
    """Kaldi's log mel filter bank (Povey et al. 2011), without dither.

    Frames of 25 ms every 10 ms, whole ones only; of each the mean is taken away, then .97 of the
    sample before; natural logarithm of power in triangles of the HTK scale. AST (Gong et al. 2021,
    arXiv:2104.01778), Audio-MAE and ImageBind hear so: `decode` at 16000, then `fbank()` and
    `normalise(mean=-4.2677393, std=9.1379)`; a clip of 10.255 seconds has their 1,024 frames.
    Samples have 1 as full scale; Kaldi's own tools take 32,768, which adds 20.79 to every value.

    Args:
        mels: number of bands.
        low, high: in Hz, where the bands begin and end; None: half the rate.
        window: Hann's, or that to the power of .85.

    Returns:
        As `log_mel`.

    Raises:
        InputError: `high` is above half the rate, or the clip is shorter than a frame.
    """
    rate, sample_S = int(value["rate"]), value["value"]
    high = rate / 2 if high is None else high
    length, hop = int(0.025 * rate), int(0.01 * rate)
    if not 0 <= low < high <= rate / 2:
        raise InputError(_no_band("fbank", low, high, rate))
    if sample_S.shape[-1] < length:
        raise InputError("audio.fbank: the clip is shorter than 25 ms: make it longer.")
    frame_FxW = spectrogram.framed(sample_S, length, hop)
    frame_FxW = frame_FxW - frame_FxW.mean(axis=-1, keepdims=True)
    before_FxW = np.concatenate([frame_FxW[..., :1], frame_FxW[..., :-1]], axis=-1)
    frame_FxW -= np.float32(0.97) * before_FxW
    window_W = spectrogram.hann(length, periodic=False)
    if window == "povey":
        window_W = window_W ** np.float32(0.85)
    fft = 1 << (length - 1).bit_length()
    filters = spectrogram.mel_filters(
        rate, fft, mels, low, high, scale="htk", unit_area=False, over="mel"
    )
    power_FxM = spectrogram.power(frame_FxW, window_W, fft) @ filters
    log_FxM = np.log(np.maximum(power_FxM, np.finfo(np.float32).eps))
    middle_F = hop * np.arange(log_FxM.shape[-2]) + length // 2
    return _spectrogram(log_FxM, middle_F, value, train)


def normalise(
    value: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    train: bool,
    mean: float,
    std: float,
) -> dict[str, Any]:
    """(value − mean) / std, of a waveform or spectrogram, with numbers of the whole data set."""
    scaled = (value["value"] - np.float32(mean)) / np.float32(std)
    return {**value, "value": scaled}


def mask(
    value: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    train: bool,
    frequency: int = 27,
    frequency_masks: int = 2,
    time: int = 100,
    time_masks: int = 2,
    share: float = 1.0,
) -> dict[str, Any]:
    """SpecAugment (Park et al. 2019, arXiv:1904.08779) in training, without its time warp.

    Stretches of bands, and of frames, are blanked with the spectrogram's mean. The defaults are the
    paper's policy LD. A frame that is blanked is still there for `mask`.

    Args:
        value: a spectrogram, as `log_mel` and `fbank` give it.
        frequency, time: the most bands, and frames, that a mask is wide; each width from 0 on is as
            likely.
        frequency_masks, time_masks: how many masks.
        share: the most that a mask is wide in time, as a share of the frames that are there.
    """
    if not train:
        return dict(value)
    spectrum_FxM = value["value"].copy()
    n, bands = int(value["mask"].sum()), spectrum_FxM.shape[1]
    blank = spectrum_FxM[:n].mean() if n else np.float32(0)
    for _ in range(frequency_masks):
        start, stop = _stretch(rng, min(frequency, bands), bands)
        spectrum_FxM[:, start:stop] = blank
    for _ in range(time_masks):
        start, stop = _stretch(rng, min(time, int(share * n)), n)
        spectrum_FxM[start:stop] = blank
    return {**value, "value": spectrum_FxM}


def _stretch(rng: np.random.Generator, most: int, length: int) -> tuple[int, int]:
    width = int(rng.integers(most + 1))
    start = int(rng.integers(max(1, length - width)))
    return start, start + width


def _spectrogram(
    log_FxM: np.ndarray, middle_F: np.ndarray, sound: Mapping[str, Any], train: bool
) -> dict[str, Any]:
    """What a tower gets, from (F, M) or (C, F, M) and the sample in the middle of each frame."""
    value = log_FxM if log_FxM.ndim == 2 else np.moveaxis(log_FxM, 0, -1)
    mask_F = sound["mask"][middle_F] if "mask" in sound else np.ones(len(middle_F), bool)
    made = {"value": np.ascontiguousarray(value, np.float32), "mask": mask_F}
    if not train:
        made["raw"] = drawn.heat(value if value.ndim == 2 else value.mean(axis=-1))
    return made


def _read(value: bytes) -> tuple[np.ndarray, int]:
    """The samples (S, C) of a file as they are in it, and their rate."""
    soundfile = extra.load("soundfile", "audio")
    try:
        with soundfile.SoundFile(io.BytesIO(value)) as file:
            said, rate = file.frames, file.samplerate
            if said * file.channels > MOST:
                raise Fault("long_audio", f"it is said to last {said / rate:.0f} s")
            sample_SxC = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, MemoryError) as error:
        raise Fault("bad_audio", getattr(error, "error_string", str(error))) from error
    if value.startswith(b"RIFF") and len(value) < int.from_bytes(value[4:8], "little") < _STREAMED:
        raise Fault("bad_audio", "it is cut short")  # libsndfile does not mind
    if len(sample_SxC) < said:
        raise Fault("bad_audio", f"it is cut short: {len(sample_SxC)} of {said} samples are there")
    return sample_SxC, rate


def _scaled(array: np.ndarray) -> np.ndarray:
    """Samples of an array as float32 (S, C), 1 being full scale."""
    sample_SxC = array[:, None] if array.ndim == 1 else array
    if sample_SxC.ndim != 2 or sample_SxC.dtype.kind not in "if":
        raise Fault("bad_audio", f"it is an array of {array.dtype.name} {array.shape}, no samples")
    if sample_SxC.dtype.kind == "f":
        return sample_SxC.astype(np.float32)
    if sample_SxC.size and not -(2**15) <= sample_SxC.min() <= sample_SxC.max() < 2**15:
        raise Fault("bad_audio", "its integers do not fit 16 bits")
    return sample_SxC.astype(np.float32) / np.float32(2**15)


def _no_band(name: str, low: float, high: float, rate: int) -> str:
    return f"audio.{name}: low={low:g}, high={high:g}; a rate of {rate} has 0 to {rate / 2:g} Hz."
