"""nuclei-unet's project: five DVC stages that are run (`python -m pipeline.train`), and what they share.

Stages: download, preprocess, train, evaluate, visualize. Commands beside them: `pipeline/tools/`.
"""

import nuclei_unet  # noqa: F401  (TensorFlow starts quietly, whoever imports it first)
