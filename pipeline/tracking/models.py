"""Models as MLflow keeps, serves and registers them."""

import base64
import tempfile
from importlib.metadata import version
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

import nuclei_unet
from nuclei_unet.errors import InputError
from pipeline import layout
from pipeline.report.scores import DECISIVE
from pipeline.tracking import store
from pipeline.tracking.names import SERVED


def log_trained() -> None:
    """Log the trained model to the active run, as `mlflow.keras.load_model` loads it."""
    from nuclei_unet.network import keras_file

    model = keras_file.load(layout.TRAINED)
    channels = model.input_shape[-1]
    pixels = Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1, channels), "image")])
    maps = Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1, 1), name) for name in model.output_names])
    mlflow.keras.log_model(
        model,
        name="model",
        signature=ModelSignature(inputs=pixels, outputs=maps),
        # Listed here, since MLflow would find them by loading the model in a new process, which takes 20 s.
        pip_requirements=[f"{package}=={version(package)}" for package in ("keras", "tensorflow", "numpy")],
    )


def log_served(commit: str | None) -> None:
    """Log the evaluated model to the active run as it is served; its recipe names the commit."""
    packages = (
        *("keras", "tensorflow", "numpy", "opencv-python-headless", "scikit-image", "scipy", "pandas", "pydantic"),
        "mlflow",
    )
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, layout.MODEL.name)
        from nuclei_unet.network import keras_file

        recipe = keras_file.read_recipe(layout.MODEL)
        keras_file.copy_with_recipe(layout.MODEL, model, recipe.model_copy(update={"commit": commit}))
        mlflow.pyfunc.log_model(
            name=SERVED,
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={"model": str(model)},
            code_paths=[str(Path(nuclei_unet.__file__).parent)],
            signature=ModelSignature(
                inputs=Schema([ColSpec(AnyType(), "image")]),
                outputs=Schema(
                    [ColSpec("string", "labels"), ColSpec("long", "count"), ColSpec(AnyType(), "measurements")]
                ),
            ),
            input_example=pd.DataFrame({"image": [base64.b64encode(example()).decode()]}),
            pip_requirements=[f"{package}=={version(package)}" for package in packages],
        )


def example() -> bytes:
    """Return a small image of two nuclei as PNG."""
    image = np.full((64, 64), 20, np.uint8)
    cv2.circle(image, (20, 24), 8, 180, -1)
    cv2.circle(image, (44, 40), 10, 140, -1)
    return cv2.imencode(".png", cv2.GaussianBlur(image, (0, 0), 1))[1].tobytes()


def fetch(address: str) -> Path:
    """Return the model file of an address such as `models:/nuclei-unet@champion`, from the store in use.

    Only the file `model.keras` is taken; Python code that may lie beside it is not run. Raises InputError that names
    the address if the store does not answer or has no such model, or if it was not logged by `log_served`.
    """
    mlflow.set_tracking_uri(store.store())
    try:
        folder = Path(mlflow.artifacts.download_artifacts(address, dst_path=tempfile.mkdtemp()))
    except (mlflow.MlflowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), "")[:160]
        raise InputError(f"{address}: no such model in {store.store()} ({reason})") from None
    found = sorted(folder.rglob(layout.MODEL.name))
    if not found:
        raise InputError(f"{address}: holds no {layout.MODEL.name}; name a model that evaluate registered")
    return found[0]


def champion(client: mlflow.MlflowClient, name: str, version: str, metrics: dict[str, float], margin: float) -> str:
    """Make a version of the registered model `name` the champion if it is better by the margin; return why, or not."""
    score = metrics[DECISIVE]
    try:
        holder = client.get_model_version_by_alias(name, "champion")
    except mlflow.MlflowException:
        client.set_registered_model_alias(name, "champion", version)
        return f"yes: the first one, {score:.4f}"
    if str(holder.version) == str(version):
        return f"yes: it already is, {score:.4f}"
    before = float(holder.tags["validation_dsb_score"])
    if score > before + margin:
        client.set_registered_model_alias(name, "champion", version)
        return f"yes: {score:.4f} is above {before:.4f} of version {holder.version} by more than {margin}"
    return f"no: {score:.4f} is not above {before:.4f} of version {holder.version} by more than {margin}"
