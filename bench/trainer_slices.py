"""Contender: Seq2SeqTrainer on train.py's global batches, sliced in every way asked for, in each variant people use.

All slicings of one number of processes run in one process group, one after the other. The inputs are those of train.py:
log-mels and labels as they come from its stream, with the start token in front, which the recipe's collator cuts. The
optimizer's settings are train.py's, so that two programs that compute the same thing end with the same weights.
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
    "trainer": "Trainer as it comes",
    "trainer_tokens_apart": "average_tokens_across_devices=False",
    "trainer_means": "model.accepts_loss_kwargs = False",
    "trainer_loss_func": "compute_loss_func given",
}


class Utterances(Dataset[dict[str, Any]]):
    """The utterances of the global batches in their order; `taken` is which ones were asked for, in turn."""

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
    """The recipe's collator; and the decoder's input, which the model makes from labels only where it is given them."""

    def __init__(self, processor: Any, config: Any) -> None:
        super().__init__(processor, config.decoder_start_token_id)
        self._config = config

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """The batch of some examples."""
        batch = super().__call__(examples)
        start = self._config.decoder_start_token_id
        batch["decoder_input_ids"] = shift_tokens_right(batch["labels"], self._config.pad_token_id, start)
        return batch


def mean_over_tokens(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """What `compute_loss_func` is for: this micro-batch's share of the mean over the label tokens of the update."""
    logits = outputs["logits"].flatten(0, 1).float()
    return F.cross_entropy(logits, labels.flatten(), reduction="sum") / num_items_in_batch


def trainer_of(task: ExactnessTask, utterances: Utterances, variant: str, **settings: Any) -> Any:
    """A Trainer with train.py's optimizer settings, ready to train."""
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
    given = {
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
        args=Seq2SeqTrainingArguments(**(given | settings)),
        train_dataset=utterances,
        data_collator=collate,
        processing_class=processor.feature_extractor,
        compute_loss_func=loss,
    )


def start_token(task: ExactnessTask) -> int:
    """The token that the decoder starts from."""
    return int(WhisperForConditionalGeneration.from_pretrained(task.model).config.decoder_start_token_id)


def rows(trainer: Any) -> list[dict[str, float]]:
    """What was logged of each step."""
    names = ("loss", "grad_norm", "learning_rate")
    return [{name: row[name] for name in names} for row in trainer.state.log_history if "loss" in row]


def main() -> None:
    """Train in each variant with each number of accumulations, and report what was logged."""
    task = from_argument(ExactnessTask)
    transformers.logging.set_verbosity_error()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    utterances, found = Utterances(task, start_token(task)), {}
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
            found[f"{variant}-{accumulate}"] = rows(trainer)
    if trainer.args.process_index == 0:
        answer({"world": trainer.args.world_size, "steps": found})


if __name__ == "__main__":
    main()
