"""Errors that the user can repair. Any other exception is a bug, and keeps its traceback."""


class UserError(ValueError):
    """A flag, a file or a value that was given is not what was expected; the message says what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that was named does not exist."""
