r"""Averages of any width, after a training."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..zoo.files import CardScore, load_card
from .averages import check_width, combination
from .checkpoint import load_tensors, under
from .run import SNAPSHOTS


@checked
def reconstruct(folder: str | Path, width: float, *, trust: bool = False) -> CardScore:
    r"""Returns the model of a training with an average of its weights of another width.

    The averages that the training kept are combined, so that the weights of its steps count as nearly as possible
    as in that average. This is exact for the width that the training tracked, near for wider ones, and coarse for
    widths below half of it.

    Arguments:
        folder: The folder of the training.
        width: The width, as a share of the steps: above 0 and at most 0.28.
        trust: Whether code that the card names is imported, as in :func:`scoresde.load`.

    Raises:
        FileNotFoundError: If the folder has no averages.

    References:
        | Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), section 3.2
        | https://arxiv.org/abs/2312.02696

    Examples:
        >>> images = torch.linspace(-1, 1, 32 * 16).reshape(32, 1, 4, 4).sin()
        >>> small = {"width": 8, "multipliers": [1], "blocks": 1}
        >>> options = {"settings": small, "steps": 8, "batch_size": 8, "validation": 0.25}
        >>> trained = ss.train("UNet", images, out=folder / "run", **options)
        >>> ss.training.reconstruct(folder / "run", 0.2).shape
        (1, 4, 4)
    """

    check_width("width", width)
    files = sorted((Path(folder) / SNAPSHOTS).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no averages of a training; train with out= and snapshots= above 0."
        )
    model = load_card(folder, trust=trust)
    network = model.network
    assert isinstance(network, torch.nn.Module)
    try:
        network.load_state_dict(_combined(files, width))
    except RuntimeError:
        raise ValueError(
            f"the averages in {files[0].parent} are of another network than {folder} holds; keep those of its own "
            "training alone."
        ) from None
    model.fingerprint = None if model.fingerprint is None else f"{model.fingerprint} at {width:g}"
    return model


def _combined(files: list[Path], width: float) -> dict[str, Tensor]:
    r"""The weights of an average from those in files."""

    kept = [(file, i, float(w), int(facts["step"])) for file in files
            for _, facts in [load_tensors(file)] for i, w in enumerate(facts["widths"])]  # fmt: skip
    last = max(step for *_, step in kept)
    shares = combination([(w, step) for *_, w, step in kept], width, last).tolist()
    found: dict[str, Tensor] = {}
    for (file, i, _, step), share in zip(kept, shares, strict=True):
        for name, value in _weights(file, i):
            if value.is_floating_point():
                found[name] = found.get(name, 0) + share * value.double()
            elif step == last:
                found[name] = value
    return found


def _weights(file: Path, number: int) -> Iterator[tuple[str, Tensor]]:
    yield from under(str(number), load_tensors(file)[0]).items()
