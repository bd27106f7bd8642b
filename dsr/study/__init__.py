"""Scaling studies: many runs from one ablation file, their statistics and the report."""
