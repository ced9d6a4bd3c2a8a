"""All tests: those of the two packages lie as the modules they are about, one file a module."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "params.yaml"
