"""From label images to a trained network."""
