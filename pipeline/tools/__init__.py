"""What make targets run beside the five stages."""
