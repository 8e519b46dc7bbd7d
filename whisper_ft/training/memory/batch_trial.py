"""Trial of `batch.per_device: auto`: passes of the longest windows are run, and the largest that fits is taken.

A trial leaves no trace: weights, moments and random numbers are as before, so the run is that with the number written.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.types import Batch
from whisper_ft.models.whisper import AUTOCAST
from whisper_ft.optim.loss import TokenLoss
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.device_memory import is_out_of_memory
from whisper_ft.runtime.errors import OutOfMemoryError
from whisper_ft.runtime.host_memory import free_bytes, resident_bytes, resident_peak
from whisper_ft.runtime.printable import counted
from whisper_ft.training.learner import Learner
from whisper_ft.training.memory.memory_estimate import MemoryEstimate, estimate
from whisper_ft.training.memory.memory_fit import RESERVE, windows_of
from whisper_ft.training.memory.model_dimensions import ModelDimensions
from whisper_ft.training.memory.workload import Workload

CAUTION = 1.2  # factor on the estimated growth from one pass to a larger one, before the larger one is run on a CPU


def settle_per_device(
    config: TrainingConfig,
    learner: Learner,
    collectives: Collectives,
    say: Callable[[str], object],
    room: int | None = None,
) -> TrainingConfig:
    """Return the configuration with a number in place of `batch.per_device: auto`. Every rank must call it.

    The number is the least of all ranks, and at most the rank's share of batch.size. Any other setting is left.

    Parameters
        say: reports a line for the user.
        room: bytes that the process may take on a CPU; None for those that are free.

    Raises OutOfMemoryError if not even one window fits.
    """
    if config.batch.per_device != "auto":
        return config
    most = windows_of(config, collectives.world)
    trial = Trial(config, learner, collectives.world, room)
    with trial.without_trace():
        found = largest_that_runs(trial.runs, most)
    least = min(collectives.gather(found))
    labels = learner.model.config.max_target_positions
    if not least:
        raise OutOfMemoryError(f"out of memory in the trial of batch.per_device: one window with {labels} label tokens")
    reason = "which is the whole share of this process" if least == most else f"and {least + 1} would not"
    say(f"batch.per_device: {counted(least, 'window')} with {labels} label tokens fit in a pass, {reason}")
    return with_values(config, {"batch.per_device": least})


def largest_that_runs(runs: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to `most` that runs; 0 if 1 does not. It is doubled, then halved in between."""
    fits, size, fails = 0, 1, most + 1
    while size < fails:
        if runs(size):
            fits = size
            size = min(2 * size, most)
            if fits == most:
                return most
        else:
            fails = size
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if runs(middle):
            fits = middle
        else:
            fails = middle
    return fits


class Trial:
    """Passes of the longest windows through the model of a run, with forward and backward pass but without an update.

    A trial has no moments of the optimizer, and no buckets of several processes. Their memory is left free, and on a
    GPU a reserve for blocks that lie scattered.
    """

    def __init__(self, config: TrainingConfig, learner: Learner, world: int, room: int | None) -> None:
        self._config, self._learner, self._device = config, learner, learner.device
        self._share = windows_of(config, world)
        model = ModelDimensions.from_config(learner.model.config.to_dict())
        is_cuda = self._device.type == "cuda"
        self._work = Workload.of(config, model, on_gpu=is_cuda, windows=1, processes=world)
        self._loss = TokenLoss(
            learner.model,
            config.loss.label_smoothing,
            learner.encode.end if config.labels.timestamps_share else None,
        )
        self._start = resident_bytes()
        self._room = free_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if room is None else room
        self.ran: tuple[int, int] | None = None
        """Windows of the last pass that ran on a CPU, and its bytes."""

    def runs(self, windows: int) -> bool:
        """Return True if passes of so many windows fit."""
        return self._runs_on_gpu(windows) if self._device.type == "cuda" else self._runs_on_cpu(windows)

    def _runs_on_gpu(self, windows: int) -> bool:
        """Run the passes, while the memory of later steps is taken."""
        reserve = int(torch.cuda.get_device_properties(self._device).total_memory * RESERVE)
        try:
            taken = torch.empty(self._later(windows) + reserve, dtype=torch.uint8, device=self._device)
            self._pass(windows)
            del taken
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self._clear()
        return True

    def _runs_on_cpu(self, windows: int) -> bool:
        """Run the passes if the last ones promise that they fit, because a machine without memory ends the process."""
        if not self.promises(windows):
            return False
        try:
            with resident_peak() as peak:
                self._pass(windows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self._clear()
        taken = peak.bytes - self._start + self._later(windows)
        self.ran = windows, taken
        return taken <= self._room or windows == 1

    def promises(self, windows: int) -> bool:
        """Return True if so many windows fit by the last pass that ran, and by the estimate of the growth from it."""
        if self.ran is None:
            return True
        last, taken = self.ran
        growth = self.estimate(windows).total - self.estimate(last).total
        return taken + CAUTION * growth <= self._room

    def _pass(self, windows: int) -> None:
        """Run forward and backward pass, twice if an update has several passes, as gradients then exist in the second.

        A pass of the anchor follows, if the run has any.

        The random numbers are seeded anew for each micro-batch, so those drawn here change none of a run's.
        """
        precision, device = self._config.precision, self._device
        batch = self._longest(windows).to(device)
        for _ in range(2 if windows < self._share else 1):
            with torch.autocast(device.type, AUTOCAST[precision], enabled=precision != "fp32"):
                losses = self._loss(batch.input_features, batch.decoder_input_ids, batch.labels, batch.predicted)
            torch.autograd.backward(losses.reshape(-1)[0])
            del losses
        anchor = self._learner.anchor
        if anchor is not None and anchor.model is not None:
            size = self._config.anchor.utterances(self._config.batch.size)
            batch = self._longest(min(windows, size)).to(device)
            with torch.autocast(device.type, AUTOCAST[precision], enabled=precision != "fp32"):
                start = anchor.output(batch)
                loss = self._loss(batch.input_features, batch.decoder_input_ids, batch.labels, batch.predicted, start)
            torch.autograd.backward(loss)

    def _longest(self, windows: int) -> Batch:
        """Return a batch of silence, with labels as long as the model allows."""
        learner, labels = self._learner, self._learner.model.config.max_target_positions
        tokens = torch.full((windows, labels), learner.encode.end)
        features = torch.zeros(windows, learner.log_mel.bins, learner.log_mel.frames)
        return Batch(features, tokens, tokens, torch.arange(windows * labels), ())

    def _clear(self) -> None:
        """Free everything that a pass left."""
        for parameter in self._learner.parameters.values():
            parameter.grad = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def estimate(self, windows: int) -> MemoryEstimate:
        """Return the estimate for passes of so many windows."""
        return estimate(self._work.with_windows(windows))

    def _later(self, windows: int) -> int:
        """Return the bytes that a step takes beside its passes: moments, and the buckets of several processes."""
        step = self.estimate(windows)
        return step.moments + step.buckets

    @contextmanager
    def without_trace(self) -> Iterator[None]:
        """Train every layer in the block, and restore the model's mode and the random numbers after it."""
        model, device = self._learner.model, self._device
        sides = (model.model.encoder, model.model.decoder)
        before, was_training = [side.layerdrop for side in sides], model.training
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
            self._loss.train()
            for side in sides:
                side.layerdrop = 0.0  # a dropped layer takes no memory
            try:
                yield
            finally:
                for side, layerdrop in zip(sides, before, strict=True):
                    side.layerdrop = layerdrop
                model.train(was_training)
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
