r"""Numbers of any library are taken wherever numbers are, and what is too large for anyone is refused."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde import editing, geometry, guidance, metrics
from scoresde.models.conditions import RESERVED
from scoresde.runs.options import OPTIONS

G = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), 0.5)
TABLE = ss.MixtureOracle(torch.randn(3, 2), 0.3)
X = torch.randn(4, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "number", "others"),
    [
        ("steps", 3, {}),
        ("seed", 5, {}),
        ("first_index", 7, {}),
        ("batch_size", 2, {}),
        ("max_calls", 40, {}),
        ("rtol", 0.0625, {}),
        ("atol", 0.0625, {}),
        ("t_min", 0.125, {}),
        ("eta", 0.5, {"solver": "ancestral"}),
    ],
)
def test_options_are_numbers_of_any_library(
    name: str, number: float, others: dict[str, Any]
) -> None:
    kinds: list[Any] = (
        [np.int64, np.int16, np.uint8] if isinstance(number, int) else [np.float32, np.float16]
    )
    want = ss.sample(G, 3, **{name: number}, **others)
    for given in (*(kind(number) for kind in kinds), np.array(number), torch.tensor(number)):
        found = ss.sample(G, 3, **{name: given}, **others)
        assert torch.equal(found.x, want.x)
        assert found.provenance == want.provenance
        assert all(type(v).__module__ == "builtins" for v in found.provenance.values())


def test_counts_and_shapes_are_numbers_of_any_library() -> None:
    want = ss.sample(G, 3, steps=2).x
    for shape in (
        np.int64(3),
        torch.tensor(3),
        (np.int32(3), 2),
        [3, np.int64(2)],
        np.array([3, 2]),
        want.shape,
    ):
        assert torch.equal(ss.sample(G, shape, steps=2).x, want)
    want = ss.sample(G, 2, steps=2, seeds=[4, 9]).x
    for seeds in (np.array([4, 9]), (np.int64(4), 9), torch.tensor([4, 9]), range(4, 14, 5)):
        assert torch.equal(ss.sample(G, 2, steps=2, seeds=seeds).x, want)


def test_guidance_and_likelihoods_take_numbers_of_any_library() -> None:
    x = ss.sample(ss.classifier_free(TABLE, 2.0, label=1), 3, steps=2).x
    for scale, label in (
        (np.float32(2), np.int64(1)),
        (np.array([2.0]), [1]),
        ([2.0, 2, 2], np.array([1, 1, 1])),
    ):
        assert torch.allclose(
            ss.sample(ss.classifier_free(TABLE, scale, label=label), 3, steps=2).x, x
        )
    nats = ss.elbo(G, X, draws=2, nodes=2).nats
    assert torch.equal(ss.elbo(G, X, draws=np.int64(2), nodes=np.uint8(2)).nats, nats)
    assert ss.interpolate(X, X + 1, np.int64(3)).shape == (3, 4, 2)
    e = ss.edit(G, G, X, noise_level=1.0, steps=4)
    assert torch.equal(ss.edit(G, G, X, noise_level=np.float32(1), steps=4).x, e.x)


def test_data_may_be_arrays_and_lists() -> None:
    a = X.numpy()
    want = ss.encode(G, X, steps=3).x
    for x in (a, a[::-1].copy()[::-1], a.astype(">f8"), X.tolist(), list(X)):
        assert torch.allclose(ss.encode(G, x, steps=3).x.double(), want, atol=1e-4)
    frozen = a.copy()
    frozen.flags.writeable = False
    assert torch.equal(ss.encode(G, frozen, steps=3).x, ss.encode(G, X, steps=3).x)
    assert torch.equal(ss.decode(G, a, steps=3).x, ss.decode(G, X, steps=3).x)
    assert torch.equal(ss.moments(a).variances, ss.moments(X).variances)
    oracle = ss.GaussianOracle(np.zeros(2), np.float32(0.5))
    assert torch.equal(oracle.denoise(X, torch.ones(4)), G.denoise(X, torch.ones(4)))
    levels = ss.quantize(np.array([[-0.9, 0.1]]), levels=3)
    assert levels.tolist() == [[-1.0, 0.0]]
    assert ss.dequantize(np.array([[-1.0, 1.0]]), levels=3).shape == (1, 2)
    log_p = ss.classify(TABLE, X, [0, 1], prior=[0.5, 0.5], by="elbo", draws=1)
    assert torch.allclose(ss.classify(TABLE, a, np.arange(2), by="elbo", draws=1), log_p)


def test_times_of_a_list_keep_their_digits() -> None:
    times = [80.0, 1.1, 0.0021]
    s = ss.sample(G, 2, times=times)
    assert s.times.tolist() == times  # and not what float32 makes of them


@pytest.mark.parametrize("weights", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.float16])
def test_conditions_reach_a_network_in_its_own_dtype(
    weights: torch.dtype, given: torch.dtype
) -> None:
    seen = []

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones((), dtype=weights))

        def forward(self, x: Tensor, t: Tensor, size: Tensor, label: Tensor) -> Tensor:
            seen.append((size.dtype, label.dtype))
            return self.w * x * size[:, None]

    model = ss.NetworkScore(Network(), ss.EDM(), "data", conditions=["size", "label"], shape=(2,))
    ss.sample(model, 2, steps=1, size=torch.full((2,), 0.5, dtype=given), label=[1, 2])
    ss.elbo(model, X, size=torch.tensor(0.5, dtype=given), label=1)
    assert set(seen) == {(weights, torch.int64)}


TOO_LARGE: dict[str, tuple[Callable[[], object], str]] = {
    "seed": (lambda: ss.sample(G, 1, seed=2**63), "seed must fit into 64 bits"),
    "seeds": (lambda: ss.sample(G, 2, seeds=[1, 2**70]), "each of seeds must fit into 64 bits"),
    "first_index": (lambda: ss.sample(G, 1, first_index=2**63), "first_index must fit into 64 bits"),
    "the last index": (lambda: ss.sample(G, 2, first_index=2**63 - 1), "first_index must be at most"),
    "label": (lambda: ss.sample(TABLE, 1, label=2**70), "label must fit into 64 bits"),
    "steps": (lambda: ss.sample(G, 1, steps=10**9), "steps must be at most 1000000"),
    "count": (lambda: ss.sample(G, 10**11), "takes .* GiB in float64, but the device has"),
    "shape": (lambda: G.process.prior_sample((10**6, 10**6)), "takes .* GiB in float64, but the device has"),
    "particles": (lambda: ss.weighted_sample([G, G], [1, 1], 10**9), "count must be at most"),
    "nodes": (lambda: ss.log_likelihood(G, X, nodes=10**9), "nodes must be at most"),
    "probes": (lambda: ss.log_likelihood(G, X, probes=10**9), "probes must be at most"),
    "draws": (lambda: ss.elbo(G, X, draws=10**9), "draws must be at most"),
    "repeats": (lambda: ss.inpaint(G, X, torch.ones(2), method="resampling", repeats=10**9), "repeats"),
    "rtol": (lambda: ss.sample(G, 1, rtol=1e30), "rtol must be a finite number >= 0, at most 1"),
    "atol": (lambda: ss.sample(G, 1, atol=1e30), "atol must be at most 80"),
    "eta": (lambda: ss.sample(G, 1, solver="em", eta=1e300), "eta must be a finite number >= 0, at most"),
    "scale": (lambda: ss.classifier_free(TABLE, 10**400, label=1), "scale must be below"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_LARGE)
def test_numbers_too_large_are_refused_before_anything_is_done(case: str) -> None:
    call, message = TOO_LARGE[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "setting",
    ["annealed_langevin:corrections=0", "langevin_corrector:ratio=0", "langevin_corrector:ratio=1", "edict:mix=0",
     "edict:mix=0.5", "edict:mix=1.1", "anderson_ddim:depth=1000", "fixed_point_ddim:iterations=0",
     "renoise_ddim:average=6", "recurrent:repeats=0", "recurrent:repeats=1000000000", "edm_churn:amount=-1",
     "edm_churn:noise=nan", "edm_churn:noise=-1", "langevin_corrector:tau=2", "lattice_heun:block=1000000000"],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting: str) -> None:
    solver, words = setting.split(":")
    name, value = words.split("=")
    with pytest.raises(ValueError, match=f"{name}( of {solver})? must be"):
        solvers.get(setting)
    if value != "nan":
        import dataclasses

        known = solvers.get(solver)
        kind = type(getattr(known, name) or 0.0)
        with pytest.raises(ValueError, match=f"{name}( of {solver})? must be"):
            dataclasses.replace(known, **{name: kind(float(value))})  # type: ignore[type-var]


def test_settings_at_the_ends_of_their_ranges_serve() -> None:
    for setting in ("edict:mix=1", "langevin_corrector:ratio=0.99", "recurrent:repeats=1", "edm_churn:amount=0",
                    "anderson_ddim:depth=5", "renoise_ddim:average=5"):  # fmt: skip
        assert str(solvers.get(setting)) == setting


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", 99, "mps:7", "meta", "xla"])
def test_devices_that_do_not_exist_are_named(device: Any) -> None:
    for call in (
        lambda: ss.sample(G, 2, device=device),
        lambda: ss.encode(G, X, device=device),
        lambda: ss.load("digits", device=device),
        lambda: ss.load_classifier("digits", device=device),
        lambda: G.process.prior_sample((2, 2), device=device),
    ):
        with pytest.raises(
            ValueError, match=f"device={device!r} is not a device of this machine, which has 'cpu'"
        ):
            call()
    with pytest.raises(TypeError, match="device must be a device"):
        ss.sample(G, 2, device=1.5)


def test_names_of_conditions_are_keywords_of_their_own() -> None:
    def model(conditions: Any) -> ss.NetworkScore:
        return ss.NetworkScore(lambda x, t, **c: x, ss.VP(), "noise", conditions=conditions)

    for name in ("steps", "x", "t", "seed", "shape", "noise_level", "solver", "probes"):
        with pytest.raises(ValueError, match=f"a condition cannot be called '{name}'"):
            model([name])
    for wrong in ("label", None, 3):
        with pytest.raises(TypeError, match="conditions must be a list, but is"):
            model(wrong)
    with pytest.raises(TypeError, match="conditions must be names of keywords, but one is 'a b'"):
        model(["a b"])
    with pytest.raises(ValueError, match="conditions must differ"):
        model(["size", "size"])

    class Own(ss.GaussianOracle):
        conditions = ("steps",)

    with pytest.raises(ValueError, match="a condition cannot be called 'steps'"):
        ss.sample(Own(torch.zeros(2), 0.5), 2)


def test_what_verbs_take_is_no_name_of_a_condition() -> None:
    assert set(OPTIONS) <= RESERVED
    for module in (ss, editing, geometry):
        for verb in vars(module).values():
            if inspect.isfunction(verb) and {"options", "solver"} & set(
                taken := inspect.signature(verb).parameters
            ):
                assert set(taken) - {"options", "condition", "conditions"} <= RESERVED, verb


def test_words_of_other_libraries_are_led_to_ours() -> None:
    for words, hint in (("num_inference_steps", "steps="), ("guidance_scale", "ss.classifier_free"),
                        ("generator", "seed="), ("scheduler", "solver="), ("step", "steps=")):  # fmt: skip
        with pytest.raises(TypeError, match=f"{words}= is neither .* did you mean .*{hint}"):
            ss.sample(G, 2, **{words: 5})


def test_solvers_by_the_names_of_interfaces() -> None:
    names = {"Euler a": "ancestral", "DPM2 a": "dpm_2_ancestral", "DPM++ 2S a": "dpmpp_2s_ancestral",
             "DPM++ 2M SDE": "dpmpp_2m_sde", "DPM2": "dpm_2"}  # fmt: skip
    for words, name in names.items():
        assert solvers.get(words) is solvers.get(name)
    ended = {
        "DPM++ 2M Karras": ("dpmpp_2m", "rho"),
        "dpmpp_2m_sde_karras": ("dpmpp_2m_sde", "rho"),
        "DPM++ 2M Exponential": ("dpmpp_2m", "log_snr"),
        "exponential": ("exponential", None),
    }
    for words, pair in ended.items():
        settings = ss.Settings(solver=words)
        assert (str(settings.solver), settings.grid) == pair
    with pytest.raises(ValueError, match="names grid='rho', so grid='t' has no effect"):
        ss.sample(G, 2, solver="DPM++ 2M Karras", grid="t")


def test_callbacks_take_one_event() -> None:
    for wrong in (lambda: 1, lambda a, b: 1, "text", 3):
        with pytest.raises(TypeError, match="callback must be a function"):
            ss.sample(G, 2, callback=wrong)
    seen: list[object] = []
    ss.sample(G, 2, steps=2, callback=lambda event, *others, keep=seen: keep.append(event))
    ss.sample(G, 2, steps=2, callback=seen.append)  # a built-in one
    assert len(seen) == 4


def test_states_are_never_in_half_precision() -> None:
    model = ss.NetworkScore(lambda x, t: 0.1 * x, ss.EDM(), "data", shape=(2,))
    before = torch.get_default_dtype()
    try:
        for dtype, state in ((torch.float16, torch.float32), (torch.float64, torch.float64)):
            torch.set_default_dtype(dtype)
            assert ss.sample(model, 2, steps=2).x.dtype == state
    finally:
        torch.set_default_dtype(before)


def test_rows_are_chosen_by_number_or_by_whether() -> None:
    s = ss.sample(G, 4, steps=2)
    for index, rows in (
        ([-1], [3]),
        (np.array([True, False, True, False]), [0, 2]),
        (1, [1]),
        (slice(2), [0, 1]),
    ):
        assert torch.equal(s.rows(index).x, s.x[rows])
    for wrong in ([4], [-5], [True], [0.5], []):
        with pytest.raises((ValueError, TypeError, IndexError), match="rows must"):
            s.rows(wrong)


def test_guidance_goes_by_numbers_too() -> None:
    def loss(x: Tensor, target: Tensor) -> Tensor:
        return (x.sum(1) - target).square()

    want = ss.sample(guidance.universal(G, loss, 0.5, target=torch.tensor([1.0])), 3, steps=4).x
    for target in (1.0, [1.0], np.float64(1), np.ones(3)):
        found = ss.sample(guidance.universal(G, loss, 0.5, target=target), 3, steps=4).x
        assert torch.allclose(found, want, atol=1e-5)
    y = [[0.5]]
    guided = guidance.pseudoinverse(G, lambda x: x[:, :1], y, noise=np.float32(0.25))
    assert ss.sample(guided, 2, steps=4).ok


@pytest.mark.parametrize(
    "process",
    [ss.VP(), ss.SubVP(), ss.VE(), ss.EDM(), ss.Interpolant(), ss.LinearProcess(-1.0, 1.5, t_max=4.0),
     ss.CustomProcess(lambda t: 1 - t / 2, lambda t: t)],
    ids=lambda process: type(process).__name__,
)  # fmt: skip
def test_times_are_numbers_of_any_library(process: ss.Process) -> None:
    at = 0.5  # which every dtype holds
    want = process.scales(torch.tensor(at, dtype=torch.float64))
    rates, diffusion = process.rates(torch.tensor(at, dtype=torch.float64)), process.diffusion(at)
    for t in (at, np.float32(at), np.array(at)):
        assert all(
            float(a) == pytest.approx(float(b))
            for a, b in zip(process.scales(t), want, strict=True)
        )
        assert float(process.log_snr(t)) == pytest.approx(float((want[0] / want[1]).log()))
        assert float(process.time(process.log_snr(t))) == pytest.approx(at)
        assert float(process.time(float(process.log_snr(t)))) == pytest.approx(at)
        assert float(process.diffusion(t)) == pytest.approx(float(diffusion))
        assert torch.allclose(
            process.drift([[1.0, 2.0]], t), rates[0] * torch.tensor([[1.0, 2.0]])
        )
    assert process.scales([at, 1.0])[0].shape == (2,)
    assert process.log_snr(at).dtype == torch.float64  # what says no dtype keeps its digits
    for wrong in (
        None,
        "1",
        1j,
        True,
        math.nan,
        torch.tensor(0.5).to_sparse(),
        torch.tensor([True]),
    ):
        for call in (process.scales, process.log_snr, process.rates, process.diffusion):
            with pytest.raises((ValueError, TypeError), match="^t must"):
                call(wrong)
        with pytest.raises((ValueError, TypeError), match="^log_snr must"):
            process.time(wrong)


def test_samples_of_any_library_have_distances() -> None:
    x = torch.randn(8, 2, dtype=torch.float64)
    y = (x + 0.5).numpy()
    fid = metrics.fid(torch.nn.Identity())
    assert fid(x.numpy(), y) == pytest.approx(fid(x, torch.from_numpy(y)))
    # points of a lattice are half a diagonal from those of the shifted one, in whatever dtypes both are
    lattice = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    for kind in (torch.float16, torch.float32, torch.float64):
        found = metrics.nearest(lattice.to(kind), (lattice + 0.5).double())
        assert found.dtype == (torch.promote_types(kind, torch.float64))
        assert found.tolist() == pytest.approx([0.5**0.5] * 16)
