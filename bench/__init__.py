"""Benchmarks: what is measured, against whom, and how to repeat it."""
