"""transformers, from our log-mel to tokens by `generate`, and to text by the exported tokenizer."""

import time

import torch
import transformers
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineResult, EngineRow, Floats, JobClip


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips in the number format of the weights, which transformers takes by default."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(job.threads)
    processor = WhisperProcessor.from_pretrained(job.export)
    model = WhisperForConditionalGeneration.from_pretrained(job.export).to(job.device).eval()
    generation = model.generation_config
    generation.suppress_tokens = [*(generation.suppress_tokens or ()), *job.timestamps]

    def features_of(clip: JobClip) -> torch.Tensor:
        return torch.from_numpy(clip.features)[None].to(model.device, model.dtype)

    @torch.inference_mode()
    def tokens_of(clip: JobClip) -> list[int]:
        choice = {"language": clip.language, "task": clip.task} if job.is_multilingual else {}
        features = features_of(clip)
        written: list[int] = model.generate(
            features,
            attention_mask=torch.ones(features.shape[0], features.shape[2], device=model.device),
            max_new_tokens=job.limit,
            do_sample=False,
            num_beams=1,
            **choice,
        )[0].tolist()
        written = written[len(clip.prompt) :] if written[: len(clip.prompt)] == clip.prompt else written
        return written[: written.index(job.end)] if job.end in written else written

    @torch.inference_mode()
    def logits_of(clip: JobClip, tokens: list[int]) -> Floats:
        path = torch.tensor([[*clip.prompt, *tokens]], device=model.device)
        logits: torch.Tensor = model(features_of(clip), decoder_input_ids=path).logits[0, len(clip.prompt) - 1 :]
        found: Floats = logits.float().cpu().numpy()
        return found

    begin = time.perf_counter()
    tokens = [tokens_of(clip) for clip in job.clips]
    seconds = time.perf_counter() - begin
    rows = [EngineRow(row, processor.tokenizer.decode(row, skip_special_tokens=True)) for row in tokens]
    logits = {number: logits_of(job.clips[number], tokens[number]) for number in range(job.logits_clips)}
    computed_in = str(model.dtype).removeprefix("torch.")
    return EngineResult(transformers.__version__, computed_in, seconds, rows, logits=logits)
