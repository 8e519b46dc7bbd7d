"""Estimate of the memory of a training step by parts, as arithmetic on dimensions and settings, without torch.

A step has several phases: the loss goes back, then the decoder, the embeddings and the encoder, and then comes the
update. The estimate is that of the fullest phase. docs/memory.md compares it with measurements.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from whisper_ft.training.memory.activations import FLOAT, Activations
from whisper_ft.training.memory.workload import QUANTISED_BYTES, Workload

TOKENS_AT_ONCE = 2048  # label tokens in a block of logits; equal to that of optim.loss, which a test checks
CUDA_BYTES = 500_000_000
"""CUDA context with the kernels of torch and cuBLAS: about 0.5 GB on recent cards, not seen by torch's counters."""
MOMENT_BYTES = {"adamw": 8.0, "adamw_8bit": 2.03, "paged_adamw_8bit": 2.03, "adafactor": 0.0, "sgd": 4.0}
"""Bytes of the optimizer's state for each weight. Embeddings keep 8 under the optimizers of 8 bits."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes in the fullest phase of a step, by part."""

    weights: int
    start: int = 0
    """Start weights that an anchor keeps."""
    gradients: int = 0
    buckets: int = 0
    """Copy of the gradients that several processes exchange."""
    moments: int = 0
    """State of the optimizer."""
    activations: int = 0
    """Tensors stored for the backward pass, and those on their way through a layer."""
    logits: int = 0
    """Logits of the label tokens, and the loss on them."""
    batch: int = 0
    """Log-mels of a pass."""
    cuda: int = 0
    """CUDA context; 0 on a CPU."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by the name of the part."""
        return asdict(self)


def estimate(work: Workload) -> MemoryEstimate:
    """Return the memory of a step in its fullest phase."""
    return max(_phases(work), key=lambda phase: phase.total)


def _phases(work: Workload) -> Iterator[MemoryEstimate]:
    """Yield the estimate of each phase that may be the fullest."""
    model, windows, layers = work.model, work.windows, Activations(work)
    encoder, decoder = (windows * layers.stored(side) for side in ("encoder", "decoder"))
    gradients, buckets = Gradients.of(work), _buckets(work)
    before = gradients.total if work.accumulates else 0
    logits, loss = _logits(work)
    casts = Casts.of(work)

    def phase(activations: int, grown: int, of_logits: int = 0) -> MemoryEstimate:
        return MemoryEstimate(
            weights=_weights(work),
            start=Gradients.of(work).total if work.keeps_start else 0,
            gradients=grown,
            buckets=buckets,
            moments=moments_of(work),
            activations=activations,
            logits=of_logits,
            batch=windows * model.mel_bins * 2 * model.positions * FLOAT,
            cuda=CUDA_BYTES if work.on_gpu else 0,
        )

    if not work.keeps_activations("encoder"):
        yield phase(windows * layers.passing("encoder", "forward"), before)
    yield phase(encoder + decoder + casts.forward, before, logits)
    yield phase(encoder + decoder + casts.stored, before, loss)
    # The gradient of the output layer waits for that of the token embedding, which is the same tensor.
    embedding = FLOAT * model.token_embedding if work.trains_embeddings else 0
    states = windows * model.positions * 3 * layers.layer_input if work.keeps_activations("encoder") else 0
    in_layer = windows * (layers.recomputed("decoder") + layers.passing("decoder", "backward"))
    yield phase(encoder + decoder + casts.stored + states + in_layer, before + embedding)
    yield phase(encoder + casts.encoder + states, (before or gradients.decoder) + embedding * (2 if before else 1))
    if work.keeps_activations("encoder"):
        in_layer = windows * (layers.recomputed("encoder") + layers.passing("encoder", "backward"))
        yield phase(encoder + casts.encoder + in_layer, before or gradients.decoder)
    yield phase(0, gradients.total + _update_scratch(work))


@dataclass(frozen=True)
class Gradients:
    """Bytes of the gradients, all in float32."""

    decoder: int
    """Gradients that exist when the backward pass enters the encoder; those of the embeddings are among them."""
    total: int

    @classmethod
    def of(cls, work: Workload) -> "Gradients":
        """Count the gradients of all trained weights."""
        decoder = FLOAT * (work.trained_weights("decoder") + work.trained_embeddings)
        return cls(decoder, decoder + FLOAT * work.trained_weights("encoder"))


@dataclass(frozen=True)
class Casts:
    """Bytes of weights in the type of the computation, beside the weights as they are stored."""

    forward: int
    """Copies at the end of the forward pass. Autocast keeps those of trained weights until then."""
    stored: int
    """Copies that the backward pass needs; gradient checkpointing makes them again, a layer at a time."""
    encoder: int
    """Copies of the encoder among those."""

    @classmethod
    def of(cls, work: Workload) -> "Casts":
        """Count the copies that autocast makes of float32 weights, or those of one layer of a quantised base."""
        model, is_cast = work.model, work.compute_bytes < FLOAT
        output = model.token_embedding * work.compute_bytes if is_cast else 0
        if work.adapter.base != "float":
            one = model.width * model.encoder_inner * work.compute_bytes
            return cls(one + output, one + output, one)
        if not is_cast:
            return cls(0, 0, 0)
        encoder = (model.encoder_layers * model.encoder_matrices + model.convolution_matrices) * work.compute_bytes
        decoder = model.decoder_layers * model.decoder_matrices * work.compute_bytes
        encoder *= work.keeps_activations("encoder")
        decoder *= work.keeps_activations("decoder")
        if not work.checkpointing:
            return cls(encoder + decoder + output, encoder + decoder + output, encoder)
        one = max(model.encoder_matrices, model.decoder_matrices) * work.compute_bytes
        return cls((0 if work.has_adapter else encoder + decoder) + output, max(output, one), one)


def _weights(work: Workload) -> int:
    """Return the bytes of the weights: float32, but for the linear layers of a quantised base."""
    model = work.model
    adapters = sum(work.adapter_weights(side) for side in ("encoder", "decoder")) if work.has_adapter else 0
    total = FLOAT * (model.weights + adapters)
    if work.adapter.base == "float":
        return total
    matrices = model.encoder_layers * model.encoder_matrices + model.decoder_layers * model.decoder_matrices
    return total - int(matrices * (FLOAT - QUANTISED_BYTES[work.adapter.base]))


def moments_of(work: Workload) -> int:
    """Return the bytes of the optimizer's state."""
    layers = work.trained_weights("encoder") + work.trained_weights("decoder")
    each = MOMENT_BYTES[work.optimizer] if work.optimizer != "sgd" or work.momentum else 0.0
    of_embeddings = MOMENT_BYTES["adamw"] if "8bit" in work.optimizer else each
    return int(layers * each + work.trained_embeddings * of_embeddings)


def _buckets(work: Workload) -> int:
    """Return the bytes of the buckets in which several processes exchange gradients."""
    return Gradients.of(work).total if work.processes > 1 else 0


def _update_scratch(work: Workload) -> int:
    """Return the bytes that an update takes beside the state: Adafactor has two copies of the largest gradient."""
    if work.optimizer != "adafactor":
        return 0
    largest = work.model.token_embedding if work.trains_embeddings else work.model.width * work.model.encoder_inner
    return 2 * FLOAT * largest


def _logits(work: Workload) -> tuple[int, int]:
    """Return the bytes of logits and loss at the end of the forward pass, and while the loss goes back.

    Forward: logits, their copy in float32 with autocast, and their log-softmax. Backward: the log-softmax and two
    gradients of its size. More tokens than TOKENS_AT_ONCE are taken in blocks.

    A pass of the anchor has both twice, of the model and of its start, and the divergence of each value.
    """
    values = min(work.windows * work.labels, TOKENS_AT_ONCE) * work.model.vocabulary
    forward = 2 * FLOAT if work.compute_bytes == FLOAT else 2 * FLOAT + work.compute_bytes
    if work.diverges:
        return values * (2 * forward + FLOAT), values * FLOAT * 5
    return values * forward, values * FLOAT * 3
