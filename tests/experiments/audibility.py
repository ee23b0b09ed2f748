#!/usr/bin/python3
"""How well can the attributes of a made corpus be told from its sound?

Linear classifiers on simple features, trained on 80 % of the clips, judged on the rest. Prints one line an
attribute: held-out accuracy, and the share of the commonest class (metre is judged with the tempo known,
register with the lead known). Needs python3-numpy and python3-h5py.

    musicrl corpus make -o corpus --count 4000
    tests/experiments/audibility.py corpus
"""
import json
import pathlib
import sys

import h5py
import numpy as np

ATTRIBUTES = ["tempo", "lead", "accompaniment", "drums", "density", "dynamics", "articulation"]


def load(folder):
    audio, attributes = [], []
    for path in sorted(pathlib.Path(folder).glob("*.h5")):
        with h5py.File(path, "r") as file:
            rate = int(file.attrs["sample_rate"])
            audio.append(file["audio"][:])
            attributes += [json.loads(text) for text in file["attributes"][:]]
    return np.concatenate(audio), attributes, rate


def frames(clip, window, hop):  # -> [frames, window // 2 + 1]
    view = np.lib.stride_tricks.sliding_window_view(clip, window)[::hop]
    return np.abs(np.fft.rfft(view * np.hanning(window).astype(np.float32), axis=1))


def triangles(centres, bins, rate):  # -> [bins, len(centres) - 2]
    hertz = np.linspace(0, rate / 2, bins)[:, None]
    low, middle, high = centres[:-2], centres[1:-1], centres[2:]
    return np.maximum(0, np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)))


class Features:
    def __init__(self, rate):
        mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), 42)
        self.mel = triangles(700 * (10 ** (mel / 2595) - 1), 513, rate)
        keys = np.arange(32, 93)  # one filter a MIDI key, with its neighbours' keys as edges
        self.keys = triangles(440 * 2 ** ((keys - 69) / 12), 4097, rate)
        self.pitch_class = keys[1:-1] % 12
        self.hop = rate // 100

    def __call__(self, clip):
        clip = clip.astype(np.float32) / 32768
        mel = np.log(frames(clip, 1024, self.hop) @ self.mel + 1e-3)  # [frames, 40]
        flux = np.maximum(0, np.diff(mel, axis=0))
        bands = np.stack([flux[:, a:b].mean(1) for a, b in [(0, 5), (5, 20), (20, 40)]])  # [3, frames]
        rhythm = []
        for band in bands:  # autocorrelation of onset strength, lags of 0.08 to 2.5 s
            centred = band - band.mean()
            spectrum = np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2
            correlation = np.fft.irfft(spectrum)
            rhythm.append(correlation[8:250:2] / (correlation[0] + 1e-9))
        peaks = [np.mean((b[1:-1] > b[:-2]) & (b[1:-1] >= b[2:]) & (b[1:-1] > t)) for b in bands
                 for t in (0.1, 0.2, 0.4)]
        timbre = np.concatenate([mel.mean(0), mel.std(0), np.percentile(mel, [10, 90], axis=0).ravel(),
                                 flux.mean(0), flux.std(0), peaks])
        pitch = np.sqrt(frames(clip, 8192, 4 * self.hop) @ self.keys)  # [frames, 59]
        chroma = []
        for part in (pitch, pitch[:, :20], pitch[:25], pitch[-25:]):  # all, bass, beginning, end
            mean, classes = part.mean(0), self.pitch_class[: part.shape[1]]
            sums = np.array([mean[classes == c].sum() for c in range(12)])
            chroma.append(sums / (sums.sum() + 1e-9))
        loudness = np.log(clip.std() + 1e-5)
        return np.concatenate([timbre, *rhythm, [loudness]]), np.array(chroma), bands  # [features], [4, 12]


def at_beats(bands, bpm, hop_seconds):  # likeness of the onset strengths 1 to 8 beats apart -> [24]
    out = []
    for band in bands:
        band = np.convolve(band - band.mean(), np.hanning(7), "same")
        for beats in range(1, 9):
            lag = round(beats * 60 / bpm / hop_seconds)
            out.append(band[:-lag] @ band[lag:] / (band @ band + 1e-9) if lag < len(band) - 20 else 0)
    return out


def scores(train, labels, test):
    """Ridge regression on one-hot labels [n, classes] -> scores [tests, classes]."""
    mean, spread = train.mean(0), train.std(0) + 1e-6
    x, y = (train - mean) / spread, labels - labels.mean(0)
    weights = np.linalg.solve(x.T @ x + 0.01 * len(x) * np.eye(x.shape[1]), x.T @ y)
    return (test - mean) / spread @ weights + labels.mean(0)


def main(folder):
    audio, attributes, rate = load(folder)
    extract = Features(rate)
    both = [extract(clip) for clip in audio]
    x, chroma = np.array([b[0] for b in both]), np.array([b[1] for b in both])
    beats = np.array([at_beats(b[2], a["tempo_bpm"], 0.01) for b, a in zip(both, attributes)])
    cut = len(x) * 4 // 5
    print(f"{len(x)} clips, {len(x) - cut} held out\nattribute        accuracy  commonest class")

    def show(name, hits, labels):
        print(f"{name:16s} {np.mean(hits):7.3f}   {np.bincount(labels).max() / len(labels):7.3f}")

    def times(values, columns):  # every feature times every indicator: [n, features * indicators]
        return (values[:, :, None] * columns[:, None, :]).reshape(len(values), -1)

    # What a linear score cannot see alone: metre is heard against the tempo, register against the instrument.
    def indicators(name):
        names = sorted({a[name] for a in attributes})
        return np.array([[a[name] == n for n in names] for a in attributes], dtype=float)

    tempo, lead = indicators("tempo"), indicators("lead")
    for name, features in [("beats_per_bar", times(beats, np.hstack([tempo, np.ones((len(x), 1))]))),
                           ("register", np.hstack([times(x[:, :40], lead), lead]))]:
        labels = np.unique([a[name] for a in attributes], return_inverse=True)[1]
        out = scores(features[:cut], np.eye(2)[labels[:cut]], features[cut:])
        show(name, out.argmax(1) == labels[cut:], labels[cut:])

    for name in ATTRIBUTES:
        kept = [i for i, a in enumerate(attributes) if a.get(name) is not None]
        names = sorted({str(attributes[i][name]) for i in kept})
        labels = np.array([names.index(str(attributes[i][name])) for i in kept])
        split = sum(i < cut for i in kept)
        out = scores(x[kept[:split]], np.eye(len(names))[labels[:split]], x[kept[split:]])
        show(name, out.argmax(1) == labels[split:], labels[split:])

    # Key: every clip is turned to each of 12 tonics; one scorer learns "this is the tonic, and major", one
    # "and minor".
    tonic = np.array([a["tonic"] for a in attributes])
    minor = np.array([a["mode"] == "minor" for a in attributes]).astype(int)
    turned = np.array([[np.roll(c, -t, axis=1).ravel() for t in range(12)] for c in chroma])  # [n, 12, 48]
    is_key = np.zeros((len(x), 12, 2))
    is_key[np.arange(len(x)), tonic, minor] = 1
    out = scores(turned[:cut].reshape(-1, 48), is_key[:cut].reshape(-1, 2), turned[cut:].reshape(-1, 48))
    best = out.reshape(-1, 24).argmax(1)
    show("tonic", best // 2 == tonic[cut:], tonic[cut:])
    show("mode", best % 2 == minor[cut:], minor[cut:])
    show("key", best == 2 * tonic[cut:] + minor[cut:], (2 * tonic + minor)[cut:])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
