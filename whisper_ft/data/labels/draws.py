"""Random choices about the label of a window, as a pure function of the seed and the window's longest utterance."""

from dataclasses import dataclass

from whisper_ft.config.training import LabelsConfig
from whisper_ft.data.sampling.order import Place
from whisper_ft.runtime.rng import hash64

# Keys that tell these draws from all others about the same utterance. SpecAugment uses 0 and 1.
_TIMESTAMPS, _PROMPT, _NO_SPEECH, _PARTIAL_LAST = range(100, 104)


@dataclass(frozen=True)
class LabelDraws:
    """Draws for windows: each is True for the share of windows that the settings name.

    A window is known by the place of its longest utterance, so the draws are equal for any number of processes.
    """

    seed: int
    settings: LabelsConfig
    partial_last_share: float = 0.0

    def timestamps(self, place: Place) -> bool:
        """True if the label of a window has timestamps."""
        return self._is_drawn(place, _TIMESTAMPS, self.settings.timestamps_share)

    def prompt(self, place: Place) -> bool:
        """True if the label of a window begins with the previous text, if there is one."""
        return self._is_drawn(place, _PROMPT, self.settings.prompt_share)

    def no_speech(self, place: Place) -> bool:
        """True if a window without speech follows a window."""
        return self._is_drawn(place, _NO_SPEECH, self.settings.no_speech_share)

    def partial_last(self, place: Place) -> bool:
        """True if a window ends with the beginning of another utterance."""
        return self._is_drawn(place, _PARTIAL_LAST, self.partial_last_share)

    def _is_drawn(self, place: Place, key: int, share: float) -> bool:
        return share > 0 and hash64(self.seed, *place, key) < share * 2**64
