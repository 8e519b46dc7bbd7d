"""A model of a run on the Hub, with a card made of what the run wrote. Never part of a training."""
