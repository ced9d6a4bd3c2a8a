"""Measurements that anyone can run: `python -m benchmarks.<name>`; what they wrote is in benchmarks/results/."""
