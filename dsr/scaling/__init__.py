"""What N GPUs do to a run: plans, learning-rate rules, noise, speed. No torch, no deepspeed, no files."""
