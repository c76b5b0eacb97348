"""From imagery and labels to a folder of patches: `salakseg prepare`."""
