r"""What a model has learned: flows of coupled pairs, bridges, consistency functions, and what they are asked."""

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.models.estimate import estimate
from scoresde.models.forms import score_form
from scoresde.models.learned import HOLDS, LEARNED

from .calls import CALLS, Call
from .test_sweep import SLOW

F64 = torch.float64
PROCESSES = [ss.Interpolant(), ss.VP(), ss.EDM()]
COUPLED = [0.8, -0.5, 0.0]
X = torch.linspace(-1.0, 2.0, 7, dtype=F64)[:, None]


class Pairs(ss.ScoreModel):
    r"""The exact flow of pairs of normal data and noise with a correlation.

    With data of mean m and deviation c, :math:`x_t` has the mean :math:`\alpha m` and the variance
    :math:`V = \alpha^2 c^2 + \sigma^2 + 2 \alpha \sigma \rho c`, and the flow keeps
    :math:`(x_t - \alpha m) / \sqrt{V}`.
    """

    def __init__(
        self, process: ss.Process, correlation: float = 0.0, learned: str = "flow"
    ) -> None:
        super().__init__()
        self.process, self.learned, self.shape = process, learned, (1,)
        self.correlation, self.mean, self.std = correlation, 0.3, 0.8
        self.data_scale = math.hypot(self.mean, self.std)
        self.settings = {"correlation": correlation}

    def variance(self, t: Tensor) -> Tensor:
        a, s = self.process.scales(t)
        return a**2 * self.std**2 + s**2 + 2 * a * s * self.correlation * self.std

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=F64)
        a, s = self.process.scales(t)
        slope = (a * self.std**2 + s * self.correlation * self.std) / self.variance(t)
        a, slope = (value.to(x).reshape(-1, 1) for value in (a, slope))
        return self.mean + slope * (x - a * self.mean)

    def carried(self, x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
        r"""Returns where the flow takes states."""

        (a, _), (b, _) = self.process.scales(start), self.process.scales(stop)
        ratio = (self.variance(stop) / self.variance(start)).sqrt()
        return b * self.mean + ratio * (x - a * self.mean)


class Inherited(Pairs):
    r"""The same, whose estimate calls that of its base."""

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return 1.0 * super().denoise(x, t)


def slope_model(process: ss.Process, correlation: float, learned: str = "flow") -> ss.NetworkScore:
    r"""The same flow as a network that predicts its velocity."""

    known = Pairs(process, correlation)
    network = known.velocity
    return ss.NetworkScore(
        network, process, "velocity", shape=(1,), data_scale=known.data_scale, learned=learned
    )


TIGHT: Any = {"rtol": 1e-6, "atol": 1e-6}


def name_of(process: ss.Process) -> str:
    return type(process).__name__


@pytest.mark.parametrize("process", PROCESSES, ids=name_of)
@pytest.mark.parametrize("correlation", COUPLED)
def test_coupled_pairs_are_carried_as_the_closed_form_says(
    process: ss.Process, correlation: float
) -> None:
    model = Pairs(process, correlation, "flow" if correlation > 0 else "bridge")
    z = ss.encode(model, X, **TIGHT)
    a = process.scales(z.times[0])[0]
    assert (
        z.x - model.carried(a * X, z.times[0], z.times[-1])
    ).abs().max() < 1e-5 * z.x.abs().max()
    down = ss.decode(model, z.x, denoise=False, **TIGHT)
    right = model.carried(z.x, down.times[0], down.times[-1])
    assert (down.x - right).abs().max() < 1e-5


@pytest.mark.parametrize("learned", ["flow", "bridge"])
def test_latents_of_a_bridge_are_not_compared_with_noise(learned: str) -> None:
    trip = ss.reconstruct(Pairs(ss.VP(), 0.8, learned), X, steps=40)
    assert trip.rms.max() < 0.01
    assert (trip.statistics is None) == (learned == "bridge")


def test_samples_of_the_flow_have_the_law_of_the_data() -> None:
    model = Pairs(ss.Interpolant(), 0.8)
    s = ss.sample(model, 4000, dtype=F64, solver="heun", steps=60, seed=1)
    for found, right in ((s.x.mean(), model.mean), (s.x.std(), model.std)):
        assert abs(found - right) < 5 * model.std / math.sqrt(4000)


@pytest.mark.parametrize("process", PROCESSES, ids=name_of)
def test_the_last_step_of_a_sample_is_an_euler_step_of_the_flow(process: ss.Process) -> None:
    model = slope_model(process, 0.8)
    z = torch.tensor([[-0.4], [1.1]], dtype=F64) * process.prior_std()
    raw, clean = (ss.decode(model, z, steps=6, denoise=last) for last in (False, True))
    t = raw.times[-1]
    (a, s), (f, slope) = process.scales(t), process.rates(t)
    rate = (model.velocity(raw.x, t) - f * raw.x) / a  # of y = x / alpha
    step = (0 - s / a) / (-slope * s / a)  # to the noise level 0
    assert torch.allclose(clean.x, raw.x / a + step * rate, rtol=1e-9, atol=1e-12)
    assert (clean.calls == raw.calls + 1).all()


@pytest.mark.parametrize("process", PROCESSES, ids=name_of)
@pytest.mark.parametrize("correlation", COUPLED)
def test_densities_of_the_flow_are_those_of_its_prior_carried_along(
    process: ss.Process, correlation: float
) -> None:
    model = Pairs(process, correlation)
    found = ss.log_likelihood(model, X, **TIGHT)
    start, stop = (torch.tensor(t, dtype=F64) for t in (found.t_min, process.t_max))
    a, ratio = process.scales(start)[0], model.variance(stop) / model.variance(start)
    latent = model.carried(a * X, start, stop)
    right = process.prior_log_prob(latent) + ratio.log() / 2 + a.log()
    assert (found.nats - right).abs().max() < 1e-3
    law = torch.distributions.Normal(model.mean, model.std).log_prob(X)[:, 0]
    assert ((found.nats - law).abs() < found.total).all()
    assert found.total.max() < 0.2
    assert found.slope is not None
    assert found.slope.isnan().all()


@pytest.mark.parametrize("correlation", [0.8, -0.5])
def test_the_error_budget_of_a_flow_holds_what_noise_and_steps_do(correlation: float) -> None:
    model = Pairs(ss.EDM(), correlation)
    model.moments = ss.Moments(
        torch.tensor([model.mean]).double(), None, torch.tensor([0.64]).double()
    )
    found = ss.log_likelihood(model, X, solver="heun", steps=8)
    start, stop = (torch.tensor(t, dtype=F64) for t in (found.t_min, model.process.t_max))
    law, noisy = (
        torch.distributions.Normal(model.mean, deviation).log_prob(X)[:, 0]
        for deviation in (model.std, model.variance(start).sqrt())
    )
    assert torch.allclose(found.budget["end"], (noisy - law).abs(), rtol=0.05, atol=1e-4)
    latent = model.carried(X, start, stop)
    ratio = model.variance(stop) / model.variance(start)
    right = model.process.prior_log_prob(latent) + ratio.log() / 2
    off, budget = (found.nats - right).abs(), found.budget
    assert off.max() > 0.05  # of eight steps
    assert (off < budget["path"] + budget["quadrature"]).all()


def test_densities_beside_samples_are_those_of_the_flow() -> None:
    model = Pairs(ss.Interpolant(), 0.8)
    s = ss.sample(model, 5, solver="heun", steps=200, dtype=F64, denoise=False, log_density=True)
    t, stop = s.times[-1], s.times[0]
    ratio = model.variance(stop) / model.variance(t)
    latent = model.carried(s.x, t, stop)
    a = model.process.scales(t)[0]
    right = model.process.prior_log_prob(latent) + ratio.log() / 2 + a.log()
    assert s.log_density is not None
    assert (s.log_density - right).abs().max() < 2e-3


@pytest.mark.parametrize("correlation", COUPLED)
def test_tweedie_holds_for_independent_noise_alone(correlation: float) -> None:
    r"""The reason for the refusals: of coupled pairs, the estimate is a mean, but gives no score."""

    model, t = Pairs(ss.VP(), correlation), torch.tensor(0.4, dtype=F64)
    a, b = score_form(model.process, t)
    said = a * X + b * estimate(model, X, t)
    right = -(X - model.process.scales(t)[0] * model.mean) / model.variance(t)
    assert ((said - right).abs().max() < 1e-12) == (correlation == 0)


@pytest.mark.parametrize("learned", ["flow", "bridge", "consistency"])
@pytest.mark.parametrize("method", ["denoise", "score", "noise"])
def test_methods_that_need_a_score_are_refused(learned: str, method: str) -> None:
    t = torch.tensor(0.5)
    for model in (
        Pairs(ss.VP(), learned=learned),
        Inherited(ss.VP(), learned=learned),
        slope_model(ss.VP(), 0.0, learned),
    ):
        for one in (model, ss.Rescheduled(model, ss.EDM()), ss.Masked(model, torch.ones(1, 1))):
            with pytest.raises(ValueError, match=f"{method} has no meaning.*'{learned}'"):
                getattr(one, method)(X.float(), t)
            assert torch.isfinite(estimate(one, X.float(), t)).all()


def test_models_inside_others_and_inherited_estimates_give_the_same_flow() -> None:
    process, z = ss.VP(), torch.tensor([[-0.4], [1.1]], dtype=F64)
    plain = ss.decode(Pairs(process, 0.8), z, steps=7).x
    for model in (
        slope_model(process, 0.8),
        Inherited(process, 0.8),
        ss.Masked(Pairs(process, 0.8), torch.ones(1, 1)),
        Pairs(process, 0.8).rows(torch.arange(2)),
    ):
        assert model.learned == "flow"
        assert torch.allclose(ss.decode(model, z, steps=7).x, plain, rtol=1e-10)
    other = ss.Rescheduled(Pairs(process, 0.8), ss.EDM())
    assert other.learned == "flow"
    with pytest.raises(ValueError, match="reverse_sde has no meaning"):
        ss.reverse_sde(other)


def counted(learned: str) -> tuple[ss.NetworkScore, list[int]]:
    calls: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return 0 * x

    return ss.NetworkScore(network, ss.VP(), "v", shape=(2,), learned=learned), calls


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "em"},
        {"solver": "ddim", "eta": 0.5},
        {"solver": "er_sde"},
        {"solver": "edm_churn"},
    ],
    ids=str,
)
def test_noise_on_the_way_is_refused_before_any_call(options: dict[str, Any]) -> None:
    for learned in ("flow", "bridge"):
        model, calls = counted(learned)
        with pytest.raises(ValueError, match=f"{options['solver']} adds noise.*'{learned}'"):
            ss.decode(model, torch.zeros(3, 2), **options)
        assert not calls


def test_a_consistency_function_has_no_velocity() -> None:
    model, calls = counted("consistency")
    with pytest.raises(
        ValueError, match="heun takes steps along a velocity.*solver='consistency'"
    ):
        ss.sample(model, 3, solver="heun")
    with pytest.raises(ValueError, match="velocity has no meaning"):
        model.velocity(torch.zeros(3, 2), torch.tensor(0.5))
    assert not calls


def test_jobs_refuse_before_there_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sample has no meaning.*'bridge'.*ss.decode"):
        ss.jobs.sample(Pairs(ss.VP(), learned="bridge"), 4, out=tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_a_check_knows_samples_from_means() -> None:
    r"""The end of the flow of normal data is no conditional mean, and right for what was learned."""

    process = ss.EDM()

    def end(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x / (0.25 + t[:, None] ** 2).sqrt()

    data = 0.5 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    models = (
        ss.NetworkScore(end, process, "data", shape=(2,), learned=learned)
        for learned in ("consistency", "score")
    )
    assert [ss.check_score(model, data).ok for model in models] == [True, False]


DENSITIES = {
    "log_likelihood": lambda model: ss.log_likelihood(
        model, torch.zeros(2, 1), solver="heun", steps=3
    ),
    "log_density=": lambda model: ss.sample(model, 2, steps=3, log_density=True),
    "classify": lambda model: ss.classify(model, torch.zeros(2, 1), classes=2),
    "latent_statistics": lambda model: ss.latent_statistics(model, torch.zeros(2, 1)),
}  # of a law that is known where the flow begins


@pytest.mark.parametrize("learned", ["bridge", "consistency"])
@pytest.mark.parametrize("name", DENSITIES)
def test_only_the_prior_of_a_flow_is_known(name: str, learned: str) -> None:
    with pytest.raises(ValueError, match=rf"has no meaning .* learned='{learned}'"):
        DENSITIES[name](slope_model(ss.Interpolant(), 0.5, learned))


@pytest.mark.parametrize("learned", LEARNED)
def test_files_keep_what_was_learned(tmp_path: Path, learned: str) -> None:
    settings = {"size": 2, "width": 8, "depth": 1}
    network = ss.networks.MLP(**settings)
    model = ss.NetworkScore(network, ss.VP(), "v", shape=(2,), learned=learned)
    card = {"network": {"settings": settings}, "learned": "bridge"}
    again = ss.load(ss.save(model, tmp_path / "network", card))
    own = ss.load(ss.save(Pairs(ss.VP(), 0.5, learned), tmp_path / "own"), trust=True)
    assert again.learned == own.learned == learned


def test_what_is_learned_is_one_of_four_and_needs_scales() -> None:
    with pytest.raises(ValueError, match="learned must be one of 'score'.*but is 'flows'"):
        ss.NetworkScore(lambda x, t: x, ss.VP(), "v", learned="flows")
    model = ss.NetworkScore(lambda x, t: x, ss.VP(), "v", shape=(2,))
    model.learned = "flows"
    with pytest.raises(ValueError, match="learned must be one of 'score'.*but is 'flows'"):
        ss.sample(model, 2)
    any_drift = ss.NonlinearProcess(lambda x, t: -x, 1.0)
    with pytest.raises(ValueError, match="learned='flow'.*needs a process with x = alpha x0"):
        ss.NetworkScore(lambda x, t: x, any_drift, "score", learned="flow")


# ---- every public function that takes a model


def relearned(value: object, learned: str) -> object:
    r"""The same value, whose models have learned something else."""

    if isinstance(value, ss.ScoreModel):
        value = copy.copy(value)
        value.learned = learned
    elif isinstance(value, list | tuple) and value:
        found = [relearned(one, learned) for one in value]
        if any(new is not old for new, old in zip(found, value, strict=True)):
            return type(value)(found)
    return value


def asked(label: str, learned: str) -> Call | None:
    r"""The call with models that have learned something else, if it takes any."""

    function, arguments = CALLS[label]
    owner = getattr(function, "__self__", None)
    changed = {name: relearned(value, learned) for name, value in arguments.items()}
    if isinstance(owner, ss.ScoreModel):
        return getattr(relearned(owner, learned), function.__name__), changed
    same = all(changed[name] is arguments[name] for name in arguments)
    return None if same else (function, changed)


TAKE_MODELS = [label for label in CALLS if asked(label, "flow") is not None]
WORK = {
    "flow": """decode encode reconstruct log_likelihood discrete_log_likelihood resume edit latent_statistics
        compare tune probability_flow NetworkScore.velocity NetworkScore.raw Masked Given Rescheduled save
        jobs.sample""".split(),
    "bridge": "decode encode reconstruct resume edit probability_flow NetworkScore.velocity Given".split(),
    "consistency": ["check_score", "NetworkScore.raw", "Masked", "Given", "Rescheduled", "save"],
}
REFUSED = """elbo views path_density transition_log_prob encode_noise find_modes inpaint weighted_sample
    twisted_sample reverse_sde classifier_free adaptive_projected autoguidance classifier experts feedback mixture
    moment_matching optimised plus_plus posterior_sampling product pseudoinverse replacement rescaled thresholded
    universal within zero_star factors iid follow suggest fit_null fit_noise NetworkScore.denoise
    NetworkScore.score NetworkScore.noise""".split()


@pytest.mark.parametrize(
    "label", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in TAKE_MODELS]
)
@pytest.mark.parametrize("learned", WORK)
def test_every_function_works_or_refuses_by_name(
    label: str, learned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = asked(label, learned)
    assert call is not None
    function, arguments = call
    if "out" in arguments:
        arguments["out"] = tmp_path / "job"
    words = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**arguments)
        except ValueError as error:
            words = str(error)
    assert not words or learned in words
    assert label not in WORK[learned] or not words, words
    assert label not in REFUSED or words


def test_what_holds_is_asked_by_name() -> None:
    for kinds in HOLDS.values():
        assert set(kinds) < set(LEARNED) - {"score"} or kinds == ("flow", "bridge", "consistency")
    assert set(REFUSED) | {name for names in WORK.values() for name in names} <= set(TAKE_MODELS)
