"""What a rank runs: the training loop and all that it needs."""
