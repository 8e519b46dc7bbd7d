"""Transform that puts silence before and after a clip."""

import numpy as np

from whisper_ft.config.waveform import PadConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.augment.waveform.time_map import TimeMap
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.augment.waveform.waveform_transform import Surroundings, Transformed


class Pad:
    """Silence of drawn lengths before and after a clip."""

    def __init__(self, settings: PadConfig) -> None:
        self._settings = settings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return the longer waveform. The silence is shorter where the window has no room for it."""
        before, after = (
            round(draws.between(limits) * around.rate) for limits in (self._settings.before, self._settings.after)
        )
        if around.most is not None:
            before = min(before, around.most - len(waveform))
            after = min(after, around.most - len(waveform) - before)
        drawn: dict[str, float | str] = {"before": before / around.rate, "after": after / around.rate}
        return Transformed(np.pad(waveform, (before, after)), drawn, TimeMap(shift=before / around.rate))
