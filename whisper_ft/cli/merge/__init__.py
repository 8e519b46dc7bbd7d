"""Merge of an adapter into its base, as a whole model that is checked against the adapter."""
