r"""The log-density that comes with a sample: closed forms, the density of data, rows, and refusals."""

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers

from .cases import MEANS, PROCESSES, gaussian, mixture

X = torch.tensor([[1.0, 0.1], [-0.6, -0.8], [-0.5, 1.2]])


def truth(model: ss.Oracle, s: solvers.Solution, x: Tensor) -> Tensor:
    r"""The log-density of states at the end of a run, in units of the data."""

    t = s.times[-1]
    return model.log_prob(x.double(), t) + 2 * model.process.scales(t)[0].log()


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant", "Custom"])
def test_it_is_that_of_the_state_before_the_denoising(process: str) -> None:
    model = mixture(PROCESSES[process])
    s = ss.sample(model, 6, log_density=True, path=True)
    right = truth(model, s, s.path[-1])
    assert bool(((s.log_density - right).abs() <= s.log_density_error).all())
    assert s.log_density_error.max() < 0.4
    assert s.log_density.dtype == s.log_density_error.dtype == torch.float64
    plain = ss.sample(model, 6, path=True)
    assert torch.equal(s.x, plain.x)
    assert torch.equal(s.path, plain.path)


FINE: dict[str, dict[str, object]] = {
    "steps of order 2": {"solver": "heun", "steps": 50},
    "tolerances": {"rtol": 1e-4, "atol": 1e-4},
    "ancestral steps without noise": {"solver": "ancestral", "eta": 0.0, "steps": 300},
}


@pytest.mark.parametrize("case", FINE)
def test_finer_paths_have_smaller_errors(case: str) -> None:
    model, options = mixture(ss.VP()), FINE[case]
    s = ss.sample(model, 4, log_density=True, denoise=False, **options)
    error = (s.log_density - truth(model, s, s.x)).abs()
    assert bool((error <= s.log_density_error).all())
    assert s.log_density_error.max() < 0.05
    assert s.path is None


def test_the_noise_that_is_left_is_no_error() -> None:
    options = {"solver": "heun", "steps": 60, "log_density": True, "denoise": False}
    for process, level, most in ((ss.VP(), 1.0, 0.01), (ss.EDM(), 1.0, 0.2)):
        model = mixture(process)
        if process.prior_std() > 1:  # the gap to the prior follows from the size of the samples
            model.moments = None
        s = ss.sample(model, 6, t_min=process.at_noise_level(level), **options)
        assert bool(((s.log_density - truth(model, s, s.x)).abs() <= s.log_density_error).all())
        assert s.log_density_error.max() < most  # while the noise changes it by half a nat


def test_it_is_the_density_of_the_state_as_data() -> None:
    model = mixture(ss.VP())
    s = ss.sample(model, 5, steps=80, log_density=True, denoise=False, t_min=0.01)
    known = ss.log_likelihood(model, s.x / model.process.scales(s.times[-1])[0], t_min=0.01)
    apart = (s.log_density - known.nats).abs()
    assert bool((apart <= s.log_density_error + known.total).all())


def test_latents_and_conditions_have_densities() -> None:
    model, label = mixture(ss.EDM()), torch.tensor([0, 2, 1])
    z = ss.encode(model, X, label=label, steps=60)
    s = ss.decode(model, z, label=label, log_density=True, denoise=False)
    single = [ss.GaussianOracle(MEANS[k], 0.3) for k in label]
    right = torch.cat([truth(one, s, s.x[i : i + 1]) for i, one in enumerate(single)])
    assert bool(((s.log_density - right).abs() <= s.log_density_error).all())
    pulled = ss.classifier_free(model, 0.0, label=label)  # the model without its label
    s = ss.decode(pulled, z.x, log_density=True, denoise=False)
    assert bool(((s.log_density - truth(model, s, s.x)).abs() <= s.log_density_error).all())


def test_random_probes_state_their_noise() -> None:
    means = torch.randn(3, 300, generator=torch.Generator().manual_seed(0))
    model = ss.MixtureOracle(means, 0.4, process=ss.VP())  # beyond an exact divergence
    s = ss.sample(model, 6, steps=40, log_density=True, denoise=False)
    t = s.times[-1]
    right = model.log_prob(s.x, t) + 300 * model.process.scales(t)[0].log()
    assert bool(((s.log_density - right).abs() <= s.log_density_error).all())
    assert s.log_density_error.max() < 8
    apart = [
        ss.sample(model, 3, steps=40, log_density=True, denoise=False, first_index=i)
        for i in (0, 3)
    ]
    whole = solvers.Solution.stack(apart)
    torch.testing.assert_close(whole.log_density, s.log_density, rtol=1e-10, atol=1e-8)


def test_rows_do_not_depend_on_their_batch() -> None:
    model = mixture(ss.VP())
    whole = ss.sample(model, 5, log_density=True, rtol=1e-3, atol=1e-3)
    parts = ss.sample(model, 5, log_density=True, rtol=1e-3, atol=1e-3, batch_size=3)
    for name in ("log_density", "log_density_error"):
        torch.testing.assert_close(
            getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-10
        )
        assert torch.equal(getattr(whole[[3, 1]], name), getattr(whole, name)[[3, 1]])
    assert torch.equal(parts.calls, whole.calls)
    assert "mean log-density" in repr(whole)
    plain = ss.sample(model, 5)
    assert "density" not in repr(plain)
    assert solvers.Solution.stack([whole, plain]).log_density is None


def test_times_of_rows_share_their_ends() -> None:
    model = mixture(ss.VP())
    even = torch.linspace(1.0, 0.01, 60)
    times = torch.stack([even, even - 0.4 * (1 - even) * (even - 0.01)], 1)
    s = ss.sample(model, 2, times=times, log_density=True, denoise=False)
    assert bool(((s.log_density - truth(model, s, s.x)).abs() <= s.log_density_error).all())
    times[-1, 1] = 0.02
    with pytest.raises(
        ValueError, match=r"one last time for all samples, but they end at 0.01 to 0.02"
    ):
        ss.sample(model, 2, times=times, log_density=True)


def test_states_in_float32() -> None:
    model = mixture(ss.VP())
    s = ss.sample(model, 4, log_density=True, path=True, dtype=torch.float32)
    assert s.path.dtype == torch.float32
    assert bool(((s.log_density - truth(model, s, s.path[-1])).abs() <= s.log_density_error).all())


def test_calls_are_those_of_run_density_and_denoising() -> None:
    model, asked = mixture(ss.VP()), 20 + 1 + 2 * 64
    s = ss.sample(model, 3, log_density=True)
    assert s.calls.tolist() == [asked] * 3
    guided = ss.classifier_free(model, 2.0, label=0)
    s = ss.sample(guided, 3, log_density=True, max_calls=2 * asked)
    assert s.calls.tolist() == [2 * asked] * 3
    s = ss.sample(model, 3, log_density=True, max_calls=asked - 5, on_failure="partial")
    assert s.calls.tolist() == [15] * 3
    assert bool(s.log_density.isnan().all())
    with pytest.raises(
        ValueError,
        match="129 of the last denoising and the log-density, but is 128",
    ):
        ss.sample(model, 3, log_density=True, max_calls=128)


def test_failed_rows_have_none() -> None:
    inner = mixture(ss.VP())

    class Failing(ss.ScoreModel):
        process, shape, data_scale = inner.process, (2,), 1.0

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            far = (x[:, :1] > 1.0) & (t < 0.3).expand(len(x))[:, None]
            return inner.denoise(x, t) + torch.where(far, torch.nan, 0.0)

    s = ss.sample(Failing(), 6, log_density=True, on_failure="partial")
    failed = torch.tensor([status != "ok" for status in s.status])
    assert 0 < failed.sum() < 6
    assert torch.equal(s.log_density.isnan(), failed)
    right = ss.sample(inner, 6, log_density=True).log_density
    torch.testing.assert_close(s.log_density[~failed], right[~failed], rtol=1e-6, atol=0.05)


def test_gradients_are_those_of_finite_differences() -> None:
    model, z = mixture(ss.VP()), torch.tensor([[0.3, -0.2]])

    def density(z: Tensor, grad: str = "none") -> Tensor:
        return ss.decode(
            model, z, steps=10, grid="log_snr", log_density=True, grad=grad
        ).log_density

    start = z.clone().requires_grad_()
    density(start, "backprop").sum().backward()
    step = torch.tensor([[1e-5, 0.0]])
    slope = (density(z + step) - density(z - step)) / 2e-5
    torch.testing.assert_close(start.grad[:, 0], slope, rtol=1e-5, atol=1e-5)


def test_what_has_no_such_density_is_refused() -> None:
    model = gaussian(ss.VP())
    cases = [
        ({"solver": "ancestral"}, "ancestral adds noise; .* ss.transition_log_prob"),
        ({"solver": "edm_churn"}, "edm_churn adds noise"),
        ({"eta": 0.3}, "dpmpp_2m adds noise"),
        ({"times": [0.9, 0.5, 0.01]}, "needs a run from t_max=1, .* starts at 0.9"),
    ]
    for options, words in cases:
        with pytest.raises(ValueError, match=words):
            ss.sample(model, 2, log_density=True, **options)
    free = ss.NonlinearProcess(f=lambda x, t: -x, g=1.0, std=1.0, t_min=0.001, t_max=1.0)
    score = ss.NetworkScore(lambda x, t: -x, free, "score", shape=(2,))
    with pytest.raises(
        ValueError, match="needs noise levels with numbers alpha and sigma, but NonlinearProcess"
    ):
        ss.sample(score, 2, solver="heun", log_density=True, denoise=False)
    for call in (ss.encode, ss.reconstruct, ss.log_likelihood):
        with pytest.raises(ValueError, match="log_density= has no effect on"):
            call(model, torch.ones(1, 2), log_density=True)
    with pytest.raises(ValueError, match="log_density= has no effect on method='encode'"):
        ss.edit(model, model, torch.ones(1, 2), strength=0.5, log_density=True)


def test_others_than_the_verbs_have_no_density() -> None:
    s = solvers.solve(
        solvers.ODE(lambda t, x: -x), torch.ones(2, 1), np.array([0.0, 1.0]), "euler"
    )
    assert s.log_density is None
    assert s[0].log_density_error is None


def test_it_is_that_of_the_users_data() -> None:
    model, std = mixture(ss.VP()), torch.tensor([2.0, 0.1])
    plain = ss.sample(model, 3, log_density=True)
    model.transform = ss.Standardized(torch.tensor([1.0, -1.0]), std)
    s = ss.sample(model, 3, log_density=True)
    torch.testing.assert_close(s.log_density, plain.log_density - std.log().sum())
    assert torch.equal(s.log_density_error, plain.log_density_error)
