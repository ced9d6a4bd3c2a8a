"""nuclei-unet: a reproducible pipeline that segments cell nuclei with a U-Net.

Verbs are DVC stages (`python -m pipeline.train`): download, preprocess, train, evaluate, visualize.
Nouns are imported by them: one concept a module.
"""

import os

from pipeline import quiet

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
quiet.install()
