"""Measurements that anyone can run: `python -m benchmarks.<name>`; their results are in benchmarks/results/."""

import pipeline  # noqa: F401  (TensorFlow starts quietly, whoever imports it first)
