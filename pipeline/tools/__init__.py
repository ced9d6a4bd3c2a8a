"""Commands that make targets run besides the five stages."""
