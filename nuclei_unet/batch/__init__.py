"""What runs over many images or one huge slide: the files of a run, slides, and who works at them."""
