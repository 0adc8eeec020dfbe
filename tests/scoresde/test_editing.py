r"""Edits whose right answer is known: Gaussians, mixtures, and what must not change."""

import math

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde import editing
from scoresde.editing.inpainting import masked
from scoresde.editing.releases import Kept
from scoresde.guidance import Guided, pseudoinverse

from .cases import MEANS, PROCESSES, mixture

ONE, TWO = torch.tensor([[-0.4, 0.3], [0.9, -0.5]], dtype=torch.float64)


def normal(mean: Tensor, std: float, process: ss.Process) -> ss.GaussianOracle:
    return ss.GaussianOracle(mean, std**2 * torch.eye(len(mean)), process)


def points(count: int = 6) -> Tensor:
    return ONE + 0.3 * torch.randn(count, 2, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
def test_translation_of_gaussians_is_the_map_between_them(process: str) -> None:
    here = PROCESSES[process]
    x = points()
    e = ss.edit(
        normal(ONE, 0.3, here), normal(TWO, 0.6, here), x, strength=1.0, rtol=1e-8, atol=1e-8
    )
    assert (e.x - (TWO + 2 * (x - ONE))).abs().max() < 0.02  # of the prior that is not reached


def shifted(times: Tensor, process: ss.Process, rule: str) -> float:
    r"""The share of the shift between two Gaussians of one width that a grid makes."""

    done, levels = 0.0, torch.exp(-process.log_snr(times)).tolist()
    for s, after in zip(
        levels, [*levels[1:], 0.0] if rule == "flow" else levels[1:], strict=rule == "flow"
    ):
        gain = 0.09 / (0.09 + s**2)
        ratio = (after / s) ** (2 if rule == "noise_path" else 1)
        done = ratio * done + (1 - ratio) * (gain * done + 1 - gain)
    return done


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
@pytest.mark.parametrize("method", ["flow", "noise_path"])
def test_shifts_between_gaussians_follow_their_recursion(method: str, process: str) -> None:
    here, x = PROCESSES[process], points()
    models = normal(ONE, 0.3, here), normal(TWO, 0.3, here)
    e = ss.edit(*models, x, noise_level=1.0, method=method, steps=12)
    share = shifted(e.times, here, method)
    assert 0.3 < share < 0.99
    assert torch.allclose(e.x - x, share * (TWO - ONE).expand_as(x), atol=1e-8)


@pytest.mark.parametrize("method", ["encode", "noise_path", "flow", "null"])
def test_an_edit_towards_the_same_changes_nothing(method: str) -> None:
    oracle = mixture(ss.VP()).given(label=torch.tensor([1]))
    x = oracle.model.data(5)  # type: ignore[operator]
    options = {"solver": "lattice_heun", "denoise": False} if method == "encode" else {}
    e = ss.edit(oracle, oracle, x, noise_level=2.0, method=method, steps=10, **options)
    assert (e.x - x).abs().max() < 1e-8


def test_fresh_noise_forgets_what_is_below_its_level() -> None:
    model, x = normal(ONE, 0.3, ss.EDM()), torch.full((4000, 2), 1.5)
    e = ss.edit(model, model, x, noise_level=0.5, method="noise", rtol=1e-6, atol=1e-6)
    kept = math.sqrt(0.09 / (0.09 + 0.25))  # of the flow from that level down
    assert torch.allclose(e.x.mean(0), ONE + kept * (1.5 - ONE), atol=0.02)
    assert e.x.std(0).mean() == pytest.approx(kept * 0.5, rel=0.05)


def test_fitted_null_predictions_hold_a_guided_decode_on_its_path() -> None:
    oracle = mixture(ss.VP())
    x, label = MEANS[0] + 0.3 * torch.randn(12, 2), torch.zeros(12, dtype=torch.long)
    source, target = (ss.classifier_free(oracle, 1.5, label=label + i) for i in (0, 1))
    options = {"noise_level": 3.0, "steps": 25}
    held = ss.edit(source, source, x, method="null", pivot=oracle, **options)
    free = ss.edit(oracle, source, x, method="encode", solver="ddim", denoise=False, **options)
    assert (held.x - x).abs().max() < 1e-8 < 0.05 < (free.x - x).abs().max()
    moved = ss.edit(source, target, x, method="null", pivot=oracle, **options)
    assert (moved.x - MEANS[1]).norm(dim=1).mean() < (x - MEANS[1]).norm(dim=1).mean()
    assert moved.calls.tolist() == [25 + 50 + 50] * 12
    fitted = editing.fit_null(source, ss.encode(oracle, x, solver="ddim", steps=5, path=True))
    state, t = torch.randn(12, 2), torch.full((12,), 0.3)
    rows = torch.tensor([4, 1])
    part = fitted.rows(rows).denoise(state[rows], t[rows])
    assert torch.allclose(part, fitted.denoise(state, t)[rows])


def correlated() -> ss.GaussianOracle:
    covariance = torch.tensor([[0.5, 0.4], [0.4, 0.5]])
    return ss.GaussianOracle(torch.tensor([0.2, -0.1]), covariance, ss.EDM())


def test_inpainting_draws_from_the_posterior() -> None:
    model, x = correlated(), torch.tensor([1.3, 99.0]).expand(4000, 2)
    known = torch.tensor([True, False])
    mean, std = -0.1 + 0.8 * 1.1, math.sqrt(0.5 - 0.4**2 / 0.5)
    bias = {}
    for method, options in {
        "replacement": {"steps": 60},
        "resampling": {"steps": 60, "repeats": 6},
        "gradient": {"steps": 60},
    }.items():
        e = ss.inpaint(model, x, known, method=method, **options)
        assert torch.equal(e.x[:, 0], x[:, 0])
        bias[method] = abs(float(e.x[:, 1].mean()) - mean) + abs(float(e.x[:, 1].std()) - std)
    assert bias["resampling"] < 0.5 * bias["replacement"]
    assert bias["gradient"] < 0.5 * bias["replacement"]
    assert bias["replacement"] > 0.1


def test_the_pull_of_what_is_known_is_the_posteriors() -> None:
    model = normal(torch.zeros(2), model_std := 0.6, ss.VP())
    model.data_std = model_std
    x, known = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    pulled = pseudoinverse(model, masked, known * x, iterations=1, known=known)
    kept, state, t = (
        Guided([pulled], Kept(x, torch.tensor([[0.0, math.inf]]))),
        torch.tensor([[0.3, -0.7]]),
        torch.tensor([0.4]),
    )
    plain = model.denoise(state, t)
    assert torch.allclose(pulled.denoise(state, t), torch.stack([x[:, 0], plain[:, 1]], 1))
    assert torch.allclose(kept.denoise(state, t), torch.stack([x[:, 0], plain[:, 1]], 1))


@pytest.mark.parametrize("way", ["replacement", "resampling", "gradient"])
def test_inpainting_is_an_edit_too(way: str) -> None:
    model, x, known = correlated(), torch.randn(3, 2), torch.tensor([True, False])
    e = ss.edit(model, model, x, strength=0.6, method="inpaint", known=known, way=way, steps=6)
    assert torch.equal(e.x[:, 0], x[:, 0])
    assert (e.x[:, 1] != x[:, 1]).all()
    again = ss.edit(model, model, x[1:], strength=0.6, method="inpaint", known=known, way=way, steps=6,
                    first_index=1)  # fmt: skip
    assert torch.allclose(again.x, e.x[1:])  # noise is a sample's own


def test_ways_between_latents_keep_their_norms() -> None:
    a, b = torch.randn(2, 5, 400)
    sizes = torch.stack(
        [torch.lerp(a.norm(dim=1), b.norm(dim=1), u) for u in torch.linspace(0, 1, 7)]
    )
    for way in ("slerp", "normed"):
        z = ss.interpolate(a, b, 7, way)
        assert torch.allclose(z[0], a)
        assert torch.allclose(z[-1], b)
        assert torch.allclose(z.norm(dim=2), sizes)
    line = ss.interpolate(a, b, 3, "linear")
    assert torch.allclose(line[1], (a + b) / 2)
    z = ss.interpolate(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 5)
    angles = torch.atan2(z[:, 0, 1], z[:, 0, 0])
    assert torch.allclose(angles, torch.linspace(0, math.pi / 2, 5), atol=1e-12)
    assert torch.allclose(ss.interpolate(a, 2 * a, 3)[1], 1.5 * a)  # no arc between parallel ones


def test_ways_through_several_latents_pass_them() -> None:
    z = torch.randn(4, 9)
    way = editing.along(z, 13)
    assert way.shape == (13, 9)
    assert torch.allclose(way[::4], z)


def test_weighted_sums_of_latents_are_as_normal() -> None:
    z = torch.randn(4, 20_000)
    mixed = editing.weighted(z, torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.2, 0.3, 0.1, 0.4]]))
    assert mixed.std(1).tolist() == pytest.approx([1.0, 1.0], abs=0.02)
    grid = editing.grid(z, 3, 5)
    assert grid.shape == (3, 5, 20_000)
    corners = torch.stack([grid[0, 0], grid[0, -1], grid[-1, 0], grid[-1, -1]])
    assert torch.allclose(corners, z)


def test_directions_are_differences_and_principal_components() -> None:
    z = torch.randn(300, 2, 3) * torch.tensor([[3.0, 1.0, 0.1], [0.5, 0.2, 0.1]])
    moved = editing.direction(z, z + 2)
    assert torch.allclose(moved, torch.full((2, 3), 2.0))
    found = editing.principal_directions(z, 2)
    assert found.directions[0].abs().argmax() == 0
    assert found.stds[0] == pytest.approx(3.0, rel=0.15)
    assert torch.allclose(
        found.directions.flatten(1) @ found.directions.flatten(1).T, torch.eye(2)
    )
    along = editing.move(z, moved, torch.tensor([0.0, 1.0]))
    assert torch.allclose(along[0], z)
    assert torch.allclose(along[1].flatten(1).norm(dim=1), z.flatten(1).norm(dim=1))
    assert torch.allclose(editing.move(z, moved, torch.tensor([3.0]), keep_norm=False)[0], z + 6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "method must be one of encode, noise, noise_path"),
        ({"noise_level": 1.0, "strength": 0.5}, "exactly one"),
        ({"strength": 1.5}, r"strength must lie in \(0, 1\]"),
        ({"noise_level": 1e5}, "noise_level must lie in"),
        ({"strength": 0.5, "method": "flow", "solver": "heun"}, "solver= has no effect"),
        ({"strength": 0.5, "method": "inpaint"}, "needs known="),
        (
            {"strength": 0.5, "method": "inpaint", "known": torch.ones(3)},
            r"known must have shape \(2,\)",
        ),
        (
            {"strength": 0.5, "method": "inpaint", "known": torch.tensor([0.5, 1.5])},
            r"known must lie on \[0, 1\], .* one entry is 1.5; pass known.clamp",
        ),
        (
            {"strength": 0.5, "method": "noise_path", "solver": "heun"},
            "solver must be .* for a noise path",
        ),
    ],
)
def test_edits_say_what_is_wrong(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.edit(correlated(), correlated(), torch.zeros(2, 2), **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda z: ss.interpolate(z, z[:1], 3), "same shape"),
        (lambda z: ss.interpolate(z, z, 3, "curved"), "way must be"),
        (lambda z: editing.along(z[:1], 3), "at least 2"),
        (lambda z: editing.weighted(z, torch.zeros(1, 3)), "must not all be 0"),
        (lambda z: editing.weighted(z, torch.ones(1, 2)), r"shape \(n, 3\)"),
        (lambda z: editing.grid(z, 2, 2), "4 corners"),
        (lambda z: editing.direction(z, z[:, :2]), "same shape"),
        (lambda z: editing.principal_directions(z, 3), "count must be at most 2"),
        (lambda z: editing.move(z, z, torch.ones(1)), "direction must have shape"),
    ],
)
def test_tools_for_latents_say_what_is_wrong(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(torch.randn(3, 5))  # type: ignore[operator]


@pytest.mark.parametrize("way", ["replacement", "resampling"])
def test_inpainting_from_a_low_level_starts_from_the_data(way: str) -> None:
    model, known = normal(torch.full((2,), 5.0), 1.0, ss.EDM()), torch.tensor([True, False])
    x = 5.0 + torch.randn(2000, 2)
    e = ss.edit(model, model, x, noise_level=0.5, method="inpaint", known=known, way=way, steps=20)
    assert e.x[:, 1].mean() == pytest.approx(5.0, abs=0.1)
    assert e.x[:, 1].std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("method", ["noise", "inpaint", "noise_path", "flow", "encode"])
def test_edits_are_data_without_a_denoising_too(method: str) -> None:
    model = normal(torch.full((2,), 5.0), 0.1, ss.Interpolant())
    x = torch.full((3, 2), 5.0)
    options = {"known": torch.tensor([True, False])} if method == "inpaint" else {}
    options |= {} if method == "noise_path" else {"denoise": False}
    t_min = model.process.at_noise_level(0.2)
    solver = {} if method in ("flow", "inpaint", "noise_path") else {"solver": "exponential_2"}
    e = ss.edit(
        model, model, x, strength=0.7, method=method, t_min=t_min, steps=6, **solver, **options
    )
    assert (e.x - 5).abs().max() < 0.7


def test_a_seed_that_is_not_given_is_drawn() -> None:
    model = correlated()
    for method in ("noise", "inpaint", "flow"):
        options = {"known": torch.tensor([True, False])} if method == "inpaint" else {}
        runs = [ss.edit(model, model, torch.zeros(1, 2), strength=0.5, method=method, seed=None,
                        **({"steps": 3} if method != "noise" else {}), **options) for _ in range(2)]  # fmt: skip
        assert runs[0].provenance["seed"] != runs[1].provenance["seed"]
        assert not torch.equal(runs[0].x, runs[1].x) or method == "flow"
    assert ss.edit(model, model, torch.zeros(1, 2), strength=0.5, method="noise", seed=5,
                   rtol=1e-2).provenance["seed"] == 5  # fmt: skip


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("null", "max_calls"),
        ("noise_path", "max_calls"),
        ("flow", "max_calls"),
        ("null", "denoise"),
    ],
)
def test_options_without_effect_on_a_method_are_refused(method: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}= has no effect on method='{method}'"):
        ss.edit(
            correlated(),
            correlated(),
            torch.zeros(2, 2),
            strength=0.5,
            method=method,
            **{option: 9},
        )
