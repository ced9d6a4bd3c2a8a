"""Measurements that anyone can run: `python -m benchmarks.<name>`; their results are in benchmarks/results/."""
