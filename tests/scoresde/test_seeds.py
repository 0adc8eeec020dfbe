r"""What the noise of a run depends on: seed, sample, time, and for edits the row that is given."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.reverse.linear_part import Frame, constant_noise
from solvers.noise.brownian import key_of_rows, keys_of_steps

from ..families import family_first
from .cases import PROCESSES, mixture

ONE_STEP = [
    name
    for name in solvers.available()
    if solvers.get(name).stochastic and solvers.get(name).fixed and solvers.get(name).one_step
]


def in_parts(
    model: ss.ScoreModel, count: int, cuts: list[int], steps: int, **options: Any
) -> tuple[Tensor, Tensor]:
    r"""The state at the end of a run in one piece, and in parts of its grid."""

    options = {"denoise": False, **options}
    whole = ss.sample(model, count, steps=steps, **options)
    t, ends = whole.times, [*cuts, steps]
    x = ss.sample(model, count, times=t[: cuts[0] + 1], **options).x
    for a, b in zip(ends[:-1], ends[1:], strict=True):
        x = ss.decode(model, x, t_max=float(t[a]), times=t[a : b + 1], **options).x
    return whole.x, x


@pytest.mark.parametrize("noise", ["increments", "path"])
@pytest.mark.parametrize("solver", ONE_STEP)
def test_a_run_in_parts_has_the_bits_of_the_whole(solver: str, noise: str) -> None:
    process = "VP" if len(solver) % 2 else "Interpolant"
    whole, parts = in_parts(
        mixture(PROCESSES[process]), 20, [2, 3, 5], 9, solver=solver, noise=noise
    )
    assert torch.equal(whole, parts)


NOISY = [n for n in solvers.available() if solvers.get(n).stochastic and solvers.get(n).fixed]


@pytest.mark.parametrize("noise", ["increments", "path"])
@pytest.mark.parametrize("solver", family_first(NOISY))
def test_a_grid_and_its_copy_in_float32_have_the_same_noise(solver: str, noise: str) -> None:
    process = "EDM" if len(solver) % 2 else "VP"
    model = mixture(PROCESSES[process])
    t = ss.sample(model, 1, solver=solver, steps=20, grid="log_snr").times
    many = t if "torchsde" in solver or solver == "sra1" else t[:, None].expand(-1, 3)
    options: dict[str, Any] = {"solver": solver, "noise": noise, "dtype": torch.float64}
    exact = ss.sample(model, 3, times=t, **options).x
    near = 1e-5 if noise == "increments" else 1e-2  # a path moves by the root of what times do
    for copy in (t.float(), many.float()):
        x = ss.sample(model, 3, times=copy, **options).x
        assert torch.allclose(x, exact, rtol=10 * near, atol=near)


def test_times_that_float32_does_not_tell_apart_have_noise_of_their_own() -> None:
    t = torch.linspace(0.5, 0.5 - 1e-6, 101, dtype=torch.float64)
    assert len(t.float().unique()) < 50
    keys = keys_of_steps(t)
    assert len(keys.unique()) == 100
    assert torch.equal(keys_of_steps(t[40:61]), keys[40:60])
    apart = torch.linspace(1, 0, 50, dtype=torch.float64)
    assert torch.equal(keys_of_steps(apart), keys_of_steps(apart.float()))
    each = torch.stack([t, apart.flip(0).repeat(3)[:101]], 1)
    assert torch.equal(keys_of_steps(each)[:, 0], keys)


@pytest.mark.parametrize("process", ["VP-cosine", "SubVP", "VE", "EDM", "Linear"])
@pytest.mark.parametrize("options", [{"solver": "ancestral"}, {"solver": "sra1"},
                                     {"solver": "em", "clock": "log_snr"},
                                     {"solver": "ddim", "eta": 0.7},
                                     {"solver": "ancestral", "dtype": torch.float32}], ids=str)  # fmt: skip
def test_parts_equal_the_whole_on_every_process(process: str, options: dict[str, Any]) -> None:
    whole, parts = in_parts(mixture(PROCESSES[process]), 40, [2, 5], 8, **options)
    if process == "Linear":  # whose own quadrature sums in another order
        assert torch.allclose(whole, parts, atol=1e-12)
    else:
        assert torch.equal(whole, parts)


@pytest.mark.parametrize("process", ["VP", "VP-cosine", "SubVP", "VE", "EDM", "Interpolant"])
def test_what_depends_on_time_rounds_alike_in_part_of_a_grid(process: str) -> None:
    here = PROCESSES[process]
    t = torch.linspace(here.t_min, here.t_max, 2000)
    log_snr, frame = here.log_snr(t), Frame(here, torch.tensor([0.1]), constant_noise(1.0))
    functions: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (here.log_snr, (t,)),
        (here.diffusion, (t,)),
        (lambda t: torch.stack([*here.scales(t), *here.rates(t)], -1), (t,)),
        (here.time, (log_snr,)),
        (frame.decay, (log_snr[:-1], log_snr[1:])),
        (frame.noise_std, (log_snr[:-1], log_snr[1:])),
    ]
    for function, times in functions:
        parts = zip(*(time.split(5) for time in times), strict=True)
        assert torch.equal(torch.cat([function(*part) for part in parts]), function(*times))


def test_samples_with_their_own_times_go_on_as_well() -> None:
    model = mixture(ss.EDM())
    t = torch.stack([ss.sample(model, 1, steps=8, grid=g).times for g in ("rho", "log_snr")], 1)
    t = t[:, [0, 1, 0]]
    options: dict[str, Any] = {"solver": "ancestral", "denoise": False}
    whole = ss.sample(model, 3, times=t, **options).x
    x = ss.sample(model, 3, times=t[:4], **options).x
    x = ss.decode(model, x, times=t[3:], **options).x
    assert torch.equal(whole, x)
    alone = ss.sample(model, 1, times=t[:, 1], first_index=1, **options).x
    assert torch.allclose(alone[0], whole[1], atol=1e-12)


def test_steps_of_one_run_have_noise_of_their_own() -> None:
    times = torch.linspace(1.0, 0.0, 12)
    for kind in (solvers.Increments, solvers.Path):
        noise = kind(0, torch.arange(3000), torch.zeros(3000, 1)).on(times)
        draws = [noise.fresh(step, k)[:, 0] for step in range(11) for k in range(3)]
        if kind is solvers.Increments:
            ends = zip(times[:-1], times[1:], strict=True)
            for step, (t0, t1) in enumerate(ends):
                w, u = noise.increment_and_integral(step, t0, t1)
                draws += [w[:, 0], u[:, 0] - (t1 - t0) * w[:, 0] / 2]
        correlation = torch.stack(draws).corrcoef() - torch.eye(len(draws))
        assert correlation.abs().max() < 5 / math.sqrt(3000)


def test_a_run_in_parts_has_the_right_law() -> None:
    model = ss.GaussianOracle(torch.zeros(1), 1.0, process=ss.VP())
    parts = in_parts(model, 5000, [10, 20, 30], 40, solver="sra1")[1]
    assert parts.std() == pytest.approx(1.0, abs=0.04)


def test_a_key_of_a_row_is_of_its_values() -> None:
    x = torch.randn(5, 3, 2)
    keys = key_of_rows(x)
    assert torch.equal(keys[3:4], key_of_rows(x[3:4]))
    assert torch.equal(key_of_rows(x.float()), key_of_rows(x.float().double()))
    assert torch.equal(key_of_rows(torch.zeros(1, 2)), key_of_rows(-torch.zeros(1, 2)))
    assert len(keys.unique()) == 5
    assert not torch.equal(keys, key_of_rows(x.flip(2)))  # order counts


KNOWN = torch.tensor([True, False])
EDITS: dict[str, dict[str, Any]] = {
    "noise": {"method": "noise", "steps": 10},
    "noise by a noisy solver": {"method": "noise", "solver": "torchsde/srk", "steps": 12},
    "noise on a path": {"method": "noise", "solver": "ancestral", "steps": 12, "noise": "path"},
    "resampling": {"method": "inpaint", "known": KNOWN, "way": "resampling", "steps": 4},
}


@pytest.mark.parametrize("process", ["VP", "EDM"])
@pytest.mark.parametrize("name", EDITS)
def test_edits_of_edits_have_the_right_law(name: str, process: str) -> None:
    r"""Noise is independent of the data at first: the law of that round is that of the others."""

    model = ss.GaussianOracle(torch.zeros(2), 1.0, process=PROCESSES[process])
    x, stds = model.data(2000), []
    for _ in range(3):
        x = ss.edit(model, model, x, noise_level=1.5, **EDITS[name]).x
        stds.append(float(x[:, 1].std()))
    right = 1.0 if name == "noise" else stds[0]
    assert stds == pytest.approx([right] * 3, abs=0.07)


@pytest.mark.parametrize(
    "change",
    [
        lambda m, x, **o: ss.edit(m, m, x, noise_level=1.0, method="noise", **o).x,
        lambda m, x, **o: (
            ss.edit(m, m, x, noise_level=1.0, method="noise", solver="ancestral", steps=5, **o).x
        ),
        lambda m, x, **o: ss.inpaint(m, x, KNOWN, steps=5, **o).x,
        lambda m, x, **o: ss.encode_noise(m, x, steps=5, **o).latent,
    ],
)
def test_the_edit_of_a_row_is_its_own(change: Callable[..., Tensor]) -> None:
    model = mixture(ss.VP())
    x = model.data(4)
    e = change(model, x)
    assert torch.equal(change(model, x, seed=0), e)
    assert torch.allclose(change(model, x[2:3], first_index=2), e[2:3], atol=1e-10)
    same = change(model, x[:1].expand(3, -1))
    assert len(same[:, 1].unique()) == 3  # variations of one row differ
    assert (change(model, x, seed=1)[:, 1] != e[:, 1]).all()
    of_seeds = change(model, x, seeds=[5, 6, 5, 6])
    assert torch.allclose(change(model, x[1:2], seeds=[6]), of_seeds[1:2], atol=1e-10)


def test_edits_tell_the_seed_that_was_said() -> None:
    model = mixture(ss.VP())
    x = model.data(2)
    e = ss.edit(model, model, x, noise_level=1.0, method="noise", seed=3, first_index=4)
    assert [e.provenance[name] for name in ("seed", "first_index", "seeds")] == [3, 4, None]
    i = ss.inpaint(model, x, KNOWN, steps=3, seeds=[7, 8])
    assert i.provenance["seeds"] == [7, 8]


def heard(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(w.filename == __file__ for w in caught)  # they point at the user's line
    return [str(w.message) for w in caught]


def copies(**options: Any) -> Callable[[], object]:
    label = torch.tensor([0, 1])
    return lambda: ss.sample(ORACLE, 2, steps=2, label=label, **options)


ORACLE = mixture(ss.VP())


def test_equal_calls_of_sample_are_told() -> None:
    assert heard(copies()) == []
    [words] = heard(copies())
    assert "equals an earlier one" in words
    assert "first_index=" in words
    for options in ({"seed": 0}, {"seed": None}, {"first_index": 2}, {"seeds": [0, 0]}):
        assert heard(copies(**options)) == []
    assert heard(copies(callback=lambda event: None)) != []  # it changes no sample
    assert heard(lambda: ss.sample(ORACLE, 2, steps=3, label=torch.tensor([0, 1]))) == []
    assert heard(lambda: ss.sample(ORACLE, 2, steps=2, label=torch.tensor([0, 2]))) == []


def test_equal_models_draw_equal_samples_and_trained_ones_others() -> None:
    def guided(scale: float, process: ss.Process | None = None) -> Callable[[], object]:
        oracle = mixture(process or ss.VP())
        label = torch.tensor([1])
        return lambda: ss.sample(ss.classifier_free(oracle, scale, label=label), 2, steps=2)

    assert heard(guided(2.0)) == []
    assert heard(guided(3.0)) == []
    assert heard(guided(2.0, ss.EDM())) == []
    assert heard(guided(2.0)) != []
    network = torch.nn.Linear(2, 2)
    model = ss.NetworkScore(lambda x, t: network(x), ss.VP(), predicts="noise", shape=(2,))
    trained = ss.NetworkScore(Net(network), ss.VP(), predicts="noise", shape=(2,))
    for one in (model, trained):
        assert heard(lambda one=one: ss.sample(one, 2, steps=2)) == []  # type: ignore[misc]
        assert heard(lambda one=one: ss.sample(one, 2, steps=2)) != []  # type: ignore[misc]
    with torch.no_grad():
        network.weight.add_(0.1)
    assert heard(lambda: ss.sample(trained, 2, steps=2)) == []


class Net(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("noise", ["increments", "path"])
def test_a_second_pass_over_the_same_times_is_told(noise: str) -> None:
    t = ss.sample(ORACLE, 3, steps=8, seed=0).times
    options: dict[str, Any] = {"solver": "sra1", "denoise": False, "noise": noise}

    def go(x: Tensor, a: int, b: int = 8, **more: Any) -> Tensor:
        o = {**options, **more}
        return ss.decode(ORACLE, x, t_max=float(t[a]), times=t[a : b + 1], **o).x

    assert heard(lambda: in_parts(ORACLE, 3, [3, 5], 8, **options)) == []
    y = torch.randn(3, 2)
    assert "used the same noise" in heard(lambda: go(y, 5))[0]
    assert heard(lambda: go(y, 5, solver="em")) == []  # a comparison from one start
    assert "equals an earlier one" in heard(lambda: go(y, 5))[0]
    assert heard(lambda: go(y + 1, 5, seed=0)) == []
    assert heard(lambda: go(y + 2, 5, seed=1)) == []
    assert heard(lambda: go(y + 3, 5, first_index=3)) == []
    assert heard(lambda: go(y + 3, 5, solver="heun", noise=None)) == []
    whole = ss.sample(ORACLE, 3, steps=8, path=True, **options)
    assert whole.path is not None
    state = whole.path[4]
    assert heard(lambda: go(state, 4)) == []  # it goes on from there


def test_equal_inpaintings_are_told() -> None:
    x = torch.randn(2, 2)
    for call in (
        lambda **o: ss.inpaint(ORACLE, x, KNOWN, steps=2, **o),
        lambda **o: ss.edit(
            ORACLE, ORACLE, x, noise_level=1.0, method="noise", solver="em", steps=2, **o
        ),
    ):
        assert heard(call) == []
        assert "equals an earlier one" in heard(call)[0]
        assert heard(lambda call=call: call(seed=0)) == []  # type: ignore[misc]
    still = {"noise_level": 1.0, "method": "encode", "steps": 2}
    for _ in range(2):
        assert heard(lambda: ss.edit(ORACLE, ORACLE, x, **still)) == []
