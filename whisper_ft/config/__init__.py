"""Settings of every program: their types, bounds, and the rules for changing them when a run is resumed."""
