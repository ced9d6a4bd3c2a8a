"""The command `nuclei-unet`: one module for each of its commands."""
