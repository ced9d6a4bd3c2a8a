"""Models as MLflow keeps and serves them."""

import base64
from importlib.metadata import version
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from nuclei_unet.network import model_file
from pipeline.tracking.names import SERVED


def _log_model() -> None:
    model = model_file.load()
    channels = model.input_shape[-1]
    pixels = Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1, channels), "image")])
    maps = Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1, 1), name) for name in model.output_names])
    mlflow.keras.log_model(
        model,
        name="model",
        signature=ModelSignature(inputs=pixels, outputs=maps),
        # Named, since MLflow would find them out by loading the model in a fresh process: 20 s.
        pip_requirements=[f"{package}=={version(package)}" for package in ("keras", "tensorflow", "numpy")],
    )


def _log_served() -> None:
    packages = (
        *("keras", "tensorflow", "numpy", "opencv-python-headless", "scikit-image", "scipy", "pandas", "pydantic"),
        *("ruamel-yaml", "filelock", "tqdm", "mlflow"),
    )
    mlflow.pyfunc.log_model(
        name=SERVED,
        python_model=str(Path(__file__).with_name("serving.py")),
        artifacts={"model": str(model_file.MODEL), "params": "params.yaml"},
        code_paths=[str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "nuclei_unet")],
        signature=ModelSignature(
            inputs=Schema([ColSpec(AnyType(), "image")]),
            outputs=Schema([ColSpec("string", "labels"), ColSpec("long", "count"), ColSpec(AnyType(), "measurements")]),
        ),
        input_example=pd.DataFrame({"image": [base64.b64encode(_example()).decode()]}),
        pip_requirements=[f"{package}=={version(package)}" for package in packages],
    )


def _example() -> bytes:
    """Return a small image of two nuclei as PNG."""
    image = np.full((64, 64), 20, np.uint8)
    cv2.circle(image, (20, 24), 8, 180, -1)
    cv2.circle(image, (44, 40), 10, 140, -1)
    return cv2.imencode(".png", cv2.GaussianBlur(image, (0, 0), 1))[1].tobytes()
