r"""The scale of the data: what is known of it, and what rests on it."""

import math
import warnings
from pathlib import Path

import pytest
import torch

import scoresde as ss
from scoresde.runs.grids import HIGHEST, grid_times

RIGHT = torch.tensor([1e-3, 0.5], dtype=torch.float64)


def network(oracle: ss.Oracle, **settings: object) -> ss.NetworkScore:
    r"""A user's network, which knows nothing of its data."""

    return ss.NetworkScore(oracle.denoise, oracle.process, "data", shape=oracle.shape, **settings)


def unwarned(*calls: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for call in calls:
            call()  # type: ignore[operator]


def test_scale_is_said_or_measured_and_never_the_preconditioning() -> None:
    model = ss.NetworkScore(lambda x, t: x, ss.EDM(), "edm", shape=(2,))
    assert (model.data_std, model.data_scale) == (0.5, 0.5)
    data = torch.tensor([[300.0, 0.0], [-100.0, 40.0], [100.0, 80.0]], dtype=torch.float64)
    model.moments = ss.moments(data)
    assert model.data_std == 0.5
    assert model.data_scale == pytest.approx(float(data.square().mean().sqrt()))
    model.data_scale = 7.0
    assert (model.data_std, model.data_scale) == (0.5, 7.0)
    unsaid = ss.NetworkScore(lambda x, t: x, ss.EDM(), "data")
    assert (unsaid.data_std, unsaid.data_scale, unsaid.finest) == (0.5, None, None)
    unsaid.data_std = 3.0
    assert unsaid.data_scale == 3.0


def test_wrapped_models_know_as_much() -> None:
    class Own(ss.ScoreModel):
        process, data_std, conditions = ss.EDM(), 2.0, ("label",)

        def denoise(
            self, x: torch.Tensor, t: torch.Tensor, **condition: torch.Tensor
        ) -> torch.Tensor:
            return x

    assert Own().data_scale == 2.0
    assert Own().given(label=torch.ones(1)).data_scale == 2.0
    oracle = ss.MixtureOracle(torch.tensor([[3.0], [-1.0]]), 0.02, torch.tensor([0.25, 0.75]))
    given = oracle.given(label=torch.ones(1, dtype=torch.long))
    assert given.data_scale == pytest.approx(math.sqrt(3 + 0.02**2))  # the mean of m^2, and s^2
    assert given.finest == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["full", "diagonal", "low_rank"])
def test_moments_tell_scale_and_widths(kind: str) -> None:
    data = torch.randn(5000, 3, dtype=torch.float64) * torch.tensor([0.1, 1.0, 1.0]).double() + 2
    known = ss.moments(data, kind, rank=2 if kind == "low_rank" else None)  # type: ignore[arg-type]
    assert known.scale == pytest.approx(float(data.square().mean().sqrt()))
    assert known.finest == pytest.approx(0.1, rel=0.05)
    assert known.widest == pytest.approx(1.0, rel=0.05)


def test_constant_directions_are_no_scale() -> None:
    data = torch.cat([torch.randn(100, 2), torch.full((100, 1), -1.0)], 1)
    assert ss.moments(data).finest > 0.5


@pytest.mark.parametrize("value", [0.0, -1.0, True, "a", math.nan, math.inf, torch.ones(2)])
@pytest.mark.parametrize("name", ["data_std", "data_scale"])
def test_what_is_no_scale_is_refused(name: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        ss.NetworkScore(lambda x, t: x, ss.EDM(), "edm", **{name: value})
    model = ss.NetworkScore(lambda x, t: x, ss.EDM(), "edm")
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        setattr(model, name, value)


@pytest.mark.parametrize("options", [{}, {"times": torch.linspace(1, 0, 21)}, {"rtol": 1e-2}])
def test_data_beyond_the_noise_is_told(options: dict[str, object]) -> None:
    oracle = ss.GaussianOracle(torch.tensor([128.0]), 60.0, process=ss.VE())
    gap = (128**2 + 60**2) / 50**2 / 2  # the divergence of N(m, s^2) from N(0, s^2), and of widths
    with pytest.warns(UserWarning, match=f"noise alone is {gap:.3g} nats per dimension"):
        ss.sample(oracle, 2, **options)


def test_a_direction_wider_than_the_noise_is_told() -> None:
    model = network(ss.GaussianOracle(torch.zeros(100), 0.5, process=ss.EDM()))
    variances = torch.full((100,), 0.25)
    variances[3] = 60.0**2
    model.moments = ss.Moments(torch.zeros(100), None, variances)
    with pytest.warns(UserWarning, match="deviation 60: samples have 80% of it"):  # 80 / 100
        ss.sample(model, 2, steps=2)


def test_data_within_the_noise_is_not_told() -> None:
    for process in (ss.VP(), ss.EDM(), ss.Interpolant(), ss.VP(ss.Cosine())):
        oracle = ss.GaussianOracle(torch.tensor([0.8, 0.1]), 0.5, process=process)
        unwarned(lambda o=oracle: ss.sample(o, 2), lambda o=oracle: ss.sample(o, 2, rtol=1e-2))
    unwarned(lambda: ss.sample(ss.load("digits"), 1, steps=2))


@pytest.mark.parametrize(
    "process", [ss.VP(t_min=1e-7), ss.EDM(ss.Karras(1e-5, 80)), ss.Interpolant(t_min=1e-5)]
)
@pytest.mark.parametrize("options", [{"rtol": 1e-5, "atol": 1e-5}, {"steps": 100}])
def test_no_direction_of_the_data_is_lost(process: ss.Process, options: dict[str, object]) -> None:
    oracle = ss.GaussianOracle(torch.zeros(2).double(), torch.diag(RIGHT**2), process=process)
    z = process.prior_sample((500, 2), dtype=torch.float64)
    x = ss.decode(oracle, z, **options).x
    assert torch.allclose(x.std(0) / RIGHT, z.std(0) / process.prior_std(), rtol=0.02)


def test_sampling_goes_down_to_what_the_data_asks_for() -> None:
    for std, level in ((0.5, 0.01), (0.031, 0.01), (0.029, 0.0029), (1e-3, 1e-4)):
        oracle = ss.GaussianOracle(torch.zeros(2), std, process=ss.VP(t_min=1e-8))
        s = ss.sample(oracle, 2, steps=3)
        assert oracle.process.noise_level(float(s.times[-1])) == pytest.approx(level, rel=1e-3)
    named = ss.GaussianOracle(torch.zeros(2), 0.5, process=ss.EDM(ss.Karras(1e-4, 80)))
    assert ss.sample(named, 2, steps=3).times[-1] == 1e-4
    assert ss.sample(ss.load("digits"), 1, steps=3).times.tolist()[::3] == [
        80.0,
        pytest.approx(0.01),
    ]


def test_a_lost_direction_is_told() -> None:
    oracle = ss.GaussianOracle(torch.zeros(2).double(), torch.diag(RIGHT**2), process=ss.EDM())
    kept = 1 / math.sqrt(1 + 2**2)  # of the posterior mean of N(0, 0.001^2) at the level 0.002
    with pytest.warns(UserWarning, match=f"leaves {kept:.0%} of the smallest standard deviation"):
        ss.sample(oracle, 2)
    unwarned(lambda: ss.sample(oracle, 2, denoise=False), lambda: ss.sample(oracle, 2, t_min=0.01))


def test_a_process_of_low_noise_alone_is_sampled() -> None:
    with pytest.warns(UserWarning, match="of unit variance"):
        process = ss.EDM(ss.Karras(1e-5, 0.01))
    x = ss.sample(ss.GaussianOracle(torch.zeros(1), 1e-3, process=process), 4000).x
    assert x.std() == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("options", [{"grid": "tan"}, {"grid": "asinh"}, {"solver": "lattice_heun", "steps": 2},
                                     {"solver": "dpmpp_2m:analytic_first=True", "steps": 3}])  # fmt: skip
def test_what_rests_on_the_scale_asks_for_it(options: dict[str, object]) -> None:
    oracle = ss.GaussianOracle(torch.zeros(2), 1.0, process=ss.EDM())
    with pytest.warns(UserWarning, match="depends on the scale of the data, which is not known"):
        ss.sample(network(oracle), 2, **options)
    said = network(oracle, data_scale=1.0)
    unwarned(lambda: ss.sample(said, 2, **options))


@pytest.mark.parametrize("factor", [0.1, 1.0])
@pytest.mark.parametrize("solver", ["ddim:analytic_first=True", "moment_ipndm_3_analytic"])
def test_a_first_step_without_a_call_needs_noise_that_covers_the_data(
    solver: str, factor: float
) -> None:
    process = ss.EDM(ss.Karras(0.002 * factor, 80 * factor))
    oracle = ss.GaussianOracle(torch.zeros(2), factor, process=process)
    oracle.moments = ss.moments(oracle.data(50))
    options = {"solver": solver, "steps": 3}
    z = process.prior_sample((2, 2))
    unwarned(
        lambda: ss.sample(oracle, 2, **options),
        lambda: ss.decode(oracle, z, t_max=20 * factor, **options),
        lambda: ss.decode(oracle, z / 40, t_max=2 * factor, solver="ddim", steps=3),
    )
    with pytest.warns(UserWarning, match=f"level {2 * factor:.3g} here, not far above the size"):
        ss.decode(oracle, z / 40, t_max=2 * factor, **options)
    with pytest.warns(UserWarning, match="assumes Gaussian data in its first step"):
        ss.encode(oracle, z / 80, **options)


@pytest.mark.parametrize("grid", ["tan", "asinh"])
def test_grids_scale_with_the_data(grid: str) -> None:
    # data 100 times as large, on 100 times the noise, has the same samples
    runs = []
    for factor in (1.0, 100.0):
        process = ss.EDM(ss.Karras(0.002 * factor, 80 * factor))
        oracle = ss.MixtureOracle(
            torch.tensor([[1.0, 0.0], [-1.0, 0.5]]).double() * factor,
            0.3 * factor,
            process=process,
        )
        model = network(oracle)
        model.moments = oracle.moments
        runs.append(
            ss.sample(model, 50, grid=grid, steps=10, t_min=0.01 * factor, dtype=torch.float64).x
            / factor
        )
    assert torch.allclose(*runs, rtol=1e-8)


ROUGH = {"solver": "heun", "steps": 60, "grid": "log_snr", "clock": "log_snr"}


def test_the_prior_part_sees_the_data_in_hand() -> None:
    oracle = ss.GaussianOracle(torch.tensor([128.0]).double(), 60.0, process=ss.VE())
    x = torch.tensor([[0.0], [128.0], [255.0]], dtype=torch.float64)
    found = ss.log_likelihood(network(oracle), x, **ROUGH)
    error = (found.nats - oracle.log_density(x, found.t_min)).abs()
    assert (error <= found.total).all()
    assert (found.budget["prior"] >= 0.9 * error).all()


@pytest.mark.slow
@pytest.mark.parametrize("process", [ss.VE(), ss.VP()])
def test_the_total_covers_data_far_off_the_centre(process: ss.Process) -> None:
    means = torch.tensor([[8.0, -6.0], [9.0, -5.0]]).double()
    oracle = ss.MixtureOracle(means, 0.3, process=process)
    x = oracle.data(30)
    found = ss.log_likelihood(network(oracle, data_scale=7.0), x, **ROUGH)
    covered = (found.nats - oracle.log_density(x, found.t_min)).abs() <= found.total
    assert covered.double().mean() > 0.95
    unsaid = ss.log_likelihood(network(oracle), x[:2], **ROUGH)
    assert (unsaid.budget["prior"] > found.budget["prior"][:2] / 2).all()


def test_levels_begin_where_data_is_seen() -> None:
    process = ss.Interpolant(t_max=1 - 2**-30)
    for scale in (0.5, 2.0):
        model = network(
            ss.GaussianOracle(torch.zeros(2), scale, process=process), data_scale=scale
        )
        for grid in (None, "rho", "log_snr", "asinh"):
            options = {} if grid is None else {"grid": grid}
            times = ss.sample(model, 2, steps=6, **options).times
            assert times[0] == process.t_max
            assert process.noise_level(float(times[1])) < HIGHEST * scale
    levels = torch.exp(-process.log_snr(grid_times(process, "rho", process.t_max, 0.01, 8, 0.5)))
    want = torch.linspace(80 ** (1 / 7), float(levels[-1]) ** (1 / 7), 9).double() ** 7
    assert torch.allclose(levels[1:], want[1:], rtol=1e-5)


def test_levels_are_not_cut_where_they_were_named_or_steps_must_be_alike() -> None:
    named = ss.EDM(ss.Karras(0.002, 1000.0))
    ratio = torch.linspace(1000 ** (1 / 7), 0.002 ** (1 / 7), 9).double() ** 7
    assert torch.allclose(grid_times(named, "rho", 1000.0, 0.002, 8, 0.5), ratio)
    process = ss.Interpolant(t_max=1 - 2**-30)
    assert grid_times(process, "rho", process.t_max, 0.01, 1, 0.5).tolist() == [
        process.t_max,
        0.01,
    ]
    oracle = ss.GaussianOracle(torch.zeros(2), 0.5, process=ss.VP(ss.Cosine()))
    for solver in ("leapfrog", "torchdiffeq/fixed_adams"):
        u = oracle.process.log_snr(ss.sample(oracle, 2, solver=solver, steps=6).times).diff()
        assert u[0] < 2 * u[1]


def test_logistic_steps_are_even_in_its_function_of_the_noise_level() -> None:
    r"""u = s / (s + 1.25 c) + log(s) / 10: equal steps of u, none longer in log s than 10 of them."""

    process = ss.EDM(ss.Karras(0.002, 300.0))
    for scale in (0.05, 0.5, 20.0):
        s = torch.exp(-process.log_snr(grid_times(process, "logistic", 300.0, 0.01, 12, scale)))
        step = (s / (s + 1.25 * scale) + s.log() / 10).diff()
        assert torch.allclose(step, step.mean(), rtol=1e-9)
        assert s.log().diff().abs().max() < 10 * step.mean().abs()
        shortest = (
            s.log().diff().abs().argmin()
        )  # of which the middle is within a step of 1.25 scale
        assert s[shortest + 2] < 1.25 * scale < s[shortest - 1]


TABLE = ss.LinearProcess(lambda t: -5 * t, lambda t: (10 * t).sqrt())
BY_DEFAULT = {
    "flow": (ss.Interpolant(), "logistic"),
    "flow of large data": (ss.Interpolant(t_max=0.99), "logistic"),
    "flow from pure noise": (ss.Interpolant(t_max=1 - 2**-30), "logistic"),
    "no signal at the end": (ss.VP(ss.Cosine(), t_max=1.0), "logistic"),
    "rates": (TABLE, "logistic"),
    "scales": (ss.CustomProcess(lambda t: 1 - t, lambda t: t, t_min=1e-3, t_max=0.99), "logistic"),
    "VP": (ss.VP(), "rho"),
    "sub-VP": (ss.SubVP(), "rho"),
    "VE": (ss.VE(ss.Geometric(0.01, 1e4)), "rho"),
    "EDM": (ss.EDM(ss.Karras(0.002, 1e4)), "rho"),
}


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_the_default_grid_follows_what_bounds_the_noise(name: str) -> None:
    process, grid = BY_DEFAULT[name]
    model = network(ss.GaussianOracle(torch.zeros(2), 0.5, process=process), data_scale=0.5)
    for options in (
        {"steps": 6},
        {"solver": "ancestral", "steps": 9},
        {"solver": "dpmpp_2s", "steps": 4},
    ):
        times = ss.sample(model, 2, **options).times
        assert torch.equal(times, ss.sample(model, 2, grid=grid, seed=1, **options).times)
    x = torch.zeros(2, 2)
    times = ss.encode(model, x, solver="ddim", steps=6).times
    assert torch.equal(times, ss.encode(model, x, solver="ddim", steps=6, grid=grid).times)


def test_the_cap_is_told_where_nothing_was_said_of_the_scale() -> None:
    model = network(ss.GaussianOracle(torch.zeros(2), 0.5, process=ss.Interpolant()))
    with pytest.warns(UserWarning, match="levels of the grid begin at 80, below the 999 of t_max"):
        ss.sample(model, 2)
    unwarned(lambda: ss.sample(model, 2, steps=1), lambda: ss.sample(model, 2, grid="t"))


@pytest.mark.parametrize("process", [
    ss.VP(ss.Cosine(), t_max=1.0),
    ss.CustomProcess(lambda t: torch.cos(t * math.pi / 2), lambda t: torch.sin(t * math.pi / 2)),
    ss.Interpolant(t_max=1 - 2**-30),
])  # fmt: skip
@pytest.mark.parametrize("predicts", ["v", "data"])
def test_processes_that_keep_no_signal_are_sampled(process: ss.Process, predicts: str) -> None:
    oracle = ss.GaussianOracle(torch.tensor([0.8]).double(), 0.3, process=process)

    def v(
        x: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:  # alpha z - sigma x0, which needs no 1 / alpha
        alpha, sigma = (scale[:, None] for scale in process.scales(t))
        D = oracle.denoise(x, t)
        return alpha * (x - alpha * D) / sigma - sigma * D

    model = ss.NetworkScore(
        {"v": v, "data": oracle.denoise}[predicts], process, predicts, shape=(1,), data_scale=0.85
    )
    z = process.prior_sample((500, 1), dtype=torch.float64)
    x = ss.decode(model, z, steps=100).x
    # with no signal at t_max, the flow carries the normal z of the prior to the data's
    right = 0.8 + 0.3 * z / process.prior_std()
    assert (x - right).abs().max() < 0.02


def test_predictions_of_noise_are_refused_where_no_signal_is_left() -> None:
    for predicts in ("noise", "score"):
        with pytest.raises(
            ValueError, match="does not determine the data at t_max=1, where no signal"
        ):
            ss.NetworkScore(lambda x, t: x, ss.VP(ss.Cosine(), t_max=1.0), predicts)
    with pytest.raises(ValueError, match=r"no finite log-SNR at t=1; .* 1 - 2\*\*-30 is close"):
        ss.Interpolant(t_max=1.0)


def test_files_keep_a_scale_that_was_said(tmp_path: Path) -> None:
    own = ss.load("digits")
    own.moments, own.data_scale = None, 3.0
    kept = ss.load(ss.save(own, tmp_path / "own"))
    assert (kept.data_scale, kept.data_std) == (3.0, own.data_std)
    assert ss.load("digits").data_scale == pytest.approx(0.8477, abs=1e-4)
