"""Measurements: every figure is a median of interleaved rounds, judged by ratios in one run."""
