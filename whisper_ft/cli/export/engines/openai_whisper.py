"""openai-whisper, from our log-mel to tokens and text by its own decoding."""

import json

import torch
import whisper
from whisper.decoding import DecodingOptions

from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineResult, EngineRow, Floats, JobClip
from whisper_ft.cli.export.engines.openai_decoding import decode_clips, options_of


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips. openai-whisper loads the weights as float32; float16 is computed on a GPU only."""
    torch.set_num_threads(job.threads)
    model = whisper.load_model(str(job.export / "model.pt"), device=job.device)
    heads = job.export / "alignment_heads.json"
    if heads.exists():
        model.set_alignment_heads(json.loads(heads.read_text())["base85"].encode())
    is_half = job.device == "cuda" and job.quantization == "float16"

    def features_of(clip: JobClip) -> torch.Tensor:
        return torch.from_numpy(clip.features).to(model.device)

    def row_of(clip: JobClip) -> EngineRow:
        options = DecodingOptions(**options_of(job, clip), fp16=is_half)
        result = whisper.decode(model, features_of(clip), options)
        return EngineRow(result.tokens, result.text)

    @torch.inference_mode()
    def logits_of(clip: JobClip, tokens: list[int]) -> Floats:
        path = torch.tensor([[*clip.prompt, *tokens]], device=model.device)
        states = model.embed_audio(features_of(clip)[None])
        found: Floats = model.logits(path, states)[0, len(clip.prompt) - 1 :].float().cpu().numpy()
        return found

    def shares_of(clip: JobClip) -> dict[str, float]:
        shares: dict[str, float] = whisper.detect_language(model, features_of(clip))[1]
        return shares

    decoded = decode_clips(job, row_of, shares_of, logits_of)
    computed_in = "float16" if is_half else "float32"
    return EngineResult(whisper.__version__, computed_in, decoded.seconds, decoded.rows, logits=decoded.logits)
