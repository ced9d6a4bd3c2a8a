"""The data set: published archives, synthetic images, source frames, image types, the processed form on disk."""
