"""Adapt a model to a few annotated images, and measure whether that helps."""
