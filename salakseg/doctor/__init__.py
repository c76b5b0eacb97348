"""What this machine can do and what is broken on it; every check stands for itself."""
