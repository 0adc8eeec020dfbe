r"""Networks in half precision: their errors have a floor, which comparisons state."""

import contextlib

import pytest
import torch
from torch import nn

import scoresde as ss
from scoresde.comparing.reference import flow_reference


class Shrinks(nn.Module):
    r"""Denoises standard normal data, by a matrix product that autocast takes in half precision."""

    def __init__(self, dtype):
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.linear.weight)
        self.to(dtype)

    def forward(self, x, t):
        return self.linear(x) / (1 + t[:, None] ** 2)


def model(dtype=torch.float32):
    return ss.NetworkScore(Shrinks(dtype), ss.EDM(), "data", shape=(3,), data_scale=1.0)


def compared(made, around=None):
    with contextlib.nullcontext() if around is None else around:
        return ss.compare(
            made, ["dpmpp_2m"], [6, 81], samples=16, grids=["log_snr"], progress=False
        )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["weights", "autocast"])
def test_a_floor_is_stated_where_errors_end(half, way):
    if way == "weights":
        c = compared(model(half))
    else:
        c = compared(model(), torch.autocast("cpu", dtype=half))
    said, eps = c.references["flow"], torch.finfo(half).eps
    assert said["precision"] == str(half).removeprefix("torch.")
    assert eps / 100 < said["floor"] < eps  # of the rounding of single numbers, and data of size 1
    few, many = (row.error["median"] for row in c.rows)
    assert few > 5 * said["floor"]
    assert said["floor"] / 4 < many < 4 * said["floor"]
    assert f"have a floor of {said['floor']:.1e}" in c.markdown()
    assert c.resolution(c.rows[0]) == said["floor"]


def test_errors_are_those_against_the_flow_in_float32():
    process = ss.EDM()
    first, last = process.t_max, process.start_of("sampling")
    x = process.prior_sample((16, 3), seed=0, dtype=torch.float64)
    exact = x * ((1 + last**2) / (1 + first**2)) ** 0.5 / (1 + last**2)  # denoised at the end
    found = flow_reference(model(torch.bfloat16), (16, 3), 0, 1e-6, {})
    assert torch.allclose(found.x, exact, atol=1e-5)


def test_no_floor_in_full_precision_and_the_model_stays_as_it_is():
    made = model(torch.bfloat16)
    compared(made)
    assert made.network.linear.weight.dtype == torch.bfloat16
    for full in (model(), model(torch.float64)):
        assert "floor" not in compared(full).references["flow"]


def test_a_file_keeps_the_floor(tmp_path):
    file = tmp_path / "c.json"
    options = {"samples": 4, "grids": ["log_snr"], "progress": False, "file": file}
    made = model(torch.bfloat16)
    c = ss.compare(made, ["ddim"], [4], **options)
    assert ss.Comparison.load(file).references == c.references
