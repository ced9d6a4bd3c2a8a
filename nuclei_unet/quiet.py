"""Keep TensorFlow's start-up lines (oneDNN, CUDA, absl) off the terminal: they would hide ours."""

import os
import sys


def quiet_tensorflow() -> None:
    """Import TensorFlow, as the backend of Keras, without its start-up lines. Call this before anything imports Keras.

    TensorFlow's libraries print while they are loaded, before any log level is read. So file descriptor 2 is discarded
    just that long. Errors in that time still arrive as Python exceptions. Libraries of this project do not call this,
    only programs do: it changes the process.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
