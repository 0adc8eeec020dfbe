r"""What a run can be told, and what it tells: noise, seeds, times, callbacks, partial results."""

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from solvers import Event
from solvers.noise.translated import Translated

from ..families import family_first
from .cases import PROCESSES, gaussian, mixture

STOCHASTIC = [n for n in solvers.available() if solvers.get(n).stochastic]
ON_GRIDS = [n for n in STOCHASTIC if solvers.get(n).fixed]


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_seeds_make_each_sample_by_itself(solver: str) -> None:
    oracle = mixture(ss.VP())
    options = {"steps": 6} if solvers.get(solver).fixed else {"rtol": 0.1, "atol": 0.1}
    some = ss.sample(oracle, 4, solver=solver, seeds=[7, 8, 7, 9], **options)
    assert torch.equal(some.x[0], some.x[2])
    assert not torch.equal(some.x[0], some.x[1])
    alone = ss.sample(oracle, 1, solver=solver, seed=9, **options)
    assert torch.allclose(some.x[3], alone.x[0], atol=1e-12)
    parts = ss.sample(oracle, 4, solver=solver, seeds=[7, 8, 7, 9], batch_size=3, **options)
    assert torch.allclose(parts.x, some.x, atol=1e-12)


def test_seeds_are_checked() -> None:
    oracle = mixture(ss.VP())
    with pytest.raises(ValueError, match="seeds must have 3 entries, one per sample, not 2"):
        ss.sample(oracle, 3, steps=2, seeds=[1, 2])
    with pytest.raises(ValueError, match="seeds= replaces seed= and first_index="):
        ss.sample(oracle, 2, steps=2, seeds=[1, 2], seed=5)


@pytest.mark.parametrize(
    "solver", family_first(["ancestral", "em", "sra1", "dpmpp_2m_sde", "torchsde/srk"])
)
def test_more_steps_on_one_path_come_nearer_to_its_solution(solver: str) -> None:
    oracle = mixture(ss.EDM())

    def run(steps: int, noise: str) -> Tensor:
        options = {"grid": "log_snr", "noise": noise, "seed": 3, "t_min": 0.1, "denoise": False}
        return ss.sample(oracle, 100, solver=solver, steps=steps, **options).x

    fine, middle, coarse = (run(n, "path") for n in (120, 60, 15))
    error = (middle - fine).square().mean().sqrt()
    assert error < 0.7 * (coarse - fine).square().mean().sqrt()
    other = (run(60, "increments") - run(120, "increments")).square().mean().sqrt()
    assert other > 3 * error


@pytest.mark.parametrize(("start", "stop"), [(0.5, 0.48), (0.48, 0.5)])
def test_a_path_keeps_its_law_in_the_clock_of_a_solver(start: float, stop: float) -> None:
    rows, process = 40_000, ss.VP()
    path = solvers.Path(0, torch.arange(rows), torch.zeros(rows, 1))
    seen = Translated(path, process.log_snr, lambda w: w)
    t0, t1 = torch.tensor(start, dtype=torch.float64), torch.tensor(stop, dtype=torch.float64)
    w, area = (part[:, 0] for part in seen.increment_and_integral(0, t0, t1))
    h = stop - start
    want = torch.tensor([[abs(h), h * abs(h) / 2], [h * abs(h) / 2, abs(h) ** 3 / 3]])
    assert (torch.stack([w, area]).cov() / want - 1).abs().max() < 0.05


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
def test_noise_of_ones_own(process: str) -> None:
    oracle, steps = gaussian(PROCESSES[process]), 8
    z = torch.randn(steps, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    runs = [
        ss.sample(oracle, 3, solver="ancestral", steps=steps, noise=z, batch_size=size)
        for size in (3, 2)
    ]
    assert torch.allclose(runs[0].x, runs[1].x)
    again = ss.sample(oracle, 3, solver="ancestral", steps=steps, noise=-z)
    assert not torch.allclose(again.x, runs[0].x)
    for count, steps in ((3, 9), (3, 7), (4, 8), (2, 8)):
        with pytest.raises(ValueError, match=rf"starts with \({steps}, {count}\), but has shape"):
            ss.sample(oracle, count, solver="ancestral", steps=steps, noise=z)
    with pytest.raises(ValueError, match="with samples of shape"):
        ss.sample(oracle, 3, solver="ancestral", steps=8, noise=z[..., :1])
    for wrong in (3, False, [z]):
        with pytest.raises((TypeError, ValueError), match="noise must"):
            ss.sample(oracle, 3, solver="ancestral", steps=8, noise=wrong)
    with pytest.raises(ValueError, match="noise= has no effect on dpmpp_2m"):
        ss.sample(oracle, 3, steps=8, noise=z)
    for solver in ("dpmpp_sde", "langevin_corrector", "sra1", "torchsde/srk"):
        with pytest.raises(ValueError, match=f"is not enough for {solver}"):
            ss.sample(oracle, 3, solver=solver, steps=8, noise=z)


@pytest.mark.parametrize(
    "solver", ["dpmpp_2m", "unipc", "dpm_3", "heun", "ipndm", "moment_2", "exponential"]
)
def test_samples_may_start_and_end_at_their_own_times(solver: str) -> None:
    oracle, z = mixture(ss.VP()), torch.randn(3, 2, dtype=torch.float64)
    starts, ends = torch.tensor([1.0, 0.8, 0.6]), torch.tensor([0.01, 0.02, 0.05])
    steps = 1 if solver == "exponential" else 10
    times = torch.stack(
        [torch.linspace(a, b, steps + 1) for a, b in zip(starts, ends, strict=True)], 1
    )
    tolerances = {"rtol": 1e-6, "atol": 1e-6} if solver == "exponential" else {}
    together = ss.decode(oracle, z, solver=solver, times=times, **tolerances)
    assert torch.equal(together.reached, times.double()[-1])
    for i in range(3):
        alone = ss.decode(oracle, z[i : i + 1], solver=solver, times=times[:, i], **tolerances)
        assert torch.allclose(together.x[i], alone.x[0], atol=1e-10)
        assert together.calls[i] == alone.calls[0]


def test_times_per_sample_are_checked() -> None:
    oracle, times = mixture(ss.VP()), torch.linspace(1, 0.1, 5)[:, None].expand(-1, 2)
    z = torch.randn(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"times must have shape \(n \+ 1,\) or \(n \+ 1, 3\)"):
        ss.decode(oracle, z, times=times)
    with pytest.raises(ValueError, match="torchdiffeq/euler has one time for all samples"):
        ss.decode(oracle, z[:2], times=times, solver="torchdiffeq/euler")


@pytest.mark.parametrize(
    "solver", ["dpmpp_2m", "heun", "ancestral", "exponential", "dopri5", "torchdiffeq/rk4"]
)
def test_a_callback_sees_every_step_and_the_denoised_data(solver: str) -> None:
    oracle, events = mixture(ss.VP()), list[Event]()
    fixed = solvers.get(solver).fixed and solver != "dopri5"
    options = {"steps": 5} if fixed else {"rtol": 1e-3, "atol": 1e-3}
    s = ss.sample(oracle, 3, solver=solver, callback=events.append, **options)
    assert len(events) == 5 if fixed else len(events) >= int(s.accepted.max())
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    for event in events:
        assert event.denoised is not None
        assert event.denoised.shape == event.x.shape
        assert event.denoised.isfinite().all()
        assert event.calls is not None
    assert torch.allclose(
        events[-1].x, s.x[events[-1].rows if not fixed else slice(None)], atol=0.3
    )
    unseen = ss.sample(oracle, 3, solver=solver, **options)
    assert torch.allclose(unseen.x, s.x)
    assert torch.equal(unseen.calls, s.calls)  # what is shown costs no call


def test_the_denoised_data_of_a_callback_is_that_of_the_model() -> None:
    oracle, seen = gaussian(ss.EDM()), list[Tensor]()
    run = {"solver": "ddim", "steps": 4, "path": True, "denoise": False}
    s = ss.sample(oracle, 2, callback=lambda e: seen.append(e.denoised), **run)
    assert s.path is not None
    for x, t, D in zip(s.path[:-1], s.times[:-1], seen, strict=True):
        assert torch.allclose(D, oracle.denoise(x, t))


@pytest.mark.parametrize("solver", ["dpmpp_2m", "exponential", "dopri5", "em", "torchdiffeq/rk4"])
def test_a_callback_can_end_the_run(solver: str) -> None:
    oracle, events = mixture(ss.VP()), list[Event]()
    adaptive = not solvers.get(solver).fixed or solver == "dopri5"
    options = {"rtol": 1e-4, "atol": 1e-4} if adaptive else {"steps": 30}

    def watch(event: Event) -> bool:
        events.append(event)
        return len(events) == 7

    s = ss.sample(oracle, 2, solver=solver, callback=watch, **options)
    assert s.status == ("stopped", "stopped")
    assert not s.ok
    assert len(events) == 7
    assert s.x.isfinite().all()
    assert (s.reached > oracle.process.start_of("sampling")).all()
    whole = ss.sample(oracle, 2, solver=solver, **options)
    assert (s.calls < whole.calls).all()
    if not adaptive:
        assert torch.allclose(s.reached, s.times[7].expand(2))
        assert torch.equal(events[-1].x, s.x)


def test_a_callback_ends_all_batches_and_names_their_samples() -> None:
    oracle, rows = mixture(ss.VP()), list[list[int]]()

    def watch(event: Event) -> bool:
        assert event.rows is not None
        rows.append(event.rows.tolist())
        return len(rows) == 7

    s = ss.sample(oracle, 6, steps=5, batch_size=2, callback=watch)
    assert rows == [[0, 1]] * 5 + [[2, 3]] * 2
    assert s.status == ("ok", "ok", *("stopped",) * 4)
    assert s.calls.tolist() == [6, 6, 2, 2, 0, 0]
    assert s.reached[4] == oracle.process.t_max


def test_failures_keep_the_time_that_was_reached() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        bad = (t < 0.3) & (torch.arange(len(x)) == 1)
        return torch.where(bad[:, None], torch.nan, 0.0) + 0 * x

    model = ss.NetworkScore(network, ss.VP(), "data", shape=(2,))
    times = torch.linspace(1, 0.1, 10, dtype=torch.float64)
    z = torch.ones(3, 2, dtype=torch.float64)
    s = ss.decode(model, z, times=times, on_failure="partial", denoise=False)
    assert s.status == ("ok", "nonfinite", "ok")
    assert s.reached[0] == times[-1]
    assert 0.2 < s.reached[1] <= 0.4
    assert s.x.isfinite().all()


def test_a_round_trip_that_was_ended_has_no_error() -> None:
    oracle = mixture(ss.VP())
    there = ss.reconstruct(oracle, oracle.data(2), solver="ddim", steps=5)
    ended = ss.reconstruct(
        oracle, oracle.data(2), solver="ddim", steps=5, callback=lambda e: e.fraction > 0.5
    )
    assert there.rms.isfinite().all()
    assert ended.rms.isnan().all()


def test_eta_conventions_are_translated() -> None:
    oracle = mixture(ss.VP())
    canonical = ss.sample(oracle, 2, solver="dpmpp_2m_sde", steps=5, eta=0.5)
    squared = ss.sample(
        oracle, 2, solver="dpmpp_2m_sde", steps=5, eta=0.25, eta_convention="k_diffusion"
    )
    assert torch.allclose(canonical.x, squared.x)
    assert squared.provenance["eta_convention"] == "k_diffusion"
    for convention in ("canonical", "ddim", "k_diffusion"):  # which agree at 0 and 1
        for eta, want in ((0.0, "ddim"), (1.0, "ancestral")):
            runs = [
                ss.sample(
                    oracle, 2, solver="ancestral", steps=5, eta=eta, eta_convention=convention
                ),
                ss.sample(oracle, 2, solver=want, steps=5),
            ]
            assert torch.allclose(runs[0].x, runs[1].x)
    with pytest.raises(ValueError, match="more noise than a step can hold"):
        ss.sample(oracle, 2, solver="ancestral", steps=5, eta=1.5, eta_convention="ddim")
    with pytest.raises(ValueError, match="eta_convention must be 'canonical'"):
        ss.sample(oracle, 2, steps=5, eta_convention="karras")
    with pytest.raises(ValueError, match="eta_convention= has no effect on ddim without eta="):
        ss.sample(oracle, 2, solver="ddim", steps=5, eta_convention="ddim")
    with pytest.raises(ValueError, match="meant for semi-linear solvers"):
        ss.sample(oracle, 2, solver="em", steps=5, eta_convention="ddim")


def test_an_adaptive_stochastic_solver_needs_a_path() -> None:
    with pytest.raises(ValueError, match="noise must be 'path', not 'increments'"):
        ss.sample(mixture(ss.VP()), 2, solver="exponential_sde", noise="increments")


def test_settings_of_a_solver_can_be_part_of_its_name() -> None:
    oracle = mixture(ss.VP())
    z = ss.encode(oracle, oracle.data(2), solver="dpmpp_3m:lower_order_final=True", steps=6)
    assert z.provenance["solver"] == "dpmpp_3m:lower_order_final=True"
    assert ss.decode(oracle, z).provenance["solver"] == "dpmpp_3m:lower_order_final=True"
    with pytest.raises(ValueError, match="'order=3'; it has lower_order_final, analytic_first"):
        solvers.get("dpmpp_2m:order=3")
    with pytest.raises(ValueError, match="lower_order_final must be True or False, but is '7'"):
        solvers.get("dpmpp_2m:lower_order_final=7")
    with pytest.raises(ValueError, match="sets 'repeats' twice; set it once"):
        solvers.get("recurrent:repeats=2:repeats=3")
    with pytest.raises(ValueError, match="amount must be a number, but is nan"):
        solvers.get("edm_churn:amount=nan")
    with pytest.raises(ValueError, match="':' separates settings"):
        solvers.get("edm_churn:amount=20,noise=1")
    with pytest.raises(ValueError, match="torchdiffeq/rk4 has no setting 'order=9'; it has none"):
        solvers.get("torchdiffeq/rk4:order=9")


@pytest.mark.parametrize(
    ("said", "meant"),
    [("UniPC", "unipc"), ("DPM++ 2M", "dpmpp_2m"), ("dpmsolver++ 3m", "dpmpp_3m"), ("DEIS", "deis_3"),
     ("Euler-Ancestral", "ancestral"), ("SA-Solver", "sa"), ("DPM++ 2M SDE", "dpmpp_2m_sde"),
     ("ER-SDE", "er_sde")],
)  # fmt: skip
def test_names_of_papers_are_understood(said: str, meant: str) -> None:
    assert solvers.get(said) is solvers.get(meant)


@pytest.mark.parametrize(
    "answer", [True, torch.tensor(True), torch.tensor([True]), np.bool_(True)], ids=repr
)
def test_a_callback_may_answer_with_any_truth_value(answer: object) -> None:
    oracle = mixture(ss.VP())
    s = ss.sample(oracle, 2, steps=4, callback=lambda event: answer)
    assert s.status == ("stopped", "stopped")
    assert "2 stopped" in repr(s)
    assert ss.sample(oracle, 2, steps=4, callback=lambda event: 1).ok  # no truth value
    with pytest.raises(TypeError, match=r"reduce them by .any\(\) or .all\(\)"):
        ss.sample(oracle, 2, steps=4, callback=lambda event: torch.tensor([True, False]))
    z = ss.encode(oracle, oracle.data(2), callback=lambda event: answer)
    with pytest.raises(ValueError, match=r"the latents of samples \[0, 1\] did not reach t_max"):
        ss.decode(oracle, z)


def test_tolerances_below_the_resolution_of_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="pass dtype=torch.float64"):
        ss.sample(mixture(ss.VP()), 2, rtol=1e-11, atol=1e-11, dtype=torch.float32)


def test_wrong_moments_are_refused_before_the_run() -> None:
    oracle = mixture(ss.VP())
    for wrong, kind, message in (
        ((torch.zeros(2), torch.eye(2)), TypeError, "the result of ss.moments"),
        (
            ss.moments(torch.randn(9, 3)),
            ValueError,
            r"of shape \(3,\), but the model's have shape \(2,\)",
        ),
    ):
        oracle.moments = wrong  # type: ignore[assignment]
        with pytest.raises(kind, match=message):
            ss.sample(oracle, 2, solver="moment_2", steps=2)


def test_provenance_says_where_noise_came_from() -> None:
    oracle = mixture(ss.VP())
    made = ss.sample(oracle, 2, solver="em", steps=3, seeds=np.arange(2), noise="path").provenance
    assert (made["seeds"], made["noise"]) == ([0, 1], "path")
    assert ss.sample(oracle, 2, steps=3).provenance["noise"] is None
    assert ss.sample(oracle, 2, solver="em", steps=3).provenance["noise"] == "increments"


def test_an_edit_by_noise_has_seeds_of_its_own() -> None:
    oracle = mixture(ss.VP())
    options = {"noise_level": 0.5, "method": "noise", "solver": "ddim", "steps": 4}
    some = ss.edit(oracle, oracle, torch.ones(2, 2), seeds=[3, 3], **options)
    assert torch.equal(some.x[0], some.x[1])
    alone = ss.edit(oracle, oracle, torch.ones(1, 2), seed=3, **options)
    assert torch.allclose(alone.x[0], some.x[0])


class Failing(ss.ScoreModel):
    r"""A model that breaks at low noise, for samples on one side."""

    def __init__(self, model: ss.ScoreModel) -> None:
        super().__init__()
        self.resemble(model)
        self.conditions, self.model = (), model

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        bad = ((x[:, 0] > 0) & (t < 0.3))[:, None]
        return torch.where(bad, torch.nan, self.model.denoise(x, t))


@pytest.mark.parametrize("solver", ["unipc", "heun", "ancestral"])
def test_a_sample_that_fails_costs_the_others_nothing(solver: str) -> None:
    model = Failing(mixture(ss.VP()))
    budget = solvers.get(solver).calls(20) + 1
    options = {
        "solver": solver,
        "steps": 20,
        "max_calls": budget,
        "on_failure": "partial",
        "seed": 5,
    }
    together = ss.sample(model, 8, **options)
    assert {"ok", "nonfinite"} == set(together.status)
    for i in range(8):
        alone = ss.sample(model, 1, first_index=i, **options)
        assert alone.status[0] == together.status[i]
        assert alone.calls[0] == together.calls[i]


@pytest.mark.parametrize(
    "solver", ["ddim", "heun", "unipc", "exponential", "dpm_adaptive", "dopri5", "torchdiffeq/rk4"]
)
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 10])
def test_a_budget_is_never_exceeded_by_a_guided_model(solver: str, budget: int) -> None:
    guided = ss.classifier_free(mixture(ss.VP()), 2.0, label=torch.tensor([0, 1]))
    fixed = solvers.get(solver).fixed and solver != "dopri5"
    options = {"steps": 9} if fixed else {"rtol": 1e-3, "atol": 1e-3}
    s = ss.sample(
        guided, 2, solver=solver, max_calls=budget, on_failure="partial", denoise=False, **options
    )
    assert s.calls.max() <= budget
    assert set(s.status) == {"max_calls"}


@pytest.mark.parametrize("solver", ["exponential", "dpm_adaptive", "dopri5", "bosh3"])
def test_paths_under_tolerances_are_those_of_the_flow(solver: str) -> None:
    oracle = gaussian(ss.VP())
    z = oracle.process.prior_sample((3, 2), seed=1, dtype=torch.float64)
    s = ss.decode(oracle, z, solver=solver, rtol=1e-6, atol=1e-6, path=True, denoise=False)
    assert s.path is not None
    for x, t in zip(s.path, s.times.tolist(), strict=True):
        if t < oracle.process.t_max:
            assert torch.allclose(x, oracle.flow(z, oracle.process.t_max, t), atol=3e-4)


def test_a_path_made_outside_serves_an_adaptive_stochastic_solver() -> None:
    oracle = mixture(ss.VP())
    options = {"solver": "exponential_sde", "rtol": 0.03, "atol": 0.03}
    path = solvers.Path(0, torch.arange(5), torch.zeros(5, 2, dtype=torch.float64))
    own = ss.sample(oracle, 5, noise=path, dtype=torch.float64, **options)
    assert torch.allclose(own.x, ss.sample(oracle, 5, dtype=torch.float64, **options).x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "edm_churn", "eta": 0.5}, "eta=0.5 has no effect on edm_churn"),
        ({"solver": "annealed_langevin", "eta": 1.0}, "eta=1.0 has no effect on annealed_langevin"),
        ({"solver": "torchsde/srk", "times": torch.linspace(1, 0.1, 4)[:, None].expand(4, 2)},
         "torchsde/srk has one time for all samples"),
    ],
)  # fmt: skip
def test_options_that_a_stochastic_solver_cannot_use(options: dict, message: str) -> None:
    steps = {} if "times" in options else {"steps": 3}
    with pytest.raises(ValueError, match=message):
        ss.sample(mixture(ss.VP()), 2, **steps, **options)


def test_a_process_without_scales_has_paths_and_tolerances() -> None:
    process = ss.NonlinearProcess(lambda x, t: -x, lambda t: torch.full_like(t, 2**0.5), t_max=2.0)
    model = ss.NetworkScore(lambda x, t: -x, process, "score", shape=(2,))
    z = torch.randn(3, 2, dtype=torch.float64)
    for options in (
        {"solver": "em", "steps": 5, "noise": "path"},
        {"rtol": 1e-4, "solver": "dopri5"},
    ):
        assert ss.decode(model, z, t_min=0.1, denoise=False, **options).ok
