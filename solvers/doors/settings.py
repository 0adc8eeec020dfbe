r"""Names with settings, such as "recurrent:repeats=3": one syntax for everything that has both."""

from typing import NamedTuple


class Setting(NamedTuple):
    r"""One setting that follows a name.

    Arguments:
        key: The name of the setting.
        text: The text of its value, or `None` if there is no "=".
    """

    key: str
    text: str | None

    def __str__(self) -> str:
        return self.key if self.text is None else f"{self.key}={self.text}"

    def number(self, kind: type[int] | type[float] = float) -> float | None:
        r"""Returns the value as a number of some type, or `None` if it is not one."""

        try:
            return None if self.text is None else kind(self.text)
        except ValueError:
            return None


def parsed(words: str) -> tuple[str, list[Setting]]:
    r"""Returns a name and the settings that follow it, each after a ":".

    Raises:
        ValueError: If a key is set twice.
    """

    name, *options = words.split(":")
    settings: list[Setting] = []
    for option in options:
        key, sign, text = option.partition("=")
        if key in (setting.key for setting in settings):
            raise ValueError(f"{words!r} sets {key!r} twice; set it once.")
        settings.append(Setting(key, text if sign else None))
    return name, settings
