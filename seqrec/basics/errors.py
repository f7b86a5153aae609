"""Errors that the user can repair. Any other exception is a bug, and keeps its traceback."""


class UserError(ValueError):
    """A flag, file or value is not what was expected; the message says what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A named file or folder does not exist."""
