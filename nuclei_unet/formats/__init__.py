"""Files of users: images in, label images and measurements out, in the formats of the tools that they use."""
