"""The data set: published archives, drawn images, source frames, kinds of image, the processed form on disk."""
