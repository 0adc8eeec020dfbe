r"""Choices as an address, as a plan file, and as a file with all settings."""

import json
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlencode

from ..files import Json, mapping, write_json
from ..models.checks import check_count
from ..runs.plan import KIND as PLAN
from ..runs.plan import Plan
from ..runs.settings import STEPS
from .choices import MOST_STEPS, Choices, read, written

SETTINGS = "settings of the playground of scoresde"
OF_RUN = ("solver", "steps", "grid", "eta")


def address(base: str, choices: Choices) -> str:
    r"""Returns the address of the page with these choices."""

    words = urlencode(written(choices))
    return f"{base}?{words}" if words else base


@lru_cache(maxsize=32)
def plan_of(text: str) -> Plan:
    r"""Returns the plan in a JSON text, as plan files hold it.

    Raises:
        ValueError: If the text is not a plan.
    """

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        file.write_text(text)
        try:
            plan = Plan.load(file)
        except ValueError as error:
            raise ValueError(str(error).replace(str(file), "plan")) from None
    if re.search(r"\b(NaN|Infinity)\b", text):  # which JSON of Python allows
        raise ValueError("plan must hold finite numbers, but holds NaN or Infinity.")
    check_count("steps of the plan", states_of(plan), at_least=1, at_most=MOST_STEPS)
    return plan


def states_of(plan: Plan) -> int:
    r"""Returns the number of steps of a plan."""

    if plan.noise_levels is not None:
        return len(plan.noise_levels) - 1
    return plan.options.get("steps", STEPS)


def files(choices: Choices, folder: Path) -> tuple[Path, Path]:
    r"""Writes the plan and all settings into a folder, and returns the two files."""

    plan = plan_of(choices.plan) if choices.plan else Plan(choices.run)
    return (
        plan.save(folder / "plan.json"),
        write_json(folder / "settings.json", SETTINGS, {"settings": written(choices)}),
    )


def opened(file: Path, now: Choices) -> Choices:
    r"""Returns the choices of a file: all of them from settings, those of the run from a plan.

    A plan of solver, steps, grid and eta alone becomes these choices; any other is followed as it is.

    Arguments:
        file: A file of settings, or a plan.
        now: The other choices, beside a plan.

    Raises:
        ValueError: If the file is neither.
    """

    content = _content(file)
    if content.get("kind") == SETTINGS:
        words = content.get("settings")
        if not mapping(words):
            raise ValueError(f"{file.name} has no settings by name.")
        return read(words)
    if content.get("kind") != PLAN:
        raise ValueError(f"{file.name} is neither a plan nor settings of the playground.")
    plan, words = Plan.load(file), written(now)
    simple = plan.noise_levels is None and not plan.additions
    if simple and set(plan.options) <= set(OF_RUN):
        kept = {n: w for n, w in words.items() if n not in (*OF_RUN, "plan")}
        return read({**kept, **plan.options})
    text = json.dumps({**content}, separators=(",", ":"))  # short, for the address
    return read({**words, "plan": text})


def _content(file: Path) -> Json:
    try:
        content = json.loads(file.read_text())
    except (ValueError, RecursionError):
        raise ValueError(f"{file.name} is not JSON text.") from None
    return content if mapping(content) else {}
