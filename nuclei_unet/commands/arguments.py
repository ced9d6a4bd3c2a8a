"""What options of several commands take: numbers and sizes, read from text."""

import argparse
import re
from pathlib import Path


def positive(text: str) -> float:
    """Return a number above 0 and below 10,000: micrometres for a pixel, or pixels for a nucleus."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and below 10,000")
    return number


def count(text: str) -> int:
    """Return a whole number from 1 to 256: of processes or threads."""
    number = natural(text)
    if not 1 <= number <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 256")
    return number


def natural(text: str) -> int:
    """Return a whole number from 0 on, such as a seed."""
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def shape(text: str) -> tuple[int, int]:
    """Return height and width in pixels, from such as 1024x2048."""
    match = re.fullmatch(r"([1-9]\d{0,9})x([1-9]\d{0,9})", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no height and width, such as 1024x2048")
    return int(match[1]), int(match[2])


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add what says how large images are whose labels do not: --images and --shape."""
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, for their sizes and file names")
    parser.add_argument("--shape", type=shape, metavar="HxW", help="height and width of all images, in pixels")
