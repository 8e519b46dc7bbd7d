"""A micro Whisper that knows some sentences by heart, wherever they are in its window and however loud they are."""

from pathlib import Path

import numpy as np
import torch

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Row
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.whisper import load_whisper

PLACES = (0, 1, 3)  # in the set; sentence 2 begins as sentence 1 does
STEPS, BATCH, RATE = 130, 8, 3e-3
SAMPLE_RATE = 16_000


def sentences(clips: Path) -> list[Row]:
    """The clips of a set that the model learns."""
    rows = open_source(SourceConfig(path=str(clips))).read(0)
    return [rows[place] for place in PLACES]


def write_learnt_model(micro_whisper: Path, clips: Path, out: Path) -> None:
    """Train a model on the sentences, each at random places, levels and with random noise."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    loaded = load_whisper(str(micro_whisper))
    model, processor = loaded
    encode, log_mel = (
        LabelEncoder.of(model, processor.tokenizer, "be", "transcribe"),
        LogMel(processor.feature_extractor),
    )
    rows = sentences(clips)
    waves, tokens = [decode(row.audio, SAMPLE_RATE, 30.0) for row in rows], [encode(row.text) for row in rows]
    first, width = len(encode.prompt()) - 1, max(map(len, tokens))
    inputs = torch.tensor([row + [row[-1]] * (width - len(row)) for row in tokens])
    targets = torch.tensor([row[1:] + [-100] * (width - len(row)) for row in tokens])
    targets[:, :first] = -100
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 20, 2 * (1 - step / STEPS))
        chosen = random.integers(0, len(rows), BATCH).tolist()
        mels = [log_mel(_placed(waves[place], log_mel.window_samples, random)) for place in chosen]
        features = pad_windows(mels, log_mel.frames)
        logits = model(input_features=features, decoder_input_ids=inputs[chosen, :-1], use_cache=False).logits
        all_words = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[chosen].flatten())
        first_word = torch.nn.functional.cross_entropy(logits[:, first], targets[chosen][:, first])
        optimizer.zero_grad()
        (all_words + first_word).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert float(all_words.detach()) < 0.2
    model.eval()
    model.generation_config.language, model.generation_config.task = "be", "transcribe"
    export(model, config_files(*loaded), out, "")


def _placed(wave: Waveform, window: int, random: np.random.Generator) -> Waveform:
    """A sentence somewhere in a window, louder or softer than it was, in faint noise."""
    room = window - len(wave)
    begin = int(random.integers(0, room * 0.9))
    placed = np.zeros(begin + len(wave) + int(random.integers(0, room - begin)), np.float32)
    placed[begin : begin + len(wave)] = wave * random.uniform(0.5, 1.5)
    noise = random.normal(0, 10 ** random.uniform(-5, -3), len(placed))
    return np.asarray(placed + noise, np.float32)
