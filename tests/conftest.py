from collections.abc import Iterator

import pytest
import torch

from scoresde.runs import repeats


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(default)


@pytest.fixture(autouse=True)
def forgetful() -> None:
    r"""What the default seed drew in another test is nothing to warn of."""

    repeats.forget()
