"""What likelihoods state of their errors, against densities in closed form."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde.likelihood.nodes import refined_density

from .cases import PROCESSES

each = pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])


def mixture(process: str, d: int, std: float = 0.4) -> ss.MixtureOracle:
    means = 1.5 * torch.randn(
        5, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return ss.MixtureOracle(means - means.mean(0), std, process=PROCESSES[process])


def within(found: ss.Likelihood, truth: Tensor) -> float:
    assert found.total.isfinite().all()
    return ((found.nats - truth).abs() <= found.total).double().mean().item()


class Classes(nn.Module):
    """Gaussian classes at 10 and -10, as a network."""

    def __init__(self, process: ss.Process) -> None:
        super().__init__()
        covariance = torch.tensor([[1.0, 0.3], [0.3, 0.5]]).double()
        self.classes = [
            ss.GaussianOracle(torch.tensor([at, 0.0]).double(), covariance, process)
            for at in (10.0, -10.0)
        ]

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        found = torch.stack([oracle.denoise(x, t) for oracle in self.classes])
        return found[label, torch.arange(len(x))]


@each
@pytest.mark.parametrize("known", [True, False])
def test_the_total_holds_under_a_condition(process: str, known: bool) -> None:
    network = Classes(PROCESSES[process])
    one, other = network.classes
    model = ss.NetworkScore(
        network, PROCESSES[process], predicts="data", shape=(2,), conditions=["label"]
    )
    if known:
        model.moments = ss.moments(torch.cat([one.data(2000), other.data(2000)]))
    x = one.data(40, seed=5)
    found = ss.log_likelihood(model, x, label=0)
    truth = one.log_density(x.double(), found.t_min)
    assert within(found, truth) == 1.0
    assert found.total.mean() < 5 * (found.nats - truth).abs().mean() + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("process", ["VP", "EDM"])
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "rk4", "steps": 8, "grid": "t"},
        {"solver": "heun", "steps": 40},
        {"rtol": 1e-2, "atol": 1e-2},
        {"rtol": 1e-5, "atol": 1e-5},
    ],
    ids=["rk4", "heun", "loose", "tight"],
)
def test_the_total_grows_with_the_error_of_a_coarse_path(
    process: str, options: dict[str, Any]
) -> None:
    oracle = mixture(process, 2)
    x = oracle.data(60, seed=3)
    found = ss.log_likelihood(oracle, x, **options)
    assert within(found, oracle.log_density(x.double(), found.t_min)) > 0.97


class Turned(nn.Module):
    """A mixture whose denoiser also turns: its score is no gradient."""

    def __init__(self, oracle: ss.MixtureOracle) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value[:, None] for value in self.oracle.process.scales(t))
        level = sigma / alpha
        turned = (x / alpha).flip(1) * torch.tensor([1.0, -1.0]).to(x)
        return self.oracle.denoise(x, t) + 0.3 * level**2 / (1 + level**2) ** 2 * turned


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"rtol": 1e-2, "atol": 1e-2}, {"solver": "heun", "steps": 30, "nodes": 200}]
)
def test_the_total_holds_for_scores_that_are_no_gradients(options: dict[str, Any]) -> None:
    model = ss.NetworkScore(Turned(mixture("VP", 2)), ss.VP(), predicts="data", shape=(2,))
    model.moments = mixture("VP", 2).moments
    x = mixture("VP", 2).data(30, seed=3)
    truth = ss.log_likelihood(model, x, rtol=1e-7, atol=1e-7, nodes=250).nats
    assert within(ss.log_likelihood(model, x, **options), truth) > 0.96


@pytest.mark.slow
@pytest.mark.parametrize(
    ("divergence", "probes"),
    [("exact", None), ("hutch++", 12), ("hutchinson", 2), ("hutchinson", 1), ("fixed", 1)],
)
@pytest.mark.parametrize(("d", "rank"), [(2, 1), (12, 2)])
def test_a_row_is_what_it_is_alone(divergence: str, probes: int | None, d: int, rank: int) -> None:
    means = torch.randn(
        rank + 1, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    oracle = ss.KernelOracle(
        means, 0.5, ss.VP()
    )  # the Jacobian beyond the Gaussian has a low rank
    x = oracle.data(5, seed=2)
    options: dict[str, Any] = {"divergence": divergence, "probes": probes, "nodes": 8}
    whole = ss.log_likelihood(oracle, x, **options)
    parts = ss.log_likelihood(oracle, x, batch_size=2, **options)
    alone = [ss.log_likelihood(oracle, x[i : i + 1], first_index=i, **options) for i in range(5)]
    assert torch.allclose(whole.nats, parts.nats, rtol=0, atol=1e-10)
    assert torch.allclose(whole.nats, torch.cat([one.nats for one in alone]), rtol=0, atol=1e-10)
    if divergence != "fixed":
        assert torch.allclose(whole.total, parts.total, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_target_is_met_by_exact_divergences_where_probes_are_dearer() -> None:
    oracle = mixture("VP", 4)
    x = oracle.data(6, seed=1)
    found = ss.log_likelihood(oracle, x, target_stderr=1e-9)
    assert found.stderr.tolist() == [0.0] * 6
    assert within(found, oracle.log_density(x.double(), found.t_min)) == 1.0
    assert found.derivatives.max() <= 62 + 4 * 64
    exact = ss.log_likelihood(oracle, x)
    assert torch.allclose(found.nats, exact.nats, rtol=0, atol=1e-9)
    alone = ss.log_likelihood(oracle, x[2:3], first_index=2, target_stderr=1e-9)
    assert torch.allclose(alone.nats, found.nats[2:3], rtol=0, atol=1e-10)


@pytest.mark.slow
def test_few_dimensions_stay_exact() -> None:
    oracle = mixture("VP", 2)
    found = ss.log_likelihood(oracle, oracle.data(3), target_stderr=0.2)
    assert found.provenance["divergence"] == "exact"
    assert found.stderr.tolist() == [0.0] * 3


@pytest.mark.slow
def test_a_target_that_is_missed_is_said() -> None:
    oracle = mixture("VP", 3)
    with pytest.warns(
        UserWarning, match="target_stderr=1e-300 is missed for 1 of 1 samples"
    ) as caught:
        found = ss.log_likelihood(
            oracle, oracle.data(1), divergence="hutchinson", target_stderr=1e-300, nodes=8
        )
    assert caught[0].filename == __file__
    assert found.derivatives.tolist() == [16 + 64 * 8]
    assert "lower target_stderr=" in found.cures["probes"]
    assert "pass target_stderr=" not in found.advice


@pytest.mark.slow
def test_advice_can_be_followed() -> None:
    oracle = mixture("VP", 2)
    x = oracle.data(2)
    least = ss.log_likelihood(oracle, x, t_min=oracle.process.t_min)
    assert "lower t_min" not in least.cures["end"]
    usual = ss.log_likelihood(oracle, x)
    assert usual.t_min == oracle.process.t_min or "lower t_min=" in usual.cures["end"]
    steps = ss.log_likelihood(oracle, x, solver="heun", steps=10)
    assert "steps=" in steps.cures["path"]
    assert "rtol=" in usual.cures["path"]
    fixed = ss.log_likelihood(oracle, x, divergence="fixed")
    assert fixed.unknown == ("probes",)
    assert "probes is not known" in fixed.advice


@pytest.mark.slow
def test_a_failed_path_is_said() -> None:
    oracle = mixture("VP", 2)
    with pytest.warns(UserWarning, match=r"the path of samples \[0, 1\] failed"):
        found = ss.log_likelihood(oracle, oracle.data(2), on_failure="partial", max_calls=5)
    assert found.nats.isnan().all()


WIDE = ss.GaussianOracle(torch.full((3,), 0.2).double(), 0.35, ss.VP())


@pytest.mark.slow
@pytest.mark.parametrize("row", [0, 1])
def test_one_draw_of_dequantisation_states_its_error(row: int) -> None:
    x = ss.quantize(WIDE.data(2), levels=9).clamp(-1, 1)[row : row + 1].expand(200, 3)
    one = ss.discrete_log_likelihood(WIDE, x, levels=9, low=-1.0, high=1.0, nodes=16)
    stated = one.budget["dequantisation"].square().mean().sqrt()
    assert 0.75 < (stated / one.nats.std()).item() < 1.6
    assert (one.budget["dequantisation"] > 0).all()


def test_the_error_of_one_draw_weighs_its_slopes_by_the_stein_kernel() -> None:
    options = {"levels": 9, "low": -1.0, "high": 1.0, "seed": 4}
    x = ss.quantize(WIDE.data(5), levels=9).clamp(-1, 1)
    one = ss.discrete_log_likelihood(WIDE, x, nodes=16, **options)
    y = ss.dequantize(x, **options)  # the same draw
    v, slope = (y - x) / 0.25, (y - 0.2) / 0.35**2
    want = ((0.25 - v.square()) / 2 * (0.25 * slope).square()).sum(1).sqrt()
    assert torch.allclose(one.budget["dequantisation"], want, rtol=0.02)
    assert (
        (want - 0.25 / 12**0.5 * slope.norm(dim=1)).abs() > 0.04 * want
    ).any()  # not the plain one


@pytest.mark.slow
def test_noise_whose_error_is_not_known_says_so() -> None:
    x = ss.quantize(WIDE.data(2), levels=9).clamp(-1, 1)
    one = ss.discrete_log_likelihood(WIDE, x, levels=9, dequantization="truncated_normal")
    assert one.total.isnan().all()
    assert "dequantisation is not known" in one.advice
    assert "draws=" in one.advice


@pytest.mark.slow
def test_levels_that_are_not_the_datas_are_said() -> None:
    wide = ss.GaussianOracle(torch.zeros(3), 1.5, ss.VP())  # on [-3, 3], say
    levels = torch.randint(0, 256, (8, 3), generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="pass low= and high="):
        ss.discrete_log_likelihood(wide, levels, levels=256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ss.discrete_log_likelihood(wide, levels, levels=256, low=-3.0, high=3.0)
        ss.discrete_log_likelihood(
            WIDE, ss.quantize(WIDE.data(4), levels=9).clamp(-1, 1), levels=9
        )


def test_nodes_do_not_follow_round_off() -> None:
    u = torch.linspace(-4, 4, 2048, dtype=torch.float64)
    base = torch.full((2048, 1), 1 / (2048 * float(u[1] - u[0])), dtype=torch.float64)
    pilot = u[128::256]
    drawn = torch.rand(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for size in (0.0, 1e-14, 1e-7):
        torch.testing.assert_close(
            refined_density(base, u, pilot, size * drawn), base.expand(-1, 3)
        )
    assert not torch.allclose(refined_density(base, u, pilot, drawn), base.expand(-1, 3))
