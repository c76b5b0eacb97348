"""Self-training methods against each other on the same data; `benchmarks/selftraining.py` runs it."""
