"""onnxruntime, from our log-mel: tokens by the graphs for transformers.js, and logits by those for sherpa-onnx."""

import time
from pathlib import Path

import numpy as np
import onnxruntime

from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineResult, EngineRow, Floats, JobClip

CACHE_SWITCH, PAST, PRESENT = "use_cache_branch", "past_key_values.", "present."


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips greedily with the model's own suppressed tokens, which the graphs do not contain."""
    ending = "_quantized.onnx" if job.quantization == "int8" else ".onnx"
    encoder = _session(job.export / f"onnx/encoder_model{ending}", job)
    decoder = CachedDecoder(_session(job.export / f"onnx/decoder_model_merged{ending}", job))

    def encode(clip: JobClip) -> Floats:
        (found,) = encoder.run(["last_hidden_state"], {"input_features": clip.features[None]})
        encoded: Floats = found
        return encoded

    begin = time.perf_counter()
    rows = [EngineRow(_greedy(decoder, encode(clip), clip.prompt, job)) for clip in job.clips]
    seconds = time.perf_counter() - begin
    for number, clip in enumerate(job.clips[: job.language_clips]):
        rows[number] = EngineRow(rows[number].tokens, None, _language(decoder, encode(clip), job, clip))
    logits = _logits(job, rows)
    return EngineResult(onnxruntime.__version__, job.quantization, seconds, rows, logits=logits)


def _session(path: Path, job: EngineJob) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class CachedDecoder:
    """Decoder of the merged graph, which is called as transformers.js calls it."""

    def __init__(self, session: onnxruntime.InferenceSession):
        self._session = session
        self._outputs = [value.name for value in session.get_outputs()]
        self._empty = {value.name: _empty(value) for value in session.get_inputs() if value.name.startswith(PAST)}
        self._caches: dict[str, Floats] = {}

    def start(self) -> None:
        """Forget all tokens."""
        self._caches = {}

    def __call__(self, encoded: Floats, tokens: list[int]) -> Floats:
        """Return the logits [n, V] after each of some further tokens."""
        is_later = bool(self._caches)
        inputs = {"input_ids": np.array([tokens], np.int64), "encoder_hidden_states": encoded}
        inputs |= self._caches or self._empty
        inputs[CACHE_SWITCH] = np.array([is_later])
        outputs = dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        for name, values in outputs.items():
            if name.startswith(PRESENT) and not (is_later and ".encoder." in name):
                self._caches[name.replace(PRESENT, PAST)] = values
        logits: Floats = outputs["logits"][0]
        return logits


def _empty(value: onnxruntime.NodeArg) -> Floats:
    """Cache of a pass without past: no positions."""
    _, heads, _, width = value.shape
    return np.zeros((1, heads, 0, width), np.float32)


def _greedy(decoder: CachedDecoder, encoded: Floats, prompt: list[int], job: EngineJob) -> list[int]:
    decoder.start()
    logits, tokens = decoder(encoded, prompt)[-1], list[int]()
    while True:
        logits[job.suppressed] = -np.inf
        if not tokens:
            logits[job.suppressed_at_begin] = -np.inf
        if (best := int(logits.argmax())) == job.end:
            return tokens
        tokens.append(best)
        if len(tokens) == job.limit:
            return tokens
        logits = decoder(encoded, [best])[-1]


def _language(decoder: CachedDecoder, encoded: Floats, job: EngineJob, clip: JobClip) -> str:
    """Code of the language whose token has the highest logit after the start token."""
    decoder.start()
    logits = decoder(encoded, clip.prompt[:1])[-1]
    metadata = _session(job.export / "sherpa-onnx/model-encoder.onnx", job).get_modelmeta().custom_metadata_map
    languages = [int(number) for number in metadata["all_language_tokens"].split(",")]
    codes: list[str] = metadata["all_language_codes"].split(",")
    return codes[int(logits[languages].argmax())]


def _logits(job: EngineJob, rows: list[EngineRow]) -> dict[int, Floats]:
    """Logits [n + 1, V] of the first clips by the other pair of graphs, whose caches have a fixed length."""
    encoder = _session(job.export / "sherpa-onnx/model-encoder.onnx", job)
    decoder = _session(job.export / "sherpa-onnx/model-decoder.onnx", job)
    sizes = {
        name: int(size) for name, size in encoder.get_modelmeta().custom_metadata_map.items() if name.startswith("n_")
    }
    found = {}
    for number, clip in enumerate(job.clips[: job.logits_clips]):
        keys, values = encoder.run(None, {"mel": clip.features[None]})
        shape = (sizes["n_text_layer"], 1, sizes["n_text_ctx"], sizes["n_text_state"])
        caches, steps = [np.zeros(shape, np.float32)] * 2, []
        offset = 0
        for tokens in (clip.prompt, *([token] for token in rows[number].tokens or ())):
            inputs = {
                "tokens": np.array([tokens], np.int64),
                "in_n_layer_self_k_cache": caches[0],
                "in_n_layer_self_v_cache": caches[1],
                "n_layer_cross_k": keys,
                "n_layer_cross_v": values,
                "offset": np.array([offset], np.int64),
            }
            logits, *caches = decoder.run(None, inputs)
            steps.append(logits[0, -1])
            offset += len(tokens)
        found[number] = np.stack(steps)
    return found
