"""Augmentation of training windows."""
