"""Spoken language of held-out clips, as the start model of a run detects it."""

from collections import Counter

import torch

from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.sources import open_held_out
from whisper_ft.decoding.long_form import audio_windows
from whisper_ft.models.inference import load_for_inference
from whisper_ft.models.whisper import quiet_libraries
from whisper_ft.runtime.errors import UsageError


@torch.inference_mode()
def spoken_languages(config: TrainingConfig, clips: int) -> Counter[str]:
    """Return the number of clips by the language that the start model hears in them, by Whisper's code.

    The first `clips` utterances of the held-out set are heard, one window of each. Raises UsageError without a held-out
    set, and for a start model with a single language.
    """
    if config.held_out is None:
        raise UsageError("--listen: the run has no held-out set (eval.path, eval.split)")
    quiet_libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_for_inference(config.model.name, "fp32", device, lambda line: None)
    generation, log_mel = loaded.model.generation_config, LogMel(loaded.processor.feature_extractor)
    names = {number: token.strip("<|>") for token, number in (getattr(generation, "lang_to_id", None) or {}).items()}
    if not names:
        raise UsageError(f"--listen: {config.model.name} has a single language")
    languages, heard = torch.tensor(sorted(names), device=device), Counter[str]()
    start = torch.tensor([[generation.decoder_start_token_id]], device=device)
    for window in audio_windows(open_held_out(config, config.held_out), log_mel, 0, 1, clips):
        if window.number == 0 and window.seconds:
            features = pad_windows([window.features], log_mel.frames).to(device)
            logits = loaded.model(input_features=features, decoder_input_ids=start).logits[0, -1, languages]
            heard[names[int(languages[logits.argmax()])]] += 1
    return heard
