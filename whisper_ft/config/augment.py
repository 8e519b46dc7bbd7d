"""Settings of augmentation: masks in the log-mel, and transforms of the waveform."""

from dataclasses import dataclass, field

from whisper_ft.config.setting import require, setting
from whisper_ft.config.waveform import WaveformSetting, transforms_in

WAVEFORM = "augment.waveform"


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of each training utterance, another one in each epoch: SpecAugment and transforms of its sound."""

    time_masks: int = setting("change", 0, least=0)
    """Number of time masks; 0 is off."""
    time_mask_seconds: float = setting("change", 1.0, least=0)
    """Longest time mask in seconds; the length of each mask is random, from 0 to this."""
    time_mask_share: float = setting("change", 0.2)
    """Longest time mask as a share of the utterance. The shorter of this and time_mask_seconds is the limit."""
    frequency_masks: int = setting("change", 0, least=0)
    """Number of frequency masks, each a band of adjacent mel bins; 0 is off."""
    frequency_mask_bins: int = setting("change", 27, least=0)
    """Widest frequency mask, in mel bins; the model has 80 or 128."""
    waveform: WaveformSetting = field(default_factory=list, metadata={"resume": "change", "before": []})
    """Transforms of the sound, in order, each with its probability p: [{gain: {db: [-6, 6], p: 0.5}}, {noise: {of:
    [pink, babble, FOLDER], snr_db: [5, 25]}}]. They are gain, speed, tempo, pitch, noise, reverb, codec, band, clip and
    pad. Or a preset: light, phone or room, also as {preset: phone} within a list."""

    def __post_init__(self) -> None:
        require(0 <= self.time_mask_share <= 1, "augment.time_mask_share", self.time_mask_share, "from 0 to 1")
        transforms_in(self.waveform, WAVEFORM)
