"""Parts that share no ground: where patches are, and how they are divided."""
