"""Sound transforms against torch, librosa, kaldi-native-fbank and NumPy."""

import functools
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.transforms import audio

soundfile = pytest.importorskip("soundfile", reason="needs the extra 'audio'")
pytest.importorskip("soxr", reason="needs the extra 'audio'")

seeds = st.integers(0, 10**6)
quick = settings(max_examples=25, deadline=None)


def run(transform, value, seed=0, train=True, **options):
    return transform(value, rng=np.random.default_rng(seed), train=train, **options)


decode, still = functools.partial(run, audio.decode), functools.partial(run, train=False)


def tone(n=4000, rate=16000, hertz=440.0, channels=1):
    """A tone that grows; each further channel is one octave higher."""
    t = np.arange(n) / rate
    parts = [
        np.linspace(0.1, 0.5, n) * np.sin(2 * np.pi * hertz * 2**c * t) for c in range(channels)
    ]
    return np.stack(parts, axis=1).astype("f4")


def file(sample_SxC, rate=16000, form="WAV", subtype=None):
    written = io.BytesIO()
    soundfile.write(written, sample_SxC, rate, format=form, subtype=subtype)
    return written.getvalue()


def sound(n=1000, rate=16000, channels=1, seed=0):
    value = 0.3 * np.random.default_rng(seed).normal(size=(channels, n)).astype("f4")
    return {"value": value[0] if channels == 1 else value, "rate": np.int32(rate)}


@pytest.mark.parametrize(
    ("form", "subtype", "error"),
    [
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "FLOAT", 0),
        ("FLAC", "PCM_24", 2**-22),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_formats_give_the_samples_that_were_written(form, subtype, error):
    sample_SxC = tone(48000, 48000)
    found = decode(file(sample_SxC, 48000, form, subtype), rate=48000)
    assert found.keys() == {"value", "rate"}
    assert found["value"].dtype == np.float32
    assert found["value"].shape == (48000,)
    assert found["rate"] == 48000 and found["rate"].dtype == np.int32
    assert np.abs(found["value"] - sample_SxC[:, 0])[2000:-2000].max() <= error


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_a_tone_stays_that_tone_at_another_rate(rate):
    found = decode(file(tone(32000)), rate=rate)["value"]
    assert len(found) == 2 * rate
    want = tone(2 * rate, rate)[:, 0]
    middle = slice(rate // 4, -rate // 4)
    assert np.abs(found - want)[middle].max() < 1e-3


def test_what_a_lower_rate_cannot_carry_is_gone():
    found = decode(file(tone(32000, hertz=6000.0)), rate=8000)["value"]
    assert np.abs(found[1000:-1000]).max() < 1e-3


def test_channels_are_averaged_kept_or_repeated():
    sample_SxC = tone(channels=2)
    stereo, mono = file(sample_SxC, subtype="FLOAT"), file(sample_SxC[:, :1], subtype="FLOAT")
    found = decode(stereo, rate=16000)["value"]
    np.testing.assert_allclose(found, sample_SxC.mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(decode(stereo, rate=16000, channels=2)["value"], sample_SxC.T)
    found = decode(mono, rate=16000, channels=2)["value"]
    np.testing.assert_array_equal(found, sample_SxC[:, [0, 0]].T)
    with pytest.raises(Fault, match="2 channels, not 3"):
        decode(stereo, rate=16000, channels=3)


def test_arrays_are_sounds_of_a_rate_that_is_told():
    sample_SxC = tone()
    npy = io.BytesIO()
    np.save(npy, sample_SxC[:, 0])
    integers = np.round(sample_SxC * 2**15)
    for form in (sample_SxC, sample_SxC[:, 0].astype("f8"), npy.getvalue()):
        found = decode(form, rate=16000, array_rate=16000)["value"]
        np.testing.assert_allclose(found, sample_SxC[:, 0], atol=1e-7)
    for dtype in (np.int16, np.int64):
        found = decode(integers.astype(dtype), rate=16000, array_rate=16000)["value"]
        np.testing.assert_allclose(found, sample_SxC[:, 0], atol=2**-15)
    assert len(decode(sample_SxC, rate=8000, array_rate=16000)["value"]) == 2000
    with pytest.raises(InputError, match="set array_rate"):
        decode(sample_SxC, rate=16000)


def broken(form, subtype=None, cut=0.5):
    whole = file(tone(48000, 48000), 48000, form, subtype)
    return whole[: int(cut * len(whole))]


def spoiled(value):
    sample_SxC = tone()
    sample_SxC[77] = value
    return file(sample_SxC, subtype="FLOAT")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"", "bad_audio"),
        (b"no sound at all" * 9, "bad_audio"),
        (broken("WAV"), "bad_audio"),
        (broken("FLAC"), "bad_audio"),
        (broken("MP3"), "bad_audio"),
        (broken("OGG", "OPUS"), "bad_audio"),
        (np.zeros((2, 3, 4), "f4"), "bad_audio"),
        (np.zeros(4, np.uint8), "bad_audio"),
        (np.array([0, 40000]), "bad_audio"),
        (np.array(["a"]), "bad_audio"),
        (spoiled(np.nan), "nan_audio"),
        (spoiled(np.inf), "nan_audio"),
        (file(tone(0)), "empty_audio"),
        (np.zeros(0, "f4"), "empty_audio"),
    ],
)
def test_what_is_no_sound_is_a_fault(value, kind):
    with pytest.raises(Fault) as caught:
        decode(value, rate=16000, array_rate=16000)
    assert caught.value.kind == kind
    assert "BytesIO" not in caught.value.reason


def test_a_sound_too_long_for_memory_is_a_fault(monkeypatch):
    monkeypatch.setattr(audio, "MOST", 3999)
    with pytest.raises(Fault) as caught:
        decode(file(tone()), rate=16000)
    assert caught.value.kind == "long_audio"


def test_a_wav_written_before_its_length_was_known_is_read():
    value = bytearray(file(tone()))
    value[4:8] = value[40:44] = b"\xff\xff\xff\xff"
    assert len(decode(bytes(value), rate=16000)["value"]) == 4000


@quick
@given(
    n=st.integers(1, 300), length=st.integers(1, 300), channels=st.sampled_from([1, 2]), seed=seeds
)
def test_a_clip_is_a_stretch_or_the_whole_and_zeros(n, length, channels, seed):
    value = sound(n, 100, channels, seed)
    found = run(audio.clip, value, seed, seconds=length / 100)
    assert found.keys() == {"value", "mask", "rate"}
    assert found["value"].shape == (*value["value"].shape[:-1], length)
    assert found["value"].dtype == np.float32
    there = min(n, length)
    assert found["mask"].tolist() == [True] * there + [False] * (length - there)
    assert not found["value"][..., there:].any()
    starts = range(n - there + 1)
    assert any(
        (found["value"][..., :there] == value["value"][..., s : s + there]).all() for s in starts
    )


def test_training_takes_every_stretch_and_evaluation_one():
    value = {"value": np.arange(10, dtype="f4"), "rate": np.int32(1)}
    starts = {run(audio.clip, value, seed, seconds=7.0)["value"][0] for seed in range(60)}
    assert starts == {0, 1, 2, 3}
    for seed in range(5):
        assert run(audio.clip, value, seed, train=False, seconds=6.0)["value"][0] == 2
        assert run(audio.clip, value, seed, False, seconds=6.0, at="first")["value"][0] == 0


@quick
@given(n=st.integers(1, 50), length=st.integers(1, 200), channels=st.sampled_from([1, 2]))
def test_repeating_fills_with_whole_copies(n, length, channels):
    value = sound(n, 100, channels)
    found = still(audio.clip, value, seconds=length / 100, pad="repeat", at="first")
    times = max(1, length // n)
    want = np.tile(value["value"], times)[..., :length]
    there = want.shape[-1]
    np.testing.assert_array_equal(found["value"][..., :there], want)
    assert not found["value"][..., there:].any()
    assert found["mask"].sum() == there
    assert found["raw"].dtype == np.uint8 and found["raw"].shape[2] == 3


LOGS = {
    "natural": np.log,
    "db": lambda x: 10 * np.log10(x),
    "whisper": lambda x: (np.maximum(np.log10(x), np.log10(x).max() - 8) + 4) / 4,
}


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize(
    "options",
    [
        {"mels": 80, "fft": 400, "hop": 160},
        {"mels": 64, "fft": 1024, "hop": 480, "low": 50.0, "high": 14000.0},
        {"mels": 20, "fft": 512, "window": 400, "hop": 77, "scale": "htk", "unit_area": False},
        {"mels": 20, "fft": 301, "window": 200, "hop": 99},
    ],
)
def test_log_mel_is_librosas(log, options):
    librosa = pytest.importorskip("librosa")
    filters = pytest.importorskip("librosa.filters")
    rate = 48000 if "low" in options else 16000
    fading = sound(5000, rate)
    fading["value"] *= np.geomspace(1, 1e-6, 5000, dtype="f4")
    silence = {"value": np.zeros(5000, "f4"), "rate": np.int32(rate)}
    for value in (sound(5000, rate), fading, silence):
        power = np.abs(
            librosa.stft(
                value["value"],
                n_fft=options["fft"],
                win_length=options.get("window"),
                hop_length=options["hop"],
                pad_mode="reflect",
            )
        )
        filters_MxK = filters.mel(
            sr=rate,
            n_fft=options["fft"],
            n_mels=options["mels"],
            fmin=options.get("low", 0.0),
            fmax=options.get("high"),
            htk=options.get("scale") == "htk",
            norm="slaney" if options.get("unit_area", True) else None,
        )
        want = LOGS[log](np.maximum(filters_MxK @ power**2, 1e-10)).T
        found = still(audio.log_mel, value, log=log, **options)
        assert found.keys() == {"value", "mask", "raw"}
        assert found["value"].dtype == np.float32
        assert found["value"].shape == (1 + 5000 // options["hop"], options["mels"])
        np.testing.assert_allclose(found["value"], want, atol=2e-4)
        assert found["mask"].all()


def test_a_tone_is_in_its_band():
    """440 Hz are 549.6 mel of HTK; bands of 100 Hz to 4 kHz, the 8th of 40 has its middle there."""
    value = decode(file(tone(16000)), rate=16000)
    found = still(audio.log_mel, value, mels=40, fft=1024, low=100.0, high=4000.0, scale="htk")
    mel = np.linspace(*(2595 * np.log10(1 + np.array([100, 4000]) / 700)), 42)[1:-1]
    nearest = np.abs(mel - 2595 * np.log10(1 + 440 / 700)).argmin()
    assert (found["value"].argmax(axis=1) == nearest).all()
    picture = found["raw"][..., 0].astype(int)
    assert picture.shape[0] == 40
    assert abs(picture.sum(axis=1).argmax() - (39 - nearest)) <= 1


def test_frames_whose_middle_is_padding_are_masked():
    value = run(audio.clip, sound(1000, 16000), seconds=0.125)
    found = run(audio.log_mel, value, hop=160)
    assert found.keys() == {"value", "mask"}
    assert found["mask"].tolist() == [160 * frame < 1000 for frame in range(1 + 2000 // 160)]
    assert (found["value"][-1] == np.log(np.float32(1e-10))).all()  # silence is a number
    found = run(audio.fbank, value)
    assert found["mask"].tolist() == [
        160 * frame + 200 < 1000 for frame in range(len(found["value"]))
    ]


def test_frames_are_cut_before_whisper_looks_for_the_loudest():
    value = sound(1600)
    value["value"][:-100] *= 1e-5
    found = run(audio.log_mel, value, log="whisper", frames=9)["value"]
    tens = run(audio.log_mel, value)["value"] / np.log(10)
    want = (np.maximum(tens[:9], tens[:9].max() - 8) + 4) / 4
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert tens.shape == (11, 80) and tens.max() - 8 > tens[:9].min()  # it would make a difference
    with pytest.raises(InputError, match="frames=12, but the clip has only 11"):
        run(audio.log_mel, value, frames=12)


def test_channels_come_last():
    value = sound(1600, channels=2)
    for transform in (audio.log_mel, audio.fbank):
        found = still(transform, value, mels=20)["value"]
        for c in (0, 1):
            alone = still(transform, {**value, "value": value["value"][c]}, mels=20)["value"]
            np.testing.assert_array_equal(found[..., c], alone)


@pytest.mark.parametrize(
    ("transform", "options", "message"),
    [
        (audio.log_mel, {"high": 9000.0}, "a rate of 16000 has 0 to 8000 Hz"),
        (audio.fbank, {"high": 9000.0}, "a rate of 16000 has 0 to 8000 Hz"),
        (audio.log_mel, {"low": 5000.0, "high": 4000.0}, "low=5000, high=4000"),
        (audio.log_mel, {"window": 500}, "window=500 should be within fft=400"),
        (audio.log_mel, {"hop": 0}, "1 or more"),
    ],
)
def test_bands_that_are_not_there_are_refused(transform, options, message):
    with pytest.raises(InputError, match=message):
        run(transform, sound(), **options)


def test_a_sound_of_one_sample_has_a_spectrogram():
    found = run(audio.log_mel, {"value": np.ones(1, "f4"), "rate": np.int32(16000)})
    assert found["value"].shape == (1, 80) and np.isfinite(found["value"]).all()
    with pytest.raises(InputError, match="shorter than 25 ms"):
        run(audio.fbank, sound(399))


@pytest.mark.parametrize("window", ["hanning", "povey"])
@pytest.mark.parametrize(("rate", "mels", "high"), [(16000, 80, None), (8000, 23, 3400.0)])
def test_fbank_is_kaldis(window, rate, mels, high):
    kaldi = pytest.importorskip("kaldi_native_fbank")
    options = kaldi.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = window
    options.frame_opts.samp_freq = rate
    options.mel_opts.num_bins = mels
    options.mel_opts.low_freq = 20
    options.mel_opts.high_freq = high or 0
    options.use_energy = False
    value = sound(4321, rate)
    value["value"] += 0.2
    fbank = kaldi.OnlineFbank(options)
    fbank.accept_waveform(rate, value["value"].tolist())
    fbank.input_finished()
    want = np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])
    found = run(audio.fbank, value, mels=mels, high=high, window=window)["value"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want, atol=1e-3)


def test_normalising_is_affine():
    value = sound()
    found = run(audio.normalise, value, mean=0.5, std=4.0)
    np.testing.assert_allclose(found["value"], (value["value"] - 0.5) / 4, atol=1e-7)
    assert found["value"].dtype == np.float32 and found["rate"] == 16000


def spectrum(frames=60, bands=40, there=60, seed=0):
    value = np.random.default_rng(seed).normal(size=(frames, bands)).astype("f4")
    return {"value": value, "mask": np.arange(frames) < there}


@quick
@given(there=st.integers(0, 60), seed=seeds, train=st.booleans())
def test_masks_are_stretches_of_the_mean(there, seed, train):
    value = spectrum(there=there)
    before = value["value"].copy()
    options = {"frequency": 9, "frequency_masks": 1, "time": 20, "time_masks": 1, "share": 0.5}
    found = run(audio.mask, value, seed, train, **options)
    np.testing.assert_array_equal(value["value"], before)
    np.testing.assert_array_equal(found["mask"], value["mask"])
    changed = found["value"] != before
    bands, frames = changed.all(axis=0), changed[:there].all(axis=1)
    if not train:
        assert not changed.any()
    np.testing.assert_array_equal(changed[:there], bands | frames[:, None])
    assert not (changed[there:] & ~bands).any()
    for line, most in ((bands, 9), (frames, min(20, there // 2))):
        assert line.sum() <= most
        assert sum(on for on, _ in itertools.groupby(line.tolist())) <= 1  # one stretch
    if changed.any():
        blank = before[:there].mean() if there else 0
        np.testing.assert_allclose(found["value"][changed], blank, atol=1e-6)


def test_masks_are_wide_and_placed_evenly():
    value = spectrum(100, 50, there=100)
    options = {"frequency": 10, "frequency_masks": 1, "time": 0}
    changed = np.stack(
        [run(audio.mask, value, s, **options)["value"][0] != value["value"][0] for s in range(2000)]
    )
    widths = np.bincount(changed.sum(axis=1), minlength=11) / 2000
    np.testing.assert_allclose(widths, 1 / 11, atol=0.03)
    inner = changed.mean(axis=0)[10:-10]
    assert inner.max() < 1.5 * inner.min()
    twice = run(audio.mask, value, 5, frequency=5, frequency_masks=9, time=5, time_masks=9)
    changed = twice["value"] != value["value"]
    assert changed.all(axis=0).sum() > 5 and changed.all(axis=1).sum() > 5
