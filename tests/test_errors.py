"""What a command says of errors: the user's in one line, its own with their traceback."""

from dataclasses import dataclass

import pytest

from seqrec.command import run_command
from seqrec.errors import MissingFileError, UserError


@dataclass
class Config:
    """One flag."""

    number: int = 0


def end_with(error: Exception) -> None:
    def main(_: object) -> None:
        raise error

    run_command(main, Config, [])


@pytest.mark.parametrize("error", [UserError("--lr must be above 0"), MissingFileError("no file x")])
def test_a_users_error_ends_the_command_with_its_message(error: UserError) -> None:
    with pytest.raises(SystemExit, match=str(error)):
        end_with(error)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="not a user's"):
        end_with(ValueError("not a user's"))
