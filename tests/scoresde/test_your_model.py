r"""What "Your model says X, write Y" says to write makes a model, of stand-ins for other libraries' objects."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from tests.formula import SHAPE, Formula, start
from tests.pages import models_of_others

from .test_sources import EDM, Diffusion, Karras, Scheduler, Unet, Wrapped, betas, vpsde


class Estimator(nn.Module):
    r"""As those of sbi are."""

    input_shape, t_min, t_max = SHAPE[1:], 1e-3, 1.0

    def mean_t_fn(self, t: Tensor) -> Tensor:
        return torch.exp(-5 * t)[:, None]

    def std_fn(self, t: Tensor) -> Tensor:
        return (1 - torch.exp(-10 * t)).sqrt()[:, None]

    def score(self, x: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        return -x + condition.reshape(-1, 1, 1, 1)


KIND = SimpleNamespace(name="EPSILON")
NAMES: dict[str, Any] = {
    "ss": ss,
    "SHAPE": SHAPE[1:],
    "PROCESS": ss.VP(),
    "DENOISER": Wrapped(v=True),
    "SDE": vpsde("VPSDE"),
    "VESDE": type("VESDE", (), {"sigma_min": 0.01, "sigma_max": 50.0})(),
    "GUIDED": SimpleNamespace(betas=betas("linear"), model_mean_type=KIND),
    "AZULA": Karras(),
    "LUCIDRAINS": Diffusion("pred_v"),
    "POSTERIOR": SimpleNamespace(vector_field_estimator=Estimator()),
    "UNET": Unet(),
    "SCHEDULER": type("DDIMScheduler", (Scheduler,), {})(
        times="diffusers/DDIM/times", prediction_type="epsilon"
    ),
}


@pytest.mark.parametrize("written", models_of_others())
def test_what_is_written_makes_a_model(written: str) -> None:
    network: Any = Formula()
    if "from_edm" in written:
        network = EDM["EDM"]
    elif "t, x" in written:
        network = lambda t, x: Formula()(x, t)
    model = eval(written, {**NAMES, "NETWORK": network})
    condition = {"observation": torch.zeros(1, 1)} if "sbi" in written else {}
    x = ss.decode(model, start(), steps=2, **condition).x
    assert x.shape == SHAPE
    assert x.isfinite().all()


def test_every_source_has_a_row() -> None:
    text = " ".join(models_of_others())
    for name in ss.adapters.__all__:
        if name.startswith("from_"):
            assert f"ss.{name}(" in text
