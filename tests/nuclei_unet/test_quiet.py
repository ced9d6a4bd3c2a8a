"""Importing changes nothing in the process; only programs load TensorFlow, quietly."""

import os
import subprocess
import sys

CHANGES_NOTHING = """
import os, sys, cv2  # OpenCV sets LD_LIBRARY_PATH
def state():
    return dict(os.environ), list(sys.meta_path), sys.getrecursionlimit(), os.fstat(2).st_ino
before = state()
import nuclei_unet
nuclei_unet.Segmenter
assert not {"tensorflow", "keras", "pipeline", "pandas", "mlflow", "distributed"} & set(sys.modules)
import pipeline
assert state() == before
from pipeline import download, preprocess, train, evaluate, visualize
assert not {"tensorflow", "keras"} & set(sys.modules)
from nuclei_unet.quiet import quiet_tensorflow
quiet_tensorflow()
import keras
assert "tensorflow" in sys.modules and keras.backend.backend() == "tensorflow"
keras.ops.ones(1) + 1
print("heard", file=sys.stderr)
"""


def test_imports_change_nothing_and_tensorflow_starts_without_a_line():
    # Other tests of this process may have loaded TensorFlow, and a shell may ask for its lines.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    done = subprocess.run([sys.executable, "-c", CHANGES_NOTHING], env=variables, capture_output=True, text=True)
    assert done.stderr == "heard\n" and not done.returncode
