"""Contender: Seq2SeqTrainer on train.py's global batches, sliced in several ways and in several variants.

All runs with one number of processes share a process group, and run one after the other. Log-mels and labels come from
train.py's stream. The labels get the start token, which the recipe's collator cuts. The optimizer's settings are
train.py's, so two programs that compute the same end with the same weights.
"""

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from bench.tasks import ExactnessTask, answer, from_argument
from bench.trainer import ALONE, Collator

VARIANTS = {
    "trainer": "Trainer with its defaults",
    "trainer_tokens_apart": "average_tokens_across_devices=False",
    "trainer_means": "model.accepts_loss_kwargs = False",
    "trainer_loss_func": "compute_loss_func given",
}


class Utterances(Dataset[dict[str, Any]]):
    """Data set of the utterances in the global batches, in their order. `taken` records the indices that were read."""

    def __init__(self, task: ExactnessTask, start_token: int) -> None:
        self._tensors, self._batch, self._start = load_file(task.batches), task.batch, start_token
        self._steps = len([name for name in self._tensors if name.endswith(".labels")])
        self.taken: list[int] = []

    def __len__(self) -> int:
        return self._steps * self._batch

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.taken.append(index)
        step, slot = divmod(index, self._batch)
        labels = self._tensors[f"{step}.labels"][slot]
        tokens = [self._start, *labels[labels != -100].tolist()]
        return {"input_features": self._tensors[f"{step}.input_features"][slot], "labels": tokens}


class CollatorWithDecoderInput(Collator):
    """Collator of the recipe that also adds the decoder's input.

    The model makes this input only if it computes the loss itself from the labels.
    """

    def __init__(self, processor: Any, config: Any) -> None:
        super().__init__(processor, config.decoder_start_token_id)
        self._config = config

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """Return the batch of some examples."""
        batch = super().__call__(examples)
        start = self._config.decoder_start_token_id
        batch["decoder_input_ids"] = shift_tokens_right(batch["labels"], self._config.pad_token_id, start)
        return batch


def mean_over_tokens(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Return the micro-batch's part of the mean loss over all label tokens of the update, for `compute_loss_func`."""
    logits = outputs["logits"].flatten(0, 1).float()
    return F.cross_entropy(logits, labels.flatten(), reduction="sum") / num_items_in_batch


def trainer_of(task: ExactnessTask, utterances: Utterances, variant: str, **settings: Any) -> Any:
    """Make a Trainer with train.py's optimizer settings, ready to train."""
    processor = WhisperProcessor.from_pretrained(task.model, language=task.language, task="transcribe")
    model = WhisperForConditionalGeneration.from_pretrained(task.model, dtype=torch.float32)
    model.model.encoder.embed_positions.requires_grad_(False)  # as train.py: transformers 5 would train the sinusoids
    collate, loss = Collator(processor, model.config.decoder_start_token_id), None
    if variant == "trainer_means":
        model.accepts_loss_kwargs = False
    elif variant == "trainer_tokens_apart":
        settings["average_tokens_across_devices"] = False
    elif variant == "trainer_loss_func":
        collate, loss = CollatorWithDecoderInput(processor, model.config), mean_over_tokens
    defaults = {
        "per_device_train_batch_size": task.batch,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-6,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_steps": task.steps,
        "logging_steps": 1,
        **ALONE,
    }
    return Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(**(defaults | settings)),
        train_dataset=utterances,
        data_collator=collate,
        processing_class=processor.feature_extractor,
        compute_loss_func=loss,
    )


def start_token(task: ExactnessTask) -> int:
    """Return the first token of the decoder's input."""
    return int(WhisperForConditionalGeneration.from_pretrained(task.model).config.decoder_start_token_id)


def rows(trainer: Any) -> list[dict[str, float]]:
    """Return logged loss, gradient norm and learning rate of each step."""
    names = ("loss", "grad_norm", "learning_rate")
    return [{name: row[name] for name in names} for row in trainer.state.log_history if "loss" in row]


def main() -> None:
    """Train each variant with each number of accumulations, and print the logged steps."""
    task = from_argument(ExactnessTask)
    transformers.logging.set_verbosity_error()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    utterances, steps = Utterances(task, start_token(task)), {}
    for variant in VARIANTS:
        for accumulate in task.accumulations:
            folder = Path(task.scratch, f"{variant}-{accumulate}")
            trainer = trainer_of(
                task,
                utterances,
                variant,
                output_dir=str(folder),
                per_device_train_batch_size=task.batch // (accumulate * world),
                gradient_accumulation_steps=accumulate,
                train_sampling_strategy="sequential",
            )
            taken = trainer.get_total_train_batch_size(trainer.args)
            if taken != task.batch:
                raise RuntimeError(f"the Trainer takes {taken} utterances per update in place of {task.batch}")
            trainer.train()
            trainer.save_model(str(folder))
            steps[f"{variant}-{accumulate}"] = rows(trainer)
    if trainer.args.process_index == 0:
        answer({"world": trainer.args.world_size, "steps": steps})


if __name__ == "__main__":
    main()
