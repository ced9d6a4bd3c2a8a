"""Scores of label images against the truth: the measures, their catalogue, what became of each nucleus."""
