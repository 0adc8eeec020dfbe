r"""A check of a score names planted mistakes, with the line that mends them, and accuses no right model."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde.training.digits_data import digits

POINTS, WIDTH = digits("train").images[:8], 0.15
LINEAR = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
SCALED = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
TABLE = ss.VP(ss.Tabulated.from_betas(LINEAR))
Network = Callable[[Tensor, Tensor], Tensor]
FORMS: dict[str, Callable[..., Tensor]] = {
    "data": lambda x, D, z, a, s, f, l: D,
    "noise": lambda x, D, z, a, s, f, l: z,
    "score": lambda x, D, z, a, s, f, l: -z / s,
    "v": lambda x, D, z, a, s, f, l: a * z - s * D,
    "velocity": lambda x, D, z, a, s, f, l: f * x - l * s * z,
}


def held_out() -> Tensor:
    r"""Data of the kernel, as no network has seen it."""

    noise = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return POINTS.repeat(6, 1, 1, 1) + WIDTH * noise


def denoised(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    r"""The conditional mean of points under a Gaussian kernel."""

    variance = alpha**2 * WIDTH**2 + sigma**2
    flat, points = x.flatten(1), POINTS.flatten(1).to(x)
    away = flat[:, None] - alpha.flatten()[:, None, None] * points
    share = (-away.square().sum(2) / 2 / variance.flatten()[:, None]).softmax(1)
    mean = (share @ points).reshape(x.shape)
    return mean + alpha * WIDTH**2 / variance * (x - alpha * mean)


def network(
    process: ss.Process, predicts: str, time: Callable[[Tensor], Tensor] = lambda t: t
) -> Network:
    r"""The network of a process, with a time of its label."""

    def call(x: Tensor, label: Tensor) -> Tensor:
        t = time(label.double()).clamp(process.t_min, process.t_max)
        numbers = (*process.scales(t), *process.rates(t))
        a, s, f, l = (number.to(x).reshape(-1, 1, 1, 1) for number in numbers)
        D = denoised(x, a, s)
        return FORMS[predicts](x, D, (x - a * D) / s, a, s, f, l)

    return call


def minus(network: Network) -> Network:
    return lambda x, t: -network(x, t)


VP, FLOW, EDM = ss.VP(), ss.Interpolant(), ss.EDM()
NOISE, VELOCITY = network(VP, "noise"), network(FLOW, "velocity")
AGAINST = network(FLOW, "velocity", lambda t: 1 - t)  # of the other direction of time
MODELS = {
    "noise": ss.NetworkScore(NOISE, VP, "noise"),
    "noise of 999 t": ss.from_callable(network(VP, "noise", lambda t: t / 999), VP, "noise", label=999),
    "noise of a table": ss.NetworkScore(network(TABLE, "noise"), TABLE, "noise"),
    "score": ss.NetworkScore(network(VP, "score"), VP, "score"),
    "v": ss.NetworkScore(network(VP, "v"), VP, "v"),
    "data": ss.NetworkScore(network(EDM, "data"), EDM, "data"),
    "flow": ss.NetworkScore(VELOCITY, FLOW, "velocity"),
    "flow to data": ss.from_callable(minus(AGAINST), FLOW, "velocity", label=ss.Label("t", -1, 1), factor=-1),
    "an exact kernel": ss.KernelOracle(POINTS, WIDTH),
}  # fmt: skip
# the model, and what is said of it
PLANTS: dict[str, tuple[ss.ScoreModel, tuple[str, ...]]] = {
    "sign": (ss.NetworkScore(minus(NOISE), VP, "noise"), ("its sign is flipped", "factor=-1")),
    "data declared": (ss.NetworkScore(NOISE, VP, "data"), ("it predicts 'noise', not 'data'",)),
    "v declared": (ss.NetworkScore(NOISE, VP, "v"), ("it predicts 'noise', not 'v'",)),
    "score declared": (ss.NetworkScore(NOISE, VP, "score"), ("it predicts 'noise', not 'score'",)),
    "velocity declared": (
        ss.NetworkScore(NOISE, VP, "velocity"), ("it predicts 'noise', not 'velocity'",)),
    "noise declared": (
        ss.NetworkScore(network(VP, "v"), VP, "noise"), ("it predicts 'v', not 'noise'",)),
    "999 forgotten": (
        ss.NetworkScore(network(VP, "noise", lambda t: t / 999), VP, "noise"),
        ("its time label is '999 t', not t", "ss.VP(), 'noise', label=999)")),
    "1000 too much": (
        ss.from_callable(NOISE, VP, "noise", label=1000), ("its time label is t, not '1000 t'",)),
    "time reversed": (
        ss.NetworkScore(network(VP, "noise", lambda t: 1 - t), VP, "noise"),
        ("its time label is '1 - t', not t", "label=ss.Label('t', -1, 1)")),
    "cosine for linear": (
        ss.from_callable(network(VP, "noise", lambda t: t / 1000), ss.VP(ss.Cosine()), "noise", label=1000),
        ("its noise is that of ss.VP(), not of ss.VP(ss.Cosine())",)),
    "scaled linear for linear": (
        ss.NetworkScore(network(TABLE, "noise"), ss.VP(ss.Tabulated.from_betas(SCALED)), "noise"),
        ("ss.Tabulated.from_betas(torch.linspace(1e-4, 0.02, 1000))",)),
    "VE for VP": (
        ss.NetworkScore(NOISE, ss.VE(ss.LinearBeta()), "noise"),
        ("its noise is that of ss.VP(), not of ss.VE(ss.LinearBeta())",)),
    "log of the noise level": (
        ss.NetworkScore(network(EDM, "data", torch.exp), EDM, "data"),
        ("its time label is 'log noise level', not t",)),
    "flow, sign": (ss.NetworkScore(minus(VELOCITY), FLOW, "velocity"), ("its sign is flipped",)),
    "flow, time": (ss.NetworkScore(AGAINST, FLOW, "velocity"), ("its time label is '1 - t', not t",)),
    "flow, both": (
        ss.NetworkScore(minus(AGAINST), FLOW, "velocity"), ("'1 - t', not t and its sign is flipped",)),
    "flow, noise declared": (
        ss.NetworkScore(VELOCITY, FLOW, "noise"), ("it predicts 'velocity', not 'noise'",)),
    "flow, v declared": (ss.NetworkScore(VELOCITY, FLOW, "v"), ("it predicts 'velocity', not 'v'",)),
    "flow, 1000 forgotten": (
        ss.NetworkScore(network(FLOW, "velocity", lambda t: t / 1000), FLOW, "velocity"),
        ("label is '999 t'",)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_right_models_are_not_accused(name: str) -> None:
    check = ss.check_score(MODELS[name], held_out())
    assert check.ok, check.findings
    assert all(level.error < 1.02 for level in check.levels)
    for level in check.levels[1:4]:
        assert abs(level.slope.value - 1) < 0.05
        assert abs(level.tweedie.value - 1) < 3 * level.tweedie.stderr + 0.1


OFTEN = (
    "sign",
    "v declared",
    "999 forgotten",
    "cosine for linear",
    "flow, both",
    "flow, noise declared",
)


@pytest.mark.parametrize(
    "name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in PLANTS]
)
def test_mistakes_are_named_with_the_line_that_mends_them(name: str) -> None:
    model, words = PLANTS[name]
    [finding] = ss.check_score(model, held_out()).findings
    assert all(word in finding for word in words), finding
    [line] = re.findall(r"ss\.from_callable\(.*\)(?=\.)", finding)
    own = model.network.network if hasattr(model.network, "network") else model.network
    mended = eval(line, {"ss": ss, "torch": torch, "network": own, "model": model})
    assert ss.check_score(mended, held_out()).ok


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (lambda x: (x + 1) / 2, "it knows the data as 2 * data - 1"),
        (lambda x: 127.5 * (x + 1), "it knows the data as data / 127.5 - 1"),
    ],
)
def test_the_range_of_data_is_named(moved: Callable[[Tensor], Tensor], words: str) -> None:
    [finding] = ss.check_score(MODELS["noise"], moved(held_out())).findings
    assert words in finding
    assert "from_callable" not in finding


def test_a_foreign_network_is_called_as_before() -> None:
    def call(t: Tensor, x: Tensor) -> dict[str, Tensor]:
        return {"out": -2 * NOISE(x, t)}

    model = ss.from_callable(call, VP, "noise", order="t, x", entry="out", factor=0.5)
    [finding] = ss.check_score(model, held_out()).findings
    assert "order='t, x', entry='out', factor=-0.5)" in finding


def test_nothing_fits_a_network_of_other_data() -> None:
    [finding] = ss.check_score(MODELS["noise"], held_out().transpose(2, 3)).findings
    assert finding.startswith("No meaning fits")
    [finding] = ss.check_score(ss.KernelOracle(POINTS, WIDTH), held_out().flip(3)).findings
    assert "times as wrong as the best linear denoiser" in finding


def test_the_embedded_model_is_right_and_its_labels_are_not_off_by_one() -> None:
    model, data = ss.load("digits"), digits("test")
    x, label = data.images[:32], data.labels[:32]
    off = model.given(label=(label + 1) % 10)
    check = ss.check_score(model.given(label=label), x, against=off)
    assert check.ok, check.findings
    for level in check.levels[2:]:
        assert level.other is not None
        assert level.other > 1.2 * level.error


def test_the_constant_of_edm_is_held_against_the_data() -> None:
    def inner(data_std: float) -> Network:  # F of the preconditioning
        def call(x: Tensor, label: Tensor) -> Tensor:
            sigma = torch.exp(4 * label).reshape(-1, 1, 1, 1)
            total = (sigma**2 + data_std**2).sqrt()
            D = denoised(total * x, torch.ones_like(sigma), sigma)
            return (D - data_std**2 / total * x) * total / (data_std * sigma)

        return call

    right = ss.NetworkScore(inner(2.0), EDM, "edm", data_std=2.0)
    [finding] = ss.check_score(right, held_out()).findings
    assert finding.startswith("data_std=2 is the constant of the preconditioning")
    size = round(float(held_out().square().mean().sqrt()), 3)
    wrong = ss.NetworkScore(inner(size), EDM, "edm", data_std=1.3)
    finding = ss.check_score(wrong, held_out()).findings[0]
    assert f"its data_std is {size:g}, not 1.3" in finding


def test_randomness_and_coupling_are_named() -> None:
    class Coupled(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return NOISE(x, t) + 0.1 * x.mean(0)

    class Random(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return NOISE(x, t) + 0.1 * torch.randn_like(x)

    for network_, words in ((Coupled(), "alone and one with others"), (Random(), "two calls")):
        model = ss.NetworkScore(network_, VP, "noise", shape=(1, 8, 8))
        [finding] = ss.check_score(model, held_out()).findings
        assert words in finding.lower()


def test_overflow_is_named_with_its_dtype() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((), 3e4, dtype=torch.float16))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.weight * x / self.weight

    [finding] = ss.check_score(ss.NetworkScore(Half(), EDM, "noise"), held_out()).findings
    assert "NaN or infinite values at noise level" in finding
    assert "it computes in float16" in finding


@pytest.mark.parametrize("width", [0.1, 0.3])
def test_a_one_step_network_is_named_unless_it_says_so(width: float) -> None:
    means = torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]])
    oracle = ss.QuantileOracle(means, torch.full((2, 3), width))

    def jump(x: Tensor, t: Tensor) -> Tensor:  # to the end of the probability flow
        found = torch.empty_like(x)
        for level in t.unique():
            here = t == level
            found[here] = oracle.flow(x[here].double(), float(level), 0.002).to(x)
        return found

    model, data = ss.NetworkScore(jump, EDM, "data"), oracle.data(160, seed=3)
    [finding] = ss.check_score(model, data).findings
    assert "one-step (consistency, distilled) networks are no scores" in finding
    assert ss.check_score(model, data, one_step=True).ok
    model.one_step = True
    assert ss.check_score(model, data).ok
    assert ss.check_score(oracle, data).ok


def test_cut_derivatives_are_named_by_the_second_order() -> None:
    def cut(x: Tensor, t: Tensor) -> Tensor:
        return (2 * NOISE(x, t)).detach() - NOISE(x, t)

    [finding] = ss.check_score(ss.NetworkScore(cut, VP, "noise"), held_out()).findings
    assert "Tweedie's formula of second order" in finding


def test_raw_weights_are_held_against_their_average() -> None:
    def rough(x: Tensor, t: Tensor) -> Tensor:
        return NOISE(x, t) + 0.05 * torch.sin(40 * x)

    raw, average = ss.NetworkScore(rough, VP, "noise"), MODELS["noise"]
    [finding] = ss.check_score(raw, held_out(), against=average).findings
    assert "The model passed as against= has" in finding
    assert ss.check_score(average, held_out(), against=raw).ok
    moved = ss.check_score(average, held_out(), against=MODELS["flow"])
    for level in moved.levels:  # the same score under another process
        assert level.other == pytest.approx(level.error, rel=1e-3)


def test_guided_models_are_looked_at_and_not_accused() -> None:
    guided = ss.guidance.thresholded(ss.KernelOracle(POINTS, WIDTH), 0.2)
    check = ss.check_score(guided, held_out())
    assert check.ok
    assert not check.meanings
    assert check.levels[1].error > 2


def test_a_check_does_not_depend_on_batches_and_is_counted_nowhere_twice() -> None:
    model, data = MODELS["noise"], held_out().double()
    whole, parts = (ss.check_score(model, data, batch_size=size) for size in (None, 7))
    for a, b in zip(whole.levels, parts.levels, strict=True):
        assert a.error == pytest.approx(b.error, rel=1e-9)
    other = ss.check_score(model, data, seed=1)
    assert other.levels[2].error != whole.levels[2].error


def test_the_network_stays_in_its_mode() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.drop(NOISE(x, t))

    model = ss.NetworkScore(Dropping().eval(), VP, "noise")
    modes = [module.training for module in model.modules()]
    assert ss.check_score(model, held_out()).ok
    assert [module.training for module in model.modules()] == modes
    with pytest.warns(UserWarning, match="training mode"):
        [finding] = ss.check_score(model.train(), held_out()).findings
    assert "call .eval() on the network" in finding


def test_the_result_is_a_table_with_sentences(tmp_path: Path) -> None:
    check = ss.check_score(PLANTS["sign"][0], held_out(), against=MODELS["noise"])
    text = str(check)
    assert len(text.splitlines()) == 2 + len(check.levels) + len(check.findings)
    assert check.findings[0] in text
    assert check.table().row_count == len(check.levels)
    assert "against" in check.entries[0]
    assert check.plot(tmp_path / "check.png").stat().st_size > 1000
    assert "findings" in repr(check)


def test_what_cannot_be_checked_is_refused() -> None:
    model = MODELS["noise"]
    with pytest.raises(ValueError, match="at least 8 samples, but has 4"):
        ss.check_score(model, held_out()[:4])
    with pytest.raises(ValueError, match="all samples are the same"):
        ss.check_score(model, torch.ones(8, 1, 8, 8))
    with pytest.raises(TypeError, match="lable= is neither an option nor a condition"):
        ss.check_score(model, held_out(), lable=1)


# ---- what other verbs look at


class Coupled(nn.Module):
    r"""A network that takes a mean over the batch."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.calls = share, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return x / (1 + t[:, None] ** 2) + self.share * x.mean(0)


def verbs() -> dict[str, Callable[[ss.ScoreModel], object]]:
    few = {"samples": 4, "progress": False}
    return {
        "compare": lambda model: ss.compare(model, ["ddim"], [3], reference_tolerance=0.1, **few),
        "tune": lambda model: ss.tune(
            model, 3, solvers=["ddim"], grids=["rho"], held_out=4, reference_tolerance=0.1, **few
        ),
        "log_likelihood": lambda model: ss.log_likelihood(
            model, torch.ones(4, 2), solver="heun", steps=3, nodes=8
        ),
    }


@pytest.mark.parametrize("name", verbs())
def test_verbs_that_measure_warn_once_of_coupled_rows(name: str) -> None:
    def model(share: float) -> ss.NetworkScore:
        return ss.NetworkScore(Coupled(share), ss.EDM(), "data", shape=(2,), data_scale=1.0)

    coupled, apart, act = model(0.1), model(0.0), verbs()[name]
    with pytest.warns(UserWarning, match="differs by .* alone and one with others") as found:
        act(coupled)
    assert len([one for one in found if "alone" in str(one.message)]) == 1
    with warnings.catch_warnings(record=True) as found:
        act(apart)
        first = apart.network.calls
        act(apart)
    assert not any("call of this row" in str(one.message) for one in found)
    assert apart.network.calls - first < first  # it is looked at once


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP()], ids=["EDM", "VP"])
def test_the_figures_of_a_gaussian_are_known(process: ss.Process) -> None:
    std = 0.7
    oracle = ss.GaussianOracle(torch.zeros(6, dtype=torch.float64), std, process=process)
    check = ss.check_score(oracle, oracle.data(4000))
    assert check.ok
    for level in check.levels:
        s = (
            level.noise_level
        )  # D = x / alpha * std^2 / (std^2 + s^2), which is the best linear denoiser
        share = s**2 / (std**2 + s**2)
        assert level.error == pytest.approx(1, rel=0.05)
        assert level.noise_slope == pytest.approx(share, rel=0.1)
        assert level.spread == pytest.approx(1 - share, rel=0.1)
        assert level.slope.value == pytest.approx(1, abs=5 * level.slope.stderr)
        if level.tweedie.value == level.tweedie.value:  # it is taken where it is judged
            assert level.tweedie.value == pytest.approx(1, rel=0.1)
