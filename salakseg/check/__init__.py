"""What would silently ruin a run: `salakseg check`, and figures of a patch folder: `salakseg stats`."""
