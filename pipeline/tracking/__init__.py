"""The mirror in MLflow; the only place that imports mlflow."""
