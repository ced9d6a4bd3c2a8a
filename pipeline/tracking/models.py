"""Models as MLflow keeps, serves and registers them."""

import base64
import tempfile
from importlib.metadata import version
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModel, Run
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

import nuclei_unet
from nuclei_unet.errors import InputError
from nuclei_unet.files import file_digest
from nuclei_unet.prediction.models import describe
from pipeline import layout
from pipeline.report.scores import DECISIVE
from pipeline.tracking import store
from pipeline.tracking.names import SERVED

# Listed here, since MLflow would find them by loading a model in a new process, which takes 20 s.
TRAINED_WITH = ("keras", "tensorflow", "numpy")
SERVED_WITH = (
    *("onnxruntime", "numpy", "opencv-python-headless", "scikit-image", "scipy", "pandas", "pydantic", "mlflow"),
)


def log_trained(client: mlflow.MlflowClient, run: Run) -> None:
    """Log the trained model to the active run, once, as `mlflow.keras.load_model` loads it."""
    from nuclei_unet.network import keras_file

    if _logged(client, run, "model"):
        return
    model, _ = keras_file.load(layout.TRAINED)
    channels = model.input_shape[-1]
    pixels = Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1, channels), "image")])
    maps = Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1, 1), name) for name in model.output_names])
    signature = ModelSignature(inputs=pixels, outputs=maps)
    mlflow.keras.log_model(model, name="model", signature=signature, pip_requirements=_exact(TRAINED_WITH))


def log_served(commit: str | None) -> str:
    """Log models/model.onnx to the active run as it is served; its metadata names the commit. Return the model's id."""
    from nuclei_unet.network import onnx_file

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, layout.MODEL.name)
        onnx_file.copy(layout.MODEL, model, describe(layout.MODEL)[0].but(commit=commit))
        return mlflow.pyfunc.log_model(
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
            pip_requirements=_exact(SERVED_WITH),
        ).model_id


def _exact(packages: tuple[str, ...]) -> list[str]:
    return [f"{package}=={version(package)}" for package in packages]


def _logged(client: mlflow.MlflowClient, run: Run, name: str) -> list[LoggedModel]:
    models = client.search_logged_models([run.info.experiment_id])
    return [model for model in models if model.name == name and model.source_run_id == run.info.run_id]


def example() -> bytes:
    """Return a small image of two nuclei as PNG."""
    image = np.full((64, 64), 20, np.uint8)
    cv2.circle(image, (20, 24), 8, 180, -1)
    cv2.circle(image, (44, 40), 10, 140, -1)
    return cv2.imencode(".png", cv2.GaussianBlur(image, (0, 0), 1))[1].tobytes()


def fetch(address: str) -> Path:
    """Return the model file of an address such as `models:/nuclei-unet@champion`, from the store in use.

    Only the file `model.onnx` is taken; Python code that may lie beside it is not run. Raises InputError that names
    the address if the store does not answer or has no such model, or if it was not logged by `log_served`.
    """
    store.client()
    try:
        folder = Path(mlflow.artifacts.download_artifacts(address, dst_path=tempfile.mkdtemp()))
    except (mlflow.MlflowException, OSError) as error:
        raise InputError(f"{address}: no such model in {store.store()} ({store.reason(error)})") from None
    paths = sorted(folder.rglob(layout.MODEL.name))
    if not paths:
        raise InputError(f"{address}: holds no {layout.MODEL.name}; name a model that evaluate registered")
    return paths[0]


def register(client: mlflow.MlflowClient, run: Run, metrics: dict[str, float], margin: float) -> None:
    """Register models/model.onnx with its scores, once; make it the champion if it is better by the margin."""
    name, run_id, tags = store.experiment_name(), run.info.run_id, run.data.tags
    if describe(layout.MODEL)[0].source != file_digest(layout.TRAINED):
        raise InputError(f"{layout.MODEL}: not made from {layout.TRAINED}; evaluate it first")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="U-Net that finds cell nuclei, ready to serve")
    digest = file_digest(layout.MODEL)
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    registered = next((known for known in versions if known.tags.get("sha256") == digest), None)
    if registered is None:
        described = {"sha256": digest, "validation_dsb_score": metrics[DECISIVE]}
        described |= {"test_dsb_score": metrics[DECISIVE.replace("validation", "test")]}
        described |= {key: value for key, value in tags.items() if key.startswith("git_")}
        dirty = "-dirty" if tags.get("git_dirty") == "true" else ""
        model = log_served(f"{tags['git_commit']}{dirty}" if "git_commit" in tags else None)
        # A server accepts such a source only together with the id; a database does not need it.
        registered = client.create_model_version(name, f"models:/{model}", run_id, tags=described, model_id=model)
    said = champion(client, name, registered.version, metrics[DECISIVE], margin)
    client.set_model_version_tag(name, registered.version, "champion", said)
    mlflow.set_tag("champion", said)


def champion(client: mlflow.MlflowClient, name: str, version: str, score: float, margin: float) -> str:
    """Make a version of the registered model `name` the champion if it is better by the margin; return why, or not."""
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
