"""Proof on OpenAI's own weights: `make real` scores a model, fine-tunes it in two ways, and scores it again."""
