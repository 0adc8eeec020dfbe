r"""Against other libraries as they are installed: run by `make test-all`, and left out where they are missing."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

collect_ignore_glob = [] if find_spec("diffusers") else ["test_*"]
collect_ignore = [] if find_spec("transformers") else ["test_scheduler_out.py"]


@pytest.fixture(autouse=True)
def float32(float64: None) -> Iterator[None]:
    r"""As other libraries expect it, and without gradients, as their pipelines run."""

    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        yield
