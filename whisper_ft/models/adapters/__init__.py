"""Adapters: low-rank weights (LoRA) beside a frozen base, trained, stored, loaded and merged."""
