"""Spectra over time, and the mel filters that hear them as we do. NumPy only."""

import functools
from typing import Literal

import numpy as np

Scale = Literal["slaney", "htk"]


def framed(sample_S: np.ndarray, length: int, hop: int) -> np.ndarray:
    """(..., S) samples as overlapping frames (..., F, length), one every `hop` samples.

    The first begins with the first sample, and none goes beyond the last. They are a view.
    """
    return np.lib.stride_tricks.sliding_window_view(sample_S, length, axis=-1)[..., ::hop, :]


def power(frame_FxW: np.ndarray, window_W: np.ndarray, fft: int) -> np.ndarray:
    """|Fourier transform|² of every windowed frame, zeros behind it up to `fft` samples.

    Returns:
        (..., F, fft // 2 + 1) float32.
    """
    spectrum = np.fft.rfft(frame_FxW * window_W, fft)
    return spectrum.real**2 + spectrum.imag**2


@functools.lru_cache
def hann(length: int, periodic: bool = True) -> np.ndarray:
    """Hann's window, which comes back to 0 after the last sample (periodic) or in it."""
    turn = 2 * np.pi * np.arange(length) / max(1, length - (not periodic))
    return _kept(0.5 - 0.5 * np.cos(turn))


@functools.lru_cache
def mel_filters(
    rate: int,
    fft: int,
    mels: int,
    low: float,
    high: float,
    *,
    scale: Scale = "slaney",
    unit_area: bool = True,
    over: Literal["hertz", "mel"] = "hertz",
) -> np.ndarray:
    """Triangles, evenly spaced in mel from `low` to `high` Hz, over the bins of a spectrum.

    Args:
        scale: `slaney` is linear below 1 kHz and logarithmic above (Slaney's Auditory Toolbox,
            1998); `htk` is 2595 log₁₀(1 + f / 700) (O'Shaughnessy 1987).
        unit_area: each triangle is scaled to an area of 1 Hz; else to a height of 1.
        over: in what the sides of a triangle are straight: in Hz, or in mel as Kaldi has it.

    Returns:
        (fft // 2 + 1, mels) float32.
    """
    to_mel, to_hertz = (_slaney, _from_slaney) if scale == "slaney" else (_htk, _from_htk)
    first, last = to_mel(np.array([low, high]))
    edge = np.linspace(first, last, mels + 2)
    bin_hertz = np.arange(fft // 2 + 1) * rate / fft
    edge_hertz = to_hertz(edge)
    place, edge = (bin_hertz, edge_hertz) if over == "hertz" else (to_mel(bin_hertz), edge)
    rising = (place[:, None] - edge[:-2]) / (edge[1:-1] - edge[:-2])
    falling = (edge[2:] - place[:, None]) / (edge[2:] - edge[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    if unit_area:
        filters *= 2 / (edge_hertz[2:] - edge_hertz[:-2])
    return _kept(filters)


def _htk(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)


def _from_htk(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)


_STEP = np.log(6.4) / 27  # of a mel above 1 kHz, which is 15 mel: 27 mel take it to 6.4 kHz


def _slaney(hertz: np.ndarray) -> np.ndarray:
    above = 15 + np.log(np.maximum(hertz, 1000) / 1000) / _STEP
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def _from_slaney(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((np.maximum(mel, 15) - 15) * _STEP))


def _kept(array: np.ndarray) -> np.ndarray:
    """As float32, and not to be changed by whoever shares it."""
    array = array.astype(np.float32)
    array.flags.writeable = False
    return array
