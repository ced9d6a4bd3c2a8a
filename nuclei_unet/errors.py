"""The one error that a user can cause."""


class InputError(Exception):
    """Something the user gave is wrong. The message names the file or key and says what to do."""
