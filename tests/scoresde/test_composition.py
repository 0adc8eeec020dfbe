r"""Guidance that puts models together: each against a law that knows the answer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde import guidance

MEANS = torch.tensor([[-1.5, 0.4], [0.3, 1.0], [1.2, -0.6]])
LABEL = torch.tensor([1])
STDS = torch.tensor([0.5, 0.4, 0.7])
PROCESSES = {"VP": ss.VP(), "EDM": ss.EDM(), "Interpolant": ss.Interpolant()}


def total(D: Tensor) -> Tensor:
    return D.sum(1)


def mixture(process: ss.Process, weights: list[float]) -> ss.MixtureOracle:
    return ss.MixtureOracle(MEANS, STDS, weights=torch.tensor(weights), process=process)


def component(process: ss.Process, k: int) -> ss.MixtureOracle:
    return ss.MixtureOracle(MEANS[k : k + 1], STDS[k : k + 1], process=process)


def known(D: Tensor, y: Tensor) -> Tensor:
    return D.sum(1)


def other() -> ss.Classifier:
    r"""A classifier of another process."""

    return ss.Classifier(
        torch.nn.Linear(2, 3), ss.EDM(), data_std=1.0, levels=(0.1, 10.0), classes=3
    )


def states(process: ss.Process) -> tuple[Tensor, Tensor]:
    t = torch.linspace(0.05, 0.95, 5) * process.t_max
    alpha, sigma = process.scales(t)
    scale = (alpha**2 + sigma**2).sqrt()
    return scale[:, None] * torch.randn(5, 2), t


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_a_mixture_of_two_models_is_that_of_their_data(process: ss.Process) -> None:
    x, t = states(process)
    parts = [component(process, k) for k in (0, 2)]
    shares = torch.tensor([0.3, 0.7])

    def log_weights(x: Tensor, t: Tensor) -> Tensor:
        return shares.log() + torch.stack([part.log_prob(x, t) for part in parts], 1)

    mixed = guidance.mixture(parts, log_weights)
    whole = ss.MixtureOracle(MEANS[[0, 2]], STDS[[0, 2]], weights=shares, process=process)
    assert torch.allclose(mixed.denoise(x, t), whole.denoise(x, t))
    assert torch.allclose(mixed.score(x, t), whole.score(x, t))
    rows = torch.tensor([3, 1])
    assert torch.allclose(mixed.rows(rows).score(x[rows], t[rows]), whole.score(x, t)[rows])


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_feedback_recovers_the_condition_of_a_model_that_mixed_it(process: ss.Process) -> None:
    r"""The learned conditional law is 0.8 of the true one and 0.2 of all data."""

    _, t = states(process)
    x = process.perturb(component(process, 1).data(5), t, torch.randn(5, 2))
    free, learned = mixture(process, [0.5, 0.3, 0.2]), mixture(process, [0.1, 0.86, 0.04])

    class Learned(ss.ScoreModel):
        conditions = ("label",)

        def __init__(self) -> None:
            super().__init__()
            self.process = process

        def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            return (free if label is None else learned).denoise(x, t)

    def log_ratio(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return want.log_prob(x, t) - free.log_prob(x, t)

    want = component(process, 1)
    guided = guidance.feedback(Learned(), log_ratio, 0.8, label=LABEL, limit=1e9)
    assert torch.allclose(guided.denoise(x, t), want.denoise(x, t), rtol=1e-6, atol=1e-9)
    plain = guidance.feedback(Learned(), log_ratio, 1.0, label=LABEL)
    assert torch.allclose(plain.denoise(x, t), learned.denoise(x, t))
    with pytest.raises(solvers.SolverError, match="NaN"):
        lost = guidance.feedback(
            Learned(), lambda x, t, label: math.nan * x[:, 0], 0.8, label=LABEL
        )
        ss.sample(lost, (2, 2), solver="ddim", steps=3)
    capped = guidance.feedback(Learned(), lambda x, t, label: -40 + 0 * x[:, 0], 0.8, limit=3.0,
                               label=LABEL)  # fmt: skip
    D, other = learned.denoise(x, t), free.denoise(x, t)
    assert torch.allclose(capped.denoise(x, t), other + 3 * (D - other))


def test_negative_conditions_take_the_place_of_none() -> None:
    model = mixture(ss.VP(), [0.5, 0.3, 0.2])
    x, t = states(ss.VP())
    label, other = torch.tensor([1]), torch.tensor([0])
    D, away = (model.given(label=k).denoise(x, t) for k in (label, other))
    guided = ss.classifier_free(model, 2.5, label=label, negative={"label": other})
    assert torch.allclose(guided.denoise(x, t), away + 2.5 * (D - away))
    none = ss.classifier_free(model, 0.0, label=label, negative={"label": other})
    assert torch.allclose(none.denoise(x, t), away)
    assert list(guided.parts) == ["negative", "conditional"]
    assert ss.sample(guided, 2, solver="ddim", steps=3).calls.tolist() == [8, 8]
    with pytest.raises(TypeError, match="label= is already bound"):
        ss.sample(guided, 2, steps=3, label=label)


def test_optimised_data_descends_the_loss_without_the_model() -> None:
    model = mixture(ss.VP(), [0.5, 0.3, 0.2])
    x, t = states(ss.VP())
    y = torch.randn(5, 2)

    def loss(D: Tensor, y: Tensor) -> Tensor:
        return (D - y).square().sum(1) / 2

    guided = guidance.optimised(model, loss, 0.25, iterations=3, y=y)
    want = y + 0.75**3 * (model.denoise(x, t) - y)
    assert torch.allclose(guided.denoise(x, t), want)
    both = guidance.optimised(
        guidance.universal(model, loss, 0.1, y=y), loss, 0.25, iterations=3, y=y
    )
    pulled = guidance.universal(model, loss, 0.1, y=y).denoise(x, t)
    assert torch.allclose(both.denoise(x, t), y + 0.75**3 * (pulled - y))


def test_joined_measurements_are_one_of_all() -> None:
    model = ss.GaussianOracle(torch.zeros(3), torch.diag(torch.tensor([0.4, 0.3, 0.2])), ss.EDM())
    x, t, y = torch.randn(4, 3), torch.tensor(0.7), torch.randn(4, 3)
    operator, seen = guidance.joined(
        [lambda x: x[:, :1], lambda x: x[:, 1:]], [y[:, :1], y[:, 1:]], [0.2, 0.5]
    )
    guided = guidance.moment_matching(model, operator, seen, noise=1.0, iterations=3)
    prior, noise = torch.tensor([0.4, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.5]) ** 2
    precision = 1 / prior + 1 / 0.7**2 + 1 / noise
    assert torch.allclose(guided.denoise(x, t), (x / 0.7**2 + y / noise) / precision, atol=1e-6)


def test_what_is_measured_replaces_what_is_estimated() -> None:
    model = mixture(ss.VP(), [0.5, 0.3, 0.2])
    x, t = states(ss.VP())
    y, weights = torch.randn(5, 1), torch.tensor([[0.6, 0.8]])
    guided = guidance.replacement(model, lambda x: x @ weights.T, y)
    D, plain = guided.denoise(x, t), model.denoise(x, t)
    assert torch.allclose(D @ weights.T, y)
    across = torch.tensor([[-0.8], [0.6]])
    assert torch.allclose(D @ across, plain @ across)
    rows = torch.tensor([4, 0])
    assert torch.allclose(guided.rows(rows).denoise(x[rows], t[rows]), D[rows])
    s = ss.sample(
        guidance.replacement(model, lambda x: x[:, :1], y[:1]), 3, solver="ddim", steps=3
    )
    assert torch.allclose(s.x[:, 0], y[0].expand(3))
    assert s.calls.tolist() == [4] * 3


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_mixtures_and_feedback_have_likelihoods_and_latents(process: ss.Process) -> None:
    parts, shares = [component(process, k) for k in (0, 2)], torch.tensor([0.3, 0.7])

    def log_weights(x: Tensor, t: Tensor) -> Tensor:
        return shares.log() + torch.stack([part.log_prob(x, t) for part in parts], 1)

    mixed = guidance.mixture(parts, log_weights)
    whole = ss.MixtureOracle(MEANS[[0, 2]], STDS[[0, 2]], weights=shares, process=process)
    x = whole.data(4)
    found = ss.log_likelihood(mixed, x, rtol=1e-6, atol=1e-6)
    want = ss.log_likelihood(whole, x, rtol=1e-6, atol=1e-6)
    assert torch.allclose(found.nats, want.nats, atol=1e-3)
    r = ss.reconstruct(mixed, x, rtol=1e-6, atol=1e-6)
    assert float(r.max.max()) < 1e-3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: guidance.mixture([m], lambda x, t: x), "at least two models"),
        (lambda m: guidance.mixture([m, m], lambda x, t: x[:, 0]).denoise(MEANS, 0.5), "must return shape"),
        (lambda m: guidance.feedback(m, lambda x, t, label: x, 0.5, label=LABEL).denoise(MEANS, 0.5),
         "one number per sample"),
        (lambda m: guidance.feedback(m, lambda x, t: x, 1.5, label=LABEL), "share must lie"),
        (lambda m: guidance.feedback(m, lambda x, t: x, 0.5, limit=0.5, label=LABEL), "limit must be"),
        (lambda m: guidance.feedback(m, lambda x, t: x, 0.5), "needs a condition"),
        (lambda m: guidance.optimised(m, total, math.nan), "rate must be a finite"),
        (lambda m: guidance.optimised(m, total, 0.1, iterations=0), "iterations must be at least 1"),
        (lambda m: guidance.joined([lambda x: x], [MEANS], []), "1, 1, 0"),
        (lambda m: guidance.joined([lambda x: x], [MEANS], [0.0]), "noises must be positive"),
        (lambda m: guidance.joined([lambda x: x] * 2, [MEANS, MEANS[:2]], [1.0, 1.0]), "one leading size"),
        (lambda m: guidance.classifier(m, other().log_prob, label=LABEL), "for the process EDM"),
        (lambda m: guidance.optimised(m, known, 0.1, y=MEANS).denoise(MEANS[:2], 0.5), "leading size 2"),
        (lambda m: guidance.universal(guidance.universal(m, total), total), "cannot be differentiated again"),
        (lambda m: guidance.replacement(m, lambda x: x[:, :1], MEANS).denoise(MEANS, 0.5), "y must have"),
        (lambda m: guidance.replacement(m, lambda x: x.detach(), MEANS).denoise(MEANS, 0.5), "has no gradient"),
        (lambda m: guidance.pseudoinverse(m, lambda x: 3, MEANS).denoise(MEANS, 0.5), "but has"),
        (lambda m: ss.classifier_free(m, 2.0, interval=("a", "b"), label=LABEL), "interval must be two"),
        (lambda m: ss.classifier_free(m, lambda s: MEANS, label=LABEL).denoise(MEANS, 0.5), "scale must return"),
        (lambda m: guidance.pseudoinverse(m, lambda x: x, MEANS).denoise(MEANS[:2], 0.5), "leading size 2 or 1"),
        (lambda m: m.given(label=LABEL.expand(3)).denoise(MEANS[:2], 0.5), "label must have leading size 2 or 1"),
        (lambda m: guidance.feedback(m, other().log_ratio, 0.8, label=LABEL), "for the process EDM"),
        (lambda m: guidance.within(m, m, (2.0, 1.0)), "interval must be two noise levels"),
        (lambda m: ss.classifier_free(m, 2.0, label=LABEL + 2), "label must lie in"),
        (lambda m: ss.classifier_free(m, 2.0, label=LABEL, negative={"label": LABEL + 8}), "must lie"),
        (lambda m: guidance.universal(m, lambda D: D.new_ones(3)).denoise(MEANS, 0.5),
         "has no gradient with respect to the data"),
        (lambda m: guidance.universal(m, lambda D: torch.ones(3, requires_grad=True)).denoise(MEANS, 0.5),
         "does not depend on the data"),
        (lambda m: guidance.universal(m, lambda D: D.detach().sum(1)).denoise(MEANS, 0.5), "leave out .detach"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_together_is_said(
    make: Callable[[ss.ScoreModel], object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make(mixture(ss.VP(), [0.5, 0.3, 0.2]))


def test_gradients_work_without_grad_and_are_refused_in_inference_mode() -> None:
    model = mixture(ss.VP(), [0.5, 0.3, 0.2])
    x, t = states(ss.VP())
    for guided in (
        guidance.universal(model, lambda D: D.square().sum(1)),
        guidance.classifier(model, lambda x, t: -x.square().sum(1)),
        guidance.pseudoinverse(model, lambda D: D[:, :1], torch.ones(1, 1)),
    ):
        with torch.enable_grad():
            want = guided.denoise(x, t)
        with torch.no_grad():
            assert torch.equal(guided.denoise(x, t), want)
        with torch.inference_mode(), pytest.raises(ValueError, match="use torch.no_grad"):
            guided.denoise(x, t)


def test_a_model_without_conditions_cannot_be_led_by_one() -> None:
    model = ss.GaussianOracle(torch.zeros(2), torch.eye(2), ss.VP())
    with pytest.raises(TypeError, match="takes the conditions: none"):
        ss.classifier_free(model, 2.0, label=LABEL)


def test_recurrent_steps_keep_the_law_and_count_each_time() -> None:
    model = ss.GaussianOracle(
        torch.tensor([1.0, -2.0]), torch.diag(torch.tensor([0.5, 0.1])), ss.VP()
    )
    s = ss.sample(model, 6000, solver="recurrent:repeats=3", steps=150)
    assert s.calls.unique().tolist() == [3 * 150 + 1]
    assert torch.allclose(s.x.mean(0), torch.tensor([1.0, -2.0]), atol=0.04)
    assert torch.allclose(s.x.std(0), torch.tensor([0.5, 0.1]).sqrt(), atol=0.04)
    once = ss.sample(model, 3, solver="recurrent:repeats=1", steps=4, noise="increments")
    alone = ss.sample(model, 1, solver="recurrent:repeats=1", steps=4, first_index=2)
    assert torch.allclose(alone.x[0], once.x[2])
    with pytest.raises(ValueError, match="repeats of recurrent must be at least 1"):
        ss.sample(model, 2, solver="recurrent:repeats=0")


def test_scalar_measurements_are_joined_and_moments_of_mixtures_are_not_claimed() -> None:
    model = ss.GaussianOracle(torch.zeros(2), torch.eye(2), ss.EDM())
    operator, y = guidance.joined(
        [lambda x: x.sum(1), lambda x: x], [torch.tensor([0.7]), torch.ones(1, 2)], [0.5, 1.0]
    )
    assert operator(torch.ones(4, 2)).shape == (4, 3)
    assert torch.allclose(y, torch.tensor([[1.4, 1.0, 1.0]]))
    far = [
        ss.GaussianOracle(torch.full((2,), m), 0.04 * torch.eye(2), ss.EDM()) for m in (-3.0, 3.0)
    ]
    mixed = guidance.mixture(far, lambda x, t: torch.stack([p.log_prob(x, t) for p in far], 1))
    with pytest.raises(ValueError, match="need the mean and covariance of the data"):
        ss.sample(mixed, (2, 2), solver="moment_2", steps=4)
    with pytest.raises(TypeError, match="negative must be a dictionary"):
        ss.classifier_free(mixture(ss.VP(), [0.5, 0.3, 0.2]), 2.0, label=LABEL, negative=LABEL)  # type: ignore[arg-type]
    assert model.guided is False


def test_inpainting_takes_guided_models_and_resamples_by_default() -> None:
    model = mixture(ss.VP(), [0.5, 0.3, 0.2])
    guided = guidance.classifier(model, lambda x, t: -x.square().sum(1))
    x, known = MEANS[:2], torch.tensor([True, False])
    for method in ("replacement", "resampling"):
        e = ss.inpaint(guided, x, known, method=method, steps=4)
        assert torch.allclose(e.x[:, 0], x[:, 0])
    assert ss.inpaint(
        model, x, known, method="resampling", solver=None, steps=4
    ).calls.tolist() == [21, 21]
    with pytest.raises(ValueError, match="has its own solver"):
        ss.inpaint(model, x, known, method="resampling", solver="ddim", steps=4)


def test_measurements_of_any_shape_serve_under_tolerances() -> None:
    model = ss.GaussianOracle(torch.zeros(3), torch.diag(torch.tensor([0.4, 0.3, 0.2])), ss.EDM())
    y = torch.tensor([[0.5]])
    flat = guidance.pseudoinverse(model, lambda x: x[:, :1], y, noise=0.1)
    nested = guidance.pseudoinverse(model, lambda x: x[:, :1, None], y[..., None], noise=0.1)
    lone = guidance.pseudoinverse(model, lambda x: x[:, 0], y[:, 0], noise=0.1)
    options = {"solver": "exponential", "rtol": 1e-3, "atol": 1e-3}
    want = ss.sample(flat, 3, **options).x
    for guided in (nested, lone):
        assert torch.allclose(ss.sample(guided, 3, **options).x, want, atol=1e-9)


def test_moment_matching_takes_no_derivatives_for_a_covariance_that_are_none() -> None:
    r"""A network whose Jacobian is negative at high noise: nothing is pulled there."""

    class Odd(ss.ScoreModel):
        process, slope = ss.EDM(), 0.1

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            return -self.slope * x

    x, y = torch.randn(4, 3), torch.randn(4, 3)
    model = Odd()
    guided = guidance.moment_matching(model, lambda x: x, y, noise=0.1)
    for slope in (0.1, 1e-6):  # the noise makes up for the latter, yet it is no covariance
        model.slope = slope
        assert torch.equal(guided.denoise(x, torch.tensor(30.0)), -slope * x)


def test_a_guidance_of_ones_own_is_a_combination() -> None:
    @dataclass(frozen=True)
    class Halved(guidance.Rule):
        roles = ("conditional", "unconditional")

        def __call__(self, denoised: Sequence[Tensor], noisy: guidance.Noisy) -> Tensor:
            D, other = denoised
            return D + 0.5 * (D - other)

    model = mixture(ss.VP(), [0.5, 0.3, 0.2])
    own = guidance.Guided((model.given(label=torch.tensor([0, 2])), model), Halved())
    usual = ss.classifier_free(model, 1.5, label=torch.tensor([0, 2]))
    for options in ({"steps": 4, "batch_size": 1}, {"rtol": 1e-4, "atol": 1e-4}):
        found, want = (ss.sample(m, 2, solver="exponential_2" if "steps" in options else "exponential", **options)
                       for m in (own, usual))  # fmt: skip
        assert torch.allclose(found.x, want.x, atol=1e-9)
    assert own.guided
    with pytest.raises(TypeError, match="label= is already bound"):
        ss.sample(own, 2, label=LABEL)


@pytest.mark.parametrize("solver", ["ddim", "exponential"])
def test_any_guidance_may_be_kept_within_an_interval(solver: str) -> None:
    model = mixture(ss.VP(), [0.5, 0.3, 0.2])
    usual = ss.classifier_free(model, 3.0, interval=(0.3, 2.0), label=LABEL)
    bound = model.given(label=LABEL)
    kept = guidance.within(ss.classifier_free(model, 3.0, label=LABEL), bound, (0.3, 2.0))
    options = {"steps": 9} if solver == "ddim" else {"rtol": 1e-4, "atol": 1e-4}
    want = ss.sample(usual, 5, solver=solver, **options)
    found = ss.sample(kept, 5, solver=solver, **options)
    assert torch.allclose(found.x, want.x, atol=1e-9)
    if solver == "ddim":
        assert torch.equal(found.calls, want.calls)
    assert list(kept.parts) == ["unconditional", "conditional"]
    x, t = states(ss.VP())
    weak = ss.classifier_free(
        model, 1.5, label=LABEL, negative={"label": LABEL - 1}
    )  # outside, guided too
    strong = guidance.within(ss.classifier_free(model, 3.0, label=LABEL), weak, (0.3, 2.0))
    assert list(strong.parts) == ["unconditional", "conditional"]
    assert list(strong.rows(torch.tensor([0])).parts) == ["unconditional", "conditional"]
    for wrong in (5.0, (1.0,), ("a", "b"), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="interval must be two noise levels"):
            guidance.within(weak, model, wrong)  # type: ignore[arg-type]
    low = guidance.within(ss.classifier_free(model, 3.0, label=LABEL), bound, (0.0, math.inf))
    assert torch.allclose(
        low.denoise(x, t), ss.classifier_free(model, 3.0, label=LABEL).denoise(x, t)
    )


def test_nothing_by_sample_is_held_where_samples_take_one_anothers_place() -> None:
    r"""What is held is said, and only that: a network's own `scale` is none."""

    from scoresde.editing.releases import Kept

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.scale * x

    model = ss.NetworkScore(Net(), ss.EDM(), "data", shape=(2,))
    assert len(ss.weighted_sample([model], [1.0], 4, steps=20).x) == 4
    with pytest.raises(ValueError, match="the same for all samples"):
        kept = guidance.Guided([model], Kept(torch.ones(4, 2), torch.zeros(4, 2)))
        ss.weighted_sample([kept], [1.0], 4)


class Plain(torch.nn.Module):
    r"""The noise in a noisy standard normal under the variance-preserving process."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return ss.VP().scales(t)[1][:, None] * x


class Logits(torch.nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x.repeat(1, 2)[:, :3] * t[:, None]


def test_guided_steps_bring_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Each `.cpu()` would wait for a GPU: there are as many in 4 steps as in 14."""

    seen, plain = [], Tensor.cpu

    def counted(self: Tensor, *arguments: object, **options: object) -> Tensor:
        seen.append(self)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Tensor, "cpu", counted)
    free = ss.NetworkScore(Plain(), ss.VP(), "noise", shape=(2,), conditions=["label"])
    noisy = ss.Classifier(Logits(), ss.VP(), data_std=1.0, levels=(0.1, 10.0), classes=3)
    bound = free.given(label=LABEL)
    for guided in (
        ss.classifier_free(free, 2.0, label=LABEL),
        guidance.classifier(free, noisy.log_prob, lambda s: 1 + 0 * s, label=LABEL),
        guidance.feedback(free, noisy.log_ratio, 0.8, label=LABEL),
        guidance.mixture([bound, free], lambda x, t: x),
        guidance.universal(bound, total),
        guidance.pseudoinverse(bound, lambda x: x[:, :1], MEANS[:1, :1]),
    ):
        counts = []
        ss.sample(guided, 3, solver="ddim", steps=4)  # with what is measured once per model
        for steps in (4, 14):
            seen.clear()
            ss.sample(guided, 3, solver="ddim", steps=steps)
            counts.append(len(seen))
        assert counts[0] == counts[1], guided
