"""The pipeline of nuclei-unet: five DVC stages (run as `python -m pipeline.train`), and what they share.

Stages: download, preprocess, train, evaluate, visualize. Other commands: `pipeline/tools/`.
"""
