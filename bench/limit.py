"""Contender: the bare compute. Batches are in memory; forward, cross-entropy, backward, clip, fused AdamW, no more."""

import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from bench.tasks import TrainingTask, answer, from_argument, training_result
from bench.watch import Watch, process_began


def main() -> None:
    """Train on the batches of train.py, and report."""
    task = from_argument(TrainingTask)
    tensors = load_file(task.batches)
    names = ("input_features", "decoder_input_ids", "labels")
    batches = [tuple(tensors[f"{step}.{name}"] for name in names) for step in range(task.steps)]
    del tensors
    held = sum(tensor.nbytes for batch in batches[1:] for tensor in batch)  # a training needs one at a time
    step_ends = []
    with Watch() as watch:
        model = WhisperForConditionalGeneration.from_pretrained(task.model, dtype=torch.float32).train()
        model.model.encoder.embed_positions.requires_grad_(False)  # as train.py: sinusoids that are not trained
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(
            parameters, lr=task.learning_rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True
        )
        ready = time.time()
        for features, decoder_input_ids, labels in batches:
            logits = model(input_features=features, decoder_input_ids=decoder_input_ids, use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step_ends.append(time.time())
    result = training_result(task, process_began(), ready, step_ends, float(loss.detach()))
    answer(result | watch.result(minus_bytes=held))


if __name__ == "__main__":
    main()
