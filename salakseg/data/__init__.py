"""Patches, masks, splits and the synthetic plantation."""
