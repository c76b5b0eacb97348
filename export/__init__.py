"""From a checkpoint to a portable model."""
