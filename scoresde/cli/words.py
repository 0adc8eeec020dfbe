r"""Messages in the words of the command line, where `steps=` is --steps."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer

ELSEWHERE = {
    r"solvers\.available\(\) lists": "`scoresde solvers` lists",
    r"pass progress=True": "leave out --json",
    r"ss\.dequantize or ss\.discrete_log_likelihood": "--levels",
    r"ss\.dequantize": "--levels",
    r"the model ss\.classifier_free\(model, scale, label=\.\.\.\)": "--guidance",
    r"import it and call ss\.register_network, or pass trust=True": "pass --trust",
    r"trust=True": "--trust",
    r"stochastic=True": "--stochastic",
    r"learned=True": "--learned",
    r"call model\.eval\(\)": "train it further, or save it anew",
}
NOTHING = "nothing was written"


def spoken(text: str, options: Mapping[str, str]) -> str:
    r"""Returns a message in the words of the command line.

    Arguments:
        text: The message, in the words of Python.
        options: The options of the command, by their Python names.
    """

    for words, ours in ELSEWHERE.items():
        text = re.sub(words, ours, text)

    shown = [
        match.span() for match in re.finditer(r"\b[A-Z]\w*\([^()]*\)", text)
    ]  # such as a process

    def said(match: re.Match[str]) -> str:
        option = options.get(match["name"])
        quoted = any(first < match.start() < last for first, last in shown)
        return (
            match[0]
            if option is None or quoted
            else option + ("" if match["value"] is None else " ")
        )

    # not the settings of a solver, as in recurrent:repeats=2, nor parts of words
    text = re.sub(r"(?<![\w:./'-])(?P<name>[a-z_]+)=(?P<value>(?=[\w'-]|\.\d))?", said, text)
    name = re.match(r"(each of )?([a-z_]+)(?= (must|is) )", text)
    if name and name[2] in options:
        text = f"{name[1] or ''}{options[name[2]]}{text[name.end() :]}"
    return text


def options_of(app: typer.Typer, arguments: list[str]) -> dict[str, str]:
    r"""Returns the options of the command that the arguments call, as they are written."""

    command = typer.main.get_command(app)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    found = {}
    for parameter in command.params:
        longest = max(parameter.opts, key=len)
        if longest.startswith("--"):
            found[parameter.name] = found[longest[2:].replace("-", "_")] = longest
    if "n" in found or "samples" in found:
        found["shape"] = found["samples"] = "-n"
    return found


@contextmanager
def stoppable(kept: str | Callable[[BaseException], str] = NOTHING) -> Iterator[None]:
    r"""Reports what is kept if the user stops a command.

    Arguments:
        kept: What is kept, in words, or a function that keeps what the interrupt carries and returns them.
    """

    try:
        yield
    except KeyboardInterrupt as error:
        words = kept if isinstance(kept, str) else kept(error)
        sys.stderr.write(f"\nstopped: {words}.\n")
        raise


def told(kind: str, file: object, as_json: bool) -> None:
    r"""Reports that results are not kept, unless there is a file for them."""

    if file is None and not as_json:
        typer.echo(f"{kind} are not kept: pass --out with a file for them.", err=True)


def kept(file: Path | None, option: str) -> str:
    r"""Returns what is said on Ctrl-C about the results so far."""

    if file is None:
        return f"nothing was kept; with {option} and a file, the same command continues"
    return f"what was measured is in {file}, and the same command continues"
