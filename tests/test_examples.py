r"""The docstring of every public function and class ends in an example, and the example is right."""

import doctest
import inspect
import re
import warnings
from pathlib import Path

import pytest
import torch

import scoresde as ss
import solvers
from scoresde.runs.options import GROUPS

from .test_reference import SHOWN, named

LAST = re.compile(r"\nExamples:\n(?:    .*\n?|\n)+\Z")  # nothing stands after it


def shows(value: object) -> bool:
    r"""Whether something is to have an example: a function or a class, other than what only holds names."""

    if inspect.isfunction(value):
        return True
    nothing = isinstance(value, type) and issubclass(value, BaseException)
    return isinstance(value, type) and not nothing and value not in GROUPS


NAMES = [name for name in SHOWN if shows(named(name))]


def text_of(name: str) -> str:
    return inspect.cleandoc(named(name).__doc__ or "")


def test_names_are_those_of_the_reference() -> None:
    assert len(NAMES) > 170
    assert {"scoresde.sample", "scoresde.VP", "solvers.solve", "solvers.Step"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_ends_in_an_example_that_is_right(name: str, tmp_path: Path) -> None:
    assert LAST.search(text_of(name)), f"the docstring of {name} does not end in Examples:"
    torch.set_default_dtype(torch.float32)
    ready = {
        "ss": ss,
        "solvers": solvers,
        "torch": torch,
        "model": ss.GaussianOracle(torch.zeros(2), 0.5),
        "folder": tmp_path,
    }
    test = doctest.DocTestParser().get_doctest(text_of(name), ready, name, None, 0)
    assert any(example.want for example in test.examples), f"the example of {name} shows nothing"
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not found.failed, "".join(told)
