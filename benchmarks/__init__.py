"""Measurements that anyone can run: `python -m benchmarks.<name>`; what they wrote is in benchmarks/results/."""

import pipeline  # noqa: F401  (TensorFlow starts quietly, whoever imports it first)
