"""Contender: the bare compute. Batches are in memory; forward, loss of label tokens, backward, clip, AdamW, no more."""

import time

import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from bench.tasks import TrainingTask, answer, from_argument, training_result
from bench.watch import Watch, process_began
from whisper_ft.allocator import keep_memory
from whisper_ft.loss import TokenLoss


def main() -> None:
    """Train on the batches of train.py, and report."""
    task = from_argument(TrainingTask)
    tensors = load_file(task.batches)
    names = ("input_features", "decoder_input_ids", "labels", "predicted")
    batches = [tuple(tensors[f"{step}.{name}"] for name in names) for step in range(task.steps)]
    del tensors
    held = sum(tensor.nbytes for batch in batches[1:] for tensor in batch)  # a training needs one at a time
    step_ends = []
    keep_memory()  # as train.py
    with Watch() as watch:
        model = WhisperForConditionalGeneration.from_pretrained(task.model, dtype=torch.float32).train()
        model.model.encoder.embed_positions.requires_grad_(False)  # as train.py: sinusoids that are not trained
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(
            parameters, lr=task.learning_rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True
        )
        ready = time.time()
        step_loss = TokenLoss(model)
        for features, decoder_input_ids, labels, predicted in batches:
            loss = step_loss(features, decoder_input_ids, labels, predicted) / len(predicted)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step_ends.append(time.time())
    result = training_result(task, process_began(), ready, step_ends, float(loss.detach()))
    answer(result | watch.result(minus_bytes=held))


if __name__ == "__main__":
    main()
