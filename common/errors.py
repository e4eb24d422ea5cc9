"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: the message is one line that says what is wrong and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def shortened(name: str, length: int) -> str:
    """``name`` as one line of at most ``length`` characters."""
    name = printable(name)
    return name if len(name) <= length else f"{name[: length - 1]}…"


def printable(text: str) -> str:
    """``text`` as one line: names of files may hold line ends, terminal codes and bytes that are no characters."""
    shown = (c if c.isprintable() else " " if c.isspace() else "?" for c in text)
    return " ".join("".join(shown).split())
