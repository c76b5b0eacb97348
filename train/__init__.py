"""Supervised training and self-training."""
