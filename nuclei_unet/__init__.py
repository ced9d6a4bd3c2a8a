"""nuclei-unet: segments cell nuclei with a U-Net. Knows arrays; the project around it is in `pipeline/`."""

import os

from nuclei_unet import quiet

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
quiet.install()
