"""The network: how it is built, set up, stored."""
