"""The result of one plane of an image: what is kept in the folder of results, for its tables and for going on."""

import contextlib
import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nuclei_unet.files import fresh_file

# Of a run, in its folder.
MEASUREMENTS, SUMMARY, RUN = "measurements.csv", "summary.html", "run.json"
# What a second start needs to know. Hidden: users need not look in there.
STATE = ".nuclei-unet"
PACKAGES = ("numpy", "scipy", "scikit-image", "opencv-python-headless", "onnxruntime", "tifffile")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one plane of an image, or of a file that could not be opened.

    Attributes
    ----------
    name : of its files, with the subfolder: plate1/A01_t003
    source : the input file as the user named it
    key : says how it was made; another one is not the same result
    height, width : pixels; 0 if failed
    pixel_size : micrometres per pixel, None if unknown
    diameter : of the typical nucleus, px, for which the image was scaled; and where it came from
    count : number of nuclei; None if failed
    warnings : plain sentences, see `nuclei_unet.prediction.checks`
    error : why it failed, one line, or None
    outputs : names of its files
    diameters : equivalent diameters of the nuclei in px
    thumbnail : base64 of a JPEG, or nothing
    before : an earlier run did it
    """

    name: str
    source: str
    key: str = ""
    plane: str = ""
    axes: str = ""
    shape: tuple[int, ...] = ()
    height: int = 0
    width: int = 0
    channel: str = ""
    pixel_size: float | None = None
    pixel_size_from: str = "unknown"
    diameter: float | None = None
    diameter_from: str = ""
    computed_by: str = ""
    count: int | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str | None = None
    outputs: tuple[str, ...] = ()
    diameters: tuple[float, ...] = ()
    thumbnail: str = field(default="", repr=False)
    before: bool = False

    def keep(self, folder: Path) -> "Result":
        """Write it, for the end of the run and for a second start; return what is kept in memory."""
        with fresh_file(state_file(folder, self.name, ".json")) as path:
            path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return self.brief()

    def brief(self, before: bool = False) -> "Result":
        """Return the part that is kept in memory: there may be a million results."""
        kept = {name: getattr(self, name) for name in ("plane", "computed_by", "count", "error")}
        return Result(self.name, self.source, warnings=self.warnings[:1], before=before, **kept)


def load(folder: Path, name: str) -> Result:
    """Return the whole result of a plane that is kept."""
    values = json.loads(state_file(folder, name, ".json").read_text(encoding="utf-8"))
    return Result(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def find(folder: Path, name: str, key: str) -> Result | None:
    """Return the result of a plane if it was made before in the same way, and its files are there."""
    try:
        result = load(folder, name)
    except (OSError, ValueError, TypeError):
        return None
    files = [*(folder / output for output in result.outputs), state_file(folder, name, ".csv")]
    complete = result.error is None and all(path.exists() for path in files)
    return result if complete and result.key == key else None


def state_file(folder: Path, name: str, ending: str) -> Path:
    """Return where something about a plane is kept."""
    return folder / STATE / f"{name}{ending}"


def versions() -> dict[str, str]:
    """Return the versions of what shapes the results."""
    known = {"python": platform.python_version(), "nuclei-unet": ""}
    for package in ("nuclei-unet", *PACKAGES):
        with contextlib.suppress(PackageNotFoundError):
            known[package] = version(package)
    return known
