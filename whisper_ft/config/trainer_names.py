"""Names of settings in transformers' Trainer, in its examples and in peft, with the settings of this project.

docs/from-trainer.md has the same table; a test compares the two.
"""

from typing import NamedTuple


class TrainerName(NamedTuple):
    """Counterpart of a name that other programs have for a setting."""

    ours: str | None
    """Dotted name of the setting; None if nothing here is set for it."""
    note: str = ""
    """Difference to the other program, or the way without a setting."""


PUBLISH = "`python -m whisper_ft publish RUN --repo OWNER/NAME` uploads a model, never the training"
FOLLOWS = "the global batch: per_device_train_batch_size x gradient_accumulation_steps x GPUs; the passes follow"
FROM_PRECISION = "fp32, bf16, fp16 or auto"
DECODED = "every evaluation generates text and counts WER and CER"
ONE_PROCESS_EACH = "each GPU has one process, and the gradients are exact for any number of them"
WHOLE_ROWS = "a row without usable audio or text is listed in quarantine.jsonl; nothing else is dropped"

TRAINER_NAMES = {
    # transformers.Seq2SeqTrainingArguments
    "output_dir": TrainerName("run_dir"),
    "overwrite_output_dir": TrainerName("overwrite", "with resume: never"),
    "resume_from_checkpoint": TrainerName("resume", "auto is the default: the same command continues"),
    "ignore_data_skip": TrainerName(None, "a resume skips nothing: it goes on at the next utterance at once"),
    "max_steps": TrainerName("steps"),
    "num_train_epochs": TrainerName("epochs"),
    "num_epochs": TrainerName("epochs"),
    "data_seed": TrainerName("seed"),
    "learning_rate": TrainerName("optim.lr"),
    "optimizer": TrainerName("optim.name"),
    "adam_beta1": TrainerName("optim.betas", "both in one list"),
    "adam_beta2": TrainerName("optim.betas", "both in one list"),
    "adam_epsilon": TrainerName("optim.eps"),
    "max_grad_norm": TrainerName("optim.clip_norm"),
    "gradient_clip_val": TrainerName("optim.clip_norm"),
    "lr_scheduler_type": TrainerName("schedule.kind", "linear, cosine, constant or wsd"),
    "warmup_steps": TrainerName("schedule.warmup"),
    "warmup_ratio": TrainerName("schedule.warmup", "a value below 1 is a share of the run"),
    "num_decay_steps": TrainerName("schedule.decay", "of wsd"),
    "label_smoothing_factor": TrainerName("loss.label_smoothing"),
    "batch_size": TrainerName("batch.size"),
    "train_batch_size": TrainerName("batch.size"),
    "per_device_train_batch_size": TrainerName(
        "batch.per_device", "batch.size is the global batch, from which the accumulation follows"
    ),
    "gradient_accumulation_steps": TrainerName("batch.size", f"{FOLLOWS} from batch.per_device"),
    "auto_find_batch_size": TrainerName("batch.per_device"),
    "per_device_eval_batch_size": TrainerName("eval.batch_size"),
    "eval_accumulation_steps": TrainerName(None, "an evaluation keeps texts, not logits"),
    "fp16": TrainerName("precision", FROM_PRECISION),
    "bf16": TrainerName("precision", FROM_PRECISION),
    "fp16_full_eval": TrainerName("precision", FROM_PRECISION),
    "bf16_full_eval": TrainerName("precision", FROM_PRECISION),
    "mixed_precision": TrainerName("precision", FROM_PRECISION),
    "use_cpu": TrainerName("device", "cpu"),
    "no_cuda": TrainerName("device", "cpu"),
    "torch_compile": TrainerName("model.compile"),
    "attn_implementation": TrainerName("model.attention"),
    "activation_checkpointing": TrainerName("model.gradient_checkpointing"),
    "gradient_checkpointing_kwargs": TrainerName("model.gradient_checkpointing", "never reentrant"),
    "use_cache": TrainerName(None, "off in training and on in decoding, always"),
    "dataloader_num_workers": TrainerName("data.workers"),
    "num_workers": TrainerName("data.workers"),
    "dataloader_prefetch_factor": TrainerName("data.prefetch"),
    "dataloader_drop_last": TrainerName(None, WHOLE_ROWS),
    "remove_unused_columns": TrainerName(None, "columns that are not needed are not read"),
    "label_names": TrainerName("data.text_column"),
    "group_by_length": TrainerName("pack.enabled", "fills windows with several utterances instead"),
    "train_sampling_strategy": TrainerName("pack.enabled", "fills windows with several utterances instead"),
    "eval_strategy": TrainerName("eval.every", "a number of steps; 0 is never"),
    "evaluation_strategy": TrainerName("eval.every", "a number of steps; 0 is never"),
    "do_eval": TrainerName("eval.every", "a number of steps; 0 is never"),
    "do_train": TrainerName(None, "train.py trains, evaluate.py scores"),
    "do_predict": TrainerName(None, "evaluate.py scores a test set"),
    "eval_steps": TrainerName("eval.every"),
    "eval_on_start": TrainerName("eval.at_start", "true is the default"),
    "predict_with_generate": TrainerName(None, DECODED),
    "prediction_loss_only": TrainerName("eval.with_loss", DECODED),
    "compute_metrics": TrainerName("eval.metric", DECODED),
    "generation_max_length": TrainerName("eval.max_new_tokens"),
    "generation_num_beams": TrainerName("eval.num_beams"),
    "metric_for_best_model": TrainerName("eval.metric"),
    "load_best_model_at_end": TrainerName(None, "RUN/best is the best model, always"),
    "early_stopping_patience": TrainerName("eval.patience"),
    "early_stopping_threshold": TrainerName("eval.min_delta"),
    "save_steps": TrainerName("save.every"),
    "save_strategy": TrainerName("save.every", "a number of steps"),
    "save_total_limit": TrainerName("save.keep"),
    "save_only_model": TrainerName(None, "best/ and final/ are models alone; a checkpoint always resumes"),
    "save_safetensors": TrainerName(None, "always; no pickle is written or read"),
    "logging_steps": TrainerName("log.every"),
    "logging_strategy": TrainerName("log.every", "a number of steps; 0 is never"),
    "logging_first_step": TrainerName("log.every"),
    "logging_dir": TrainerName("track.to", "RUN/tensorboard, if tensorboard is in track.to"),
    "disable_tqdm": TrainerName("log.screen", "plain or quiet"),
    "log_level": TrainerName("log.screen", "plain or quiet"),
    "report_to": TrainerName("track.to"),
    "run_name": TrainerName("track.name"),
    "push_to_hub": TrainerName(None, PUBLISH),
    "hub_model_id": TrainerName(None, PUBLISH),
    "hub_token": TrainerName(None, f"HF_TOKEN in the environment; {PUBLISH}"),
    "hub_strategy": TrainerName(None, PUBLISH),
    "hub_private_repo": TrainerName(None, f"private is its default; {PUBLISH}"),
    "full_determinism": TrainerName(None, "docs/exactness.md says when two runs are equal to the bit"),
    "ddp_timeout": TrainerName("rank_timeout"),
    "ddp_find_unused_parameters": TrainerName(None, ONE_PROCESS_EACH),
    "ddp_backend": TrainerName(None, ONE_PROCESS_EACH),
    "local_rank": TrainerName(None, "./launch.sh starts the processes"),
    "deepspeed": TrainerName(None, f"not supported; {ONE_PROCESS_EACH}. For memory see docs/recipes.md"),
    "fsdp": TrainerName(None, f"not supported; {ONE_PROCESS_EACH}. For memory see docs/recipes.md"),
    "neftune_noise_alpha": TrainerName(None, "not supported; augment.* and model.dropout regularise"),
    # run_speech_recognition_seq2seq.py and the scripts made from it
    "model_name_or_path": TrainerName("model.name"),
    "model_id": TrainerName("model.name"),
    "freeze_encoder": TrainerName("model.freeze", "[encoder]"),
    "freeze_feature_encoder": TrainerName("model.freeze", "[encoder]"),
    "suppress_tokens": TrainerName("model.suppress"),
    "forced_decoder_ids": TrainerName("data.language", "and data.task; the model is exported with both"),
    "mask_time_prob": TrainerName("augment.time_masks", "SpecAugment by number of masks"),
    "apply_spec_augment": TrainerName("augment.time_masks", "SpecAugment by number of masks"),
    "mask_feature_prob": TrainerName("augment.frequency_masks", "SpecAugment by number of masks"),
    "dataset_name": TrainerName("data.path"),
    "dataset_config_name": TrainerName("data.config_name"),
    "train_file": TrainerName("data.path"),
    "validation_file": TrainerName("eval.path"),
    "test_file": TrainerName("eval.path", "or --data.path of evaluate.py"),
    "train_split_name": TrainerName("data.split"),
    "eval_split_name": TrainerName("eval.split"),
    "audio_column_name": TrainerName("data.audio_column"),
    "text_column_name": TrainerName("data.text_column"),
    "max_eval_samples": TrainerName("eval.max_utterances"),
    "do_lower_case": TrainerName("data.normalizer", "lower"),
    "do_remove_punctuation": TrainerName("data.normalizer", "unpunctuated"),
    "streaming": TrainerName(None, "always: data is read a chunk at a time, in a fixed order"),
    "max_duration_in_seconds": TrainerName(None, f"the window of Whisper, 30 s; {WHOLE_ROWS}"),
    "min_duration_in_seconds": TrainerName(None, WHOLE_ROWS),
    "max_label_length": TrainerName(None, f"the model's, 448 tokens; {WHOLE_ROWS}"),
    "preprocessing_num_workers": TrainerName("data.workers", "nothing is preprocessed to disk"),
    "cache_dir": TrainerName(None, "HF_HOME is the folder of the Hub's files"),
    "trust_remote_code": TrainerName(None, "no code of a data set or model is run"),
    # peft.LoraConfig and bitsandbytes
    "use_peft": TrainerName("adapter.kind", "lora"),
    "use_lora": TrainerName("adapter.kind", "lora"),
    "lora_r": TrainerName("adapter.r"),
    "lora_rank": TrainerName("adapter.r"),
    "lora_alpha": TrainerName("adapter.alpha"),
    "lora_dropout": TrainerName("adapter.dropout"),
    "target_modules": TrainerName("adapter.targets"),
    "use_rslora": TrainerName("adapter.rslora"),
    "use_dora": TrainerName("adapter.dora"),
    "load_in_8bit": TrainerName("adapter.base", "int8"),
    "load_in_4bit": TrainerName("adapter.base", "nf4"),
}
"""Counterparts by the other program's name. weight_decay needs no entry, because it is the last part of our name."""
