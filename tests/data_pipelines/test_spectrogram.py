"""Mel filters against librosa, spectra against torch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import spectrogram


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("unit_area", [True, False])
@settings(max_examples=10, deadline=None)
@given(
    rate=st.sampled_from([8000, 16000, 22050, 48000]),
    fft=st.sampled_from([256, 400, 1023, 2048]),
    mels=st.integers(1, 130),
    low=st.sampled_from([0.0, 20.0, 1100.0]),
    share=st.floats(0.4, 1.0),
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_filters_are_librosas(scale, unit_area, rate, fft, mels, low, share):
    filters = pytest.importorskip("librosa.filters")
    high = share * rate / 2
    want = filters.mel(
        sr=rate,
        n_fft=fft,
        n_mels=mels,
        fmin=low,
        fmax=high,
        htk=scale == "htk",
        norm="slaney" if unit_area else None,
    )
    found = spectrogram.mel_filters(rate, fft, mels, low, high, scale=scale, unit_area=unit_area)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want.T, rtol=1e-4, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(50, 300),
    fft=st.integers(8, 50),
    share=st.floats(0.2, 1),
    hop=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_power_is_that_of_torchs_stft(n, fft, share, hop, seed):
    torch = pytest.importorskip("torch")
    sample_2xS = np.random.default_rng(seed).normal(size=(2, n)).astype("f4")
    length = max(2, int(share * fft))
    window_W = spectrogram.hann(length)
    full = np.zeros(fft, "f4")  # torch puts a short window in the middle, we at the beginning
    full[:length] = torch.hann_window(length).numpy()
    want = torch.stft(
        torch.from_numpy(sample_2xS),
        fft,
        hop,
        window=torch.from_numpy(full),
        center=False,
        return_complex=True,
    )
    frames = spectrogram.framed(sample_2xS, length, hop)[:, : want.shape[-1]]
    found = spectrogram.power(frames, window_W, fft)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (want.abs() ** 2).mT.numpy(), rtol=1e-3, atol=1e-3)


def test_windows_are_torchs_and_cannot_be_changed():
    torch = pytest.importorskip("torch")
    for length in (1, 2, 7, 400):
        for periodic in (True, False):
            window = spectrogram.hann(length, periodic)
            if length > 1:  # of one sample torch makes 1, whatever the formula says
                want = torch.hann_window(length, periodic=periodic).numpy()
                np.testing.assert_allclose(window, want, atol=1e-6)
            with pytest.raises(ValueError, match="read-only"):
                window[0] = 2
