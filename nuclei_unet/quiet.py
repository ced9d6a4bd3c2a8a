"""Keep TensorFlow's start-up lines (oneDNN, CUDA, absl) off the terminal: they would hide ours.

Its libraries print them while they are loaded, before any log level is read. So standard error is discarded just that
long. Errors in that time still arrive as Python exceptions.
"""

import os
import sys
from contextlib import contextmanager
from importlib.machinery import PathFinder


@contextmanager
def no_stderr():
    """Discard what is written to file descriptor 2, also by C++ code."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class QuietTensorFlow(PathFinder):
    """Import hook that loads tensorflow without standard error, whoever imports it first."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Find tensorflow as Python would, and wrap its loading. Finding it is not loading it: others may only ask."""
        if name != "tensorflow":
            return None
        spec = super().find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quietly(module):
                with no_stderr():
                    load(module)

            spec.loader.exec_module = load_quietly
        return spec


def install() -> None:
    """Make the next import of tensorflow quiet, and let it log errors only."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules and QuietTensorFlow not in sys.meta_path:
        sys.meta_path.insert(0, QuietTensorFlow)
