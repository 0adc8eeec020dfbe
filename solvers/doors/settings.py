r"""Names with settings, as in "recurrent:repeats=3": one form for everything that has a name and settings."""

from typing import NamedTuple


class Setting(NamedTuple):
    r"""One setting behind a name.

    Arguments:
        key: The name of the setting.
        text: To what, or `None` if there is no "=".
    """

    key: str
    text: str | None

    def __str__(self) -> str:
        return self.key if self.text is None else f"{self.key}={self.text}"

    def number(self, kind: type[int] | type[float] = float) -> float | None:
        r"""Returns the number that it is set to, of some kind, or `None` if it is none."""

        try:
            return None if self.text is None else kind(self.text)
        except ValueError:
            return None


def parsed(words: str) -> tuple[str, list[Setting]]:
    r"""Returns a name, and the settings behind it, each after a ":".

    Raises:
        ValueError: If something is set twice.
    """

    name, *options = words.split(":")
    settings: list[Setting] = []
    for option in options:
        key, sign, text = option.partition("=")
        if key in (setting.key for setting in settings):
            raise ValueError(f"{words!r} sets {key!r} twice; set it once.")
        settings.append(Setting(key, text if sign else None))
    return name, settings
