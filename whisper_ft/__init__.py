"""Fine-tuning Whisper with a hand-written, exactly resumable loop: the plumbing below train.py and evaluate.py."""
