"""Which squares to label next: rounds of training and choosing on the protocol of the contest."""
