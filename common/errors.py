"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: the message is one line that says what is wrong and what to do about it."""
