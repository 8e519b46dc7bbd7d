"""Upload of a run's model to the Hub, with a card made from the run directory. Training never uploads anything."""
