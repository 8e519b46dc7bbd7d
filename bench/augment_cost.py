"""Cost of each transform of waveform augmentation: `python -m bench.augment_cost CORPUS`, milliseconds a clip.

Each transform is applied to the first clips of the corpus, cut or repeated to 5 s. The time is that of the processor,
so other programs do not count. One JSON line is printed.
"""

import json
import sys
import time
from statistics import median

import numpy as np

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.waveform import PRESETS, TRANSFORMS, WaveformSetting
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.augment.waveform.chain import WaveformChain
from whisper_ft.data.augment.waveform.waveform_transform import Surroundings
from whisper_ft.data.sampling.order import Place
from whisper_ft.data.sources import open_source

RATE, SECONDS, CLIPS = 16_000, 5.0, 40
KINDS = {"noise": ("white", "pink", "babble"), "codec": ("gsm", "ulaw", "mp3@16", "mp3@64", "opus@16", "vorbis@48")}
"""Transforms that are measured for several values of `of`."""


def measured() -> dict[str, WaveformSetting]:
    """Return the measured lists by the name of their row."""
    of_kinds = {f"{name} {kind}": [{name: {"of": kind, "p": 1}}] for name, kinds in KINDS.items() for kind in kinds}
    others = {name: [{name: {"p": 1}}] for name in TRANSFORMS if name not in KINDS}
    return {**others, **of_kinds, **{f"preset {name}": name for name in PRESETS}}


def main() -> int:
    """Print the median milliseconds of a clip for each transform, and those of decoding a clip."""
    source = open_source(SourceConfig(path=sys.argv[1]))
    rows = source.read(0)[:CLIPS]
    begin = time.process_time()
    decoded = [decode(row.audio, RATE, 30.0, row.offset, row.duration) for row in rows]
    decoding = (time.process_time() - begin) / len(rows)
    clips: list[Waveform] = [np.resize(waveform, round(SECONDS * RATE)) for waveform in decoded]
    costs = {}
    for name, setting in measured().items():
        chain, seconds = WaveformChain.of(setting, 0, "augment.waveform"), []
        assert chain is not None
        for number, waveform in enumerate(clips):
            around = Surroundings(Place(0, 0, number), rows, RATE, 30 * RATE)
            begin = time.process_time()
            chain(waveform, around)
            seconds.append(time.process_time() - begin)
        # A preset is a mean: most of its clips are cheap and some are dear.
        costs[name] = round(1000 * (sum(seconds) / len(seconds) if name.startswith("preset") else median(seconds)), 2)
    print(json.dumps({"decode a clip": round(1000 * decoding, 2), "clips": len(clips), "ms": costs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
