r"""Latents between others: where there is no arc, and what decoding knows of them."""

import math

import pytest
import torch

import scoresde as ss
from scoresde import editing


@pytest.mark.parametrize("way", ["slerp", "normed"])
@pytest.mark.parametrize("factor", [1.0, 1.5, 1e-6, 1e6])
def test_there_is_no_arc_between_opposite_latents(way: str, factor: float) -> None:
    a = torch.randn(3, 4, 4)
    b = torch.randn(3, 4, 4)
    b[1] = -factor * a[1]
    with pytest.raises(ValueError, match="no unique arc between opposite latents"):
        ss.interpolate(a, b, 5, way)
    assert torch.allclose(ss.interpolate(a, b, 3, "linear")[1], (a + b) / 2)


@pytest.mark.parametrize("way", ["slerp", "normed"])
def test_a_latent_that_is_zero_has_no_direction(way: str) -> None:
    zero = torch.zeros(2, 3)
    zero[0] = 1.0
    for ends in ((zero, torch.ones(2, 3)), (torch.ones(2, 3), zero)):
        with pytest.raises(ValueError, match=r"a zero latent, as in rows \[1\]"):
            ss.interpolate(*ends, 3, way)
    with pytest.raises(ValueError, match="zero"):
        editing.along(torch.stack([torch.ones(3), torch.zeros(3), torch.ones(3)]), 5)
    with pytest.raises(ValueError, match="opposite"):
        editing.along(torch.stack([torch.ones(3), -2 * torch.ones(3)]), 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_an_arc_turns_at_one_pace_whatever_the_norms(dtype: torch.dtype, size: float) -> None:
    r"""Between e_1 and c e_2, the share u has the angle u pi / 2 and the norm 1 + u (c - 1)."""

    a, b = torch.zeros(2, 1, 5, dtype=dtype)
    a[0, 0], b[0, 1] = size, 3 * size
    z = ss.interpolate(a, b, 7) / size
    u = torch.linspace(0, 1, 7, dtype=dtype)
    angle, norm = u * math.pi / 2, 1 + 2 * u
    assert torch.allclose(z[:, 0, 0], norm * angle.cos(), atol=1e-5)
    assert torch.allclose(z[:, 0, 1], norm * angle.sin(), atol=1e-5)


def test_nearly_opposite_latents_still_have_an_arc() -> None:
    angle = math.pi - 1e-2
    a = torch.tensor([[1.0, 0.0]])
    b = torch.tensor([[math.cos(angle), math.sin(angle)]])
    z = ss.interpolate(a, b, 3)[1, 0]
    assert torch.allclose(z, torch.tensor([math.cos(angle / 2), math.sin(angle / 2)]), atol=1e-6)


def gaussian() -> ss.GaussianOracle:
    return ss.GaussianOracle(torch.tensor([1.0, -2.0, 0.5]), 0.6, process=ss.VP())


@pytest.mark.parametrize(
    "options", [{}, {"solver": "heun", "steps": 30}, {"solver": "lattice_heun", "steps": 30}]
)
def test_solutions_are_decoded_as_they_were_encoded(options: dict[str, object]) -> None:
    oracle = gaussian()
    x = oracle.data(4)
    za, zb = (ss.encode(oracle, part, **options) for part in x.split(2))
    z = ss.interpolate(za, zb, 5)
    y = ss.decode(oracle, z, denoise=False)
    alpha = oracle.process.scales(y.times[-1])[0]
    assert y.provenance["solver"].split(":")[0] == str(options.get("solver", "exponential"))
    assert torch.equal(z.x, ss.interpolate(za.x, zb.x, 5).flatten(0, 1))
    ends = torch.cat([y.x[:2], y.x[-2:]]) / alpha
    assert torch.allclose(ends, x, atol=2e-3 if "solver" in options else 1e-4)
    start, stop = float(z.times[-1]), float(z.times[0])  # the flow of a Gaussian is known
    assert torch.allclose(y.x, oracle.flow(z.x, start, stop), atol=2e-2 if options else 1e-4)


def test_all_that_is_made_of_solutions_is_decoded() -> None:
    oracle = gaussian()
    z = ss.encode(oracle, oracle.data(4))
    weights, d = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.ones(3)
    for made, plain in (
        (editing.along(z, 9), editing.along(z.x, 9)),
        (editing.grid(z, 2, 3), editing.grid(z.x, 2, 3).flatten(0, 1)),
        (editing.weighted(z, weights), editing.weighted(z.x, weights)),
        (
            editing.move(z, d, torch.tensor([0.0, 1.0])),
            editing.move(z.x, d, torch.tensor([0.0, 1.0])).flatten(0, 1),
        ),
        (ss.interpolate(z, z.rows([1, 2, 3, 0]), torch.tensor([0.2]), "linear"), None),
    ):
        assert plain is None or torch.equal(made.x, plain)
        assert len(made.calls) == len(made.status) == len(made.reached) == len(made.x)
        assert ss.decode(oracle, made).provenance["rtol"] == 1e-5


def test_latents_of_another_kind_are_not_mixed(tmp_path) -> None:
    oracle = gaussian()
    x = oracle.data(2)
    z = ss.encode(oracle, x)
    with pytest.raises(ValueError, match="their solver is exponential and heun"):
        ss.interpolate(z, ss.encode(oracle, x, solver="heun", steps=5), 3)
    a, b = (ss.encode(oracle, x, solver="heun", steps=n) for n in (5, 6))
    with pytest.raises(ValueError, match="on one grid"):
        ss.interpolate(a, b, 3)
    with pytest.raises(ValueError, match="their rtol is"):
        ss.interpolate(z, ss.encode(oracle, x, rtol=1e-3, atol=1e-3), 3)
    with pytest.raises(TypeError, match="two tensors or two solutions"):
        ss.interpolate(z, z.x, 3)
    with pytest.raises(ValueError, match="must be finite"):
        ss.interpolate(z.x, z.x * math.nan, 3)
    ss.save_latents(tmp_path / "z.npz", ss.interpolate(z, z.rows([1, 0]), 3))
    assert len(ss.load_latents(tmp_path / "z.npz").x) == 6


def test_a_latent_that_becomes_zero_has_no_norm_to_keep() -> None:
    a = torch.tensor([[1.0, 2.0]])
    with pytest.raises(ValueError, match="makes it zero, which has no norm to keep"):
        editing.move(a, a[0], torch.tensor([-1.0, 1.0]))
    assert torch.equal(editing.move(a, a[0], torch.tensor([-1.0]), keep_norm=False), 0 * a[None])
    assert torch.equal(
        editing.move(0 * a, a[0], torch.tensor([1.0]))[0], 0 * a
    )  # of norm zero it stays
