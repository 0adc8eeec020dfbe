r"""Round trips to the last bit, noise paths, files, and what latents look like."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
import solvers
from scoresde.runs.bit_exact import settle
from scoresde.runs.run import Run
from scoresde.runs.settings import Settings

from .cases import MEANS, PROCESSES, gaussian, mixture, quantile

LEVELS = 256


class Small(nn.Module):
    r"""A network of random weights in float32, whose last bits depend on the order of its sums."""

    def __init__(self, size: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        shapes = ((size + 1, 96), (96, size))
        self.weights = nn.ParameterList(
            torch.randn(shape, generator=draw, dtype=torch.float32) / shape[0] ** 0.5
            for shape in shapes
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told = t if label is None else t + label
        h = torch.cat([x.flatten(1), told[:, None].to(x)], 1) @ self.weights[0]
        return (torch.tanh(h) @ self.weights[1]).reshape(x.shape)


def small(process: ss.Process, predicts: str, **settings: object) -> ss.NetworkScore:
    network = Small(36).requires_grad_(False)
    return ss.NetworkScore(network, process, predicts, shape=(1, 6, 6), **settings)  # type: ignore[arg-type]


def pictures(count: int) -> Tensor:
    draw = torch.Generator().manual_seed(4)
    levels = torch.randint(0, LEVELS, (count, 1, 6, 6), generator=draw)
    return levels.float() / 127.5 - 1


def on_levels(x: Tensor) -> Tensor:
    return ss.quantize(x.double(), levels=LEVELS)


KINDS = {
    "noise on VP": (ss.VP(), "noise"),
    "edm on EDM": (ss.EDM(), "edm"),
    "velocity on the interpolant": (ss.Interpolant(), "velocity"),
}


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [True, False], ids=["moments", "no moments"])
def test_a_lattice_brings_pictures_back_to_the_last_bit(kind: str, rows: int, known: bool) -> None:
    model, x = small(*KINDS[kind]), pictures(rows)
    if known:
        model.moments = ss.moments(pictures(50))
    z = ss.encode(model, x, solver="lattice_heun", steps=15)
    y = ss.decode(model, z, denoise=False)
    alpha = model.process.scales(z.times[0])[0]
    assert torch.equal(on_levels(y.x / alpha), on_levels(x))
    assert (y.x / alpha - x).abs().max() < 1e-6
    assert (z.x / model.process.prior_std()).std() > 0.3


def test_a_subset_a_file_and_another_block_size_bring_the_same_bits(tmp_path: Path) -> None:
    model, x = small(ss.EDM(), "edm"), pictures(9)
    z = ss.encode(model, x, solver="lattice_heun", steps=12)
    whole = ss.decode(model, z, denoise=False)
    some = torch.tensor([7, 2, 5])
    part = ss.decode(model, z.rows(some), denoise=False)
    assert torch.equal(part.x, whole.x[some])
    assert torch.equal(part.companion, whole.companion[some])  # type: ignore[index, arg-type]
    ss.save_latents(tmp_path / "z.npz", z)
    again = ss.decode(model, ss.load_latents(tmp_path / "z.npz"), denoise=False)
    assert torch.equal(again.companion, whole.companion)  # type: ignore[arg-type]
    assert again.provenance["solver"] == z.provenance["solver"] != "lattice_heun"


def test_guided_flows_are_undone_too() -> None:
    model = small(ss.EDM(), "edm", conditions=("label",))
    x, label = pictures(4), torch.arange(4)
    guided = ss.classifier_free(model, 4.0, label=label)
    r = ss.reconstruct(guided, x, solver="lattice_heun", steps=10)
    assert torch.equal(on_levels(r.x), on_levels(x))
    rows = torch.tensor([2, 0])
    z = ss.encode(guided, x, solver="lattice_heun", steps=10).rows(rows)
    other = ss.classifier_free(model, 4.0, label=label[rows])
    assert torch.equal(on_levels(ss.decode(other, z, denoise=False).x), on_levels(x[rows]))


class Mixing(ss.MixtureOracle):
    r"""A model whose answers for a row depend on the other rows, by very little."""

    def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return super().denoise(x, t, label) + 1e-15 * x.sum()


class Noisy(ss.MixtureOracle):
    def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return super().denoise(x, t, label) + 1e-12 * torch.randn(x.shape)


def test_the_block_is_found_that_keeps_rows_apart() -> None:
    x, times = MEANS, torch.tensor([0.002, 1.0, 80.0])
    asked = Settings(solver="lattice_heun", steps=2)
    assert settle(Run(mixture(ss.EDM()), asked, times), x).settings.method.block == 4
    model = Mixing(MEANS, 0.3)
    assert settle(Run(model, asked, times), x).settings.method.block == 1
    with pytest.raises(ValueError, match="depend on other rows; pass block=1"):
        ss.encode(model, x, solver="lattice_heun:block=4", steps=3)
    with pytest.raises(ValueError, match=r"different bits for the same input.*model.eval"):
        ss.encode(Noisy(MEANS, 0.3), x, solver="lattice_heun", steps=3)
    with pytest.raises(ValueError, match="batch_size= has no effect on lattice_heun"):
        ss.encode(model, x, solver="lattice_heun", steps=3, batch_size=2)
    r = ss.reconstruct(model, x, solver="lattice_heun", steps=20)
    assert r.max.max() < 1e-9


def test_latents_alone_bring_back_what_the_method_is_worth() -> None:
    oracle = mixture(ss.EDM())
    x = oracle.data(5)
    exact = ss.reconstruct(oracle, x, solver="reversible_heun", steps=60)
    alone = ss.reconstruct(oracle, x, solver="reversible_heun", steps=60, one_state=True)
    assert exact.max.max() < 1e-12 < 1e-8 < alone.max.max() < 1e-2


@pytest.mark.parametrize(
    "solver", ["lattice_heun", "reversible_heun", "o_belm", "rex_noise_midpoint"]
)
def test_latents_approach_those_of_the_exact_flow(solver: str) -> None:
    oracle = quantile(ss.EDM())
    x, errors = oracle.data(6), []
    for steps in (40, 160):
        z = ss.encode(oracle, x, solver=solver, steps=steps)
        exact = oracle.flow(x, float(z.times[0]), 80.0)
        errors.append(((z.x - exact).abs().max() / 80).item())
    assert errors[1] < errors[0] / 8
    assert errors[1] < 1e-2


@pytest.mark.parametrize("chain", ["forward", "independent"])
@pytest.mark.parametrize("solver", ["ancestral", "dpmpp_2m_sde", "er_sde"])
def test_a_noise_path_leads_back(solver: str, chain: str) -> None:
    oracle = mixture(ss.VP())
    x = oracle.data(5)
    path = ss.encode_noise(oracle, x, solver=solver, steps=30, chain=chain)  # type: ignore[arg-type]
    s = path.replay(oracle)
    assert (s.x - x).abs().max() < 1e-9
    assert path.calls.tolist() == s.calls.tolist() == [30] * 5
    assert (path.replay(oracle.given(label=1)).x - x).abs().max() > 0.1


def test_noise_paths_of_right_models_are_normal() -> None:
    oracle = gaussian(ss.VP())
    x = oracle.data(400)
    path = ss.encode_noise(oracle, x, steps=200)
    assert path.normals.mean().abs() < 0.01
    assert path.normals.std() == pytest.approx(1.0, abs=0.05)
    between = (path.normals[1:] * path.normals[:-1]).mean()
    assert between.abs() < 0.02
    apart = ss.encode_noise(oracle, x, steps=200, chain="independent")
    assert apart.normals.std() > 1.2
    mixed = path.below(0.5, apart)
    late = torch.tensor(path.provenance["noise levels"][:-1]) <= 0.5
    assert torch.equal(mixed.normals[late], apart.normals[late])
    assert torch.equal(mixed.normals[~late], path.normals[~late])


def test_statistics_tell_noise_from_what_is_none() -> None:
    model = small(ss.EDM(), "edm")
    z = 80 * torch.randn(1000, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    s = ss.latent_statistics(model, z)
    assert s.mean.abs().mean() < 2 / 6
    assert s.std.mean() == pytest.approx(1.0, abs=0.05)
    assert s.normality.mean() == pytest.approx(0.5, abs=0.06)
    for value in (s.radius, s.neighbours):
        assert value.mean().abs() < 0.2
        assert value.std() == pytest.approx(1.0, abs=0.08)
    assert 2 < s.pairs.mean() < 5
    assert ss.latent_statistics(model, 0.5 * z).radius.mean() < -4
    smooth = (z + z.roll(1, -1) + z.roll(1, -2)) / 3**0.5
    assert ss.latent_statistics(model, smooth).neighbours.mean() > 2
    assert ss.latent_statistics(model, z**3 / 6400).kurtosis.mean() > 3
    assert ss.latent_statistics(model, torch.cat([z[:2], z[:1]])).pairs[0] > 5
    assert ss.latent_statistics(model, z[:1]).pairs.isnan().all()


def test_latents_say_where_they_come_from(tmp_path: Path) -> None:
    model, file = ss.load("digits"), tmp_path / "z.npz"
    z = ss.encode(model, torch.zeros(2, 1, 8, 8), solver="ddim", steps=2)
    ss.save_latents(file, z)
    assert ss.load_latents(file).provenance == json.loads(json.dumps(z.provenance))
    with pytest.raises(ValueError, match="were made under the process EDM.*is VP"):
        ss.decode(small(ss.VP(), "noise"), z)
    other = ss.load("digits")
    other.fingerprint = "0123456789abcdef"
    with pytest.raises(ValueError, match="were made with the model .*pass the tensor z.x"):
        ss.decode(other, z)
    with pytest.raises(ValueError, match="still hold data"):
        ss.latent_statistics(model, ss.encode(model, torch.zeros(1, 1, 8, 8), t_max=1.0, steps=2,
                                              solver="ddim"))  # fmt: skip


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "z.npz"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        ss.load_latents(file)
    file.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="holds no latents"):
        ss.load_latents(file)
    np.savez(file, x=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="lacks times, calls"):
        ss.load_latents(file)
    np.savez(file, x=np.array([{"a": 1}], dtype=object))  # a pickle, which is not opened
    with pytest.raises(ValueError, match="holds no latents"):
        ss.load_latents(file)


def test_latents_of_another_machine_are_told() -> None:
    model, x = mixture(ss.EDM()), MEANS
    z = ss.encode(model, x, solver="lattice_heun", steps=4)
    z.provenance["environment"]["threads"] = 77
    with pytest.warns(UserWarning, match="threads 77, now"):
        ss.decode(model, z, denoise=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "heun"}, "but is heun"),
        ({"eta": 0.0}, "eta=0 has no noise"),
        ({"chain": "backward"}, "chain must be"),
    ],
)
def test_noise_paths_want_noise(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.encode_noise(mixture(ss.EDM()), MEANS, **options)


def test_guided_round_trips_warn_and_name_the_cure() -> None:
    oracle = mixture(ss.EDM())
    guided = ss.classifier_free(oracle, 9.0, label=torch.tensor([1]))
    with pytest.warns(UserWarning, match="guidance makes the flow stiff.*lattice_heun"):
        whole = ss.reconstruct(guided, oracle.data(6), solver="ddim", steps=12)
    with pytest.warns(UserWarning, match="guidance makes the flow stiff"):
        higher = ss.reconstruct(guided, oracle.data(6), solver="dpmpp_2m", steps=12)
    assert higher.rms.mean() < 0.5 * whole.rms.mean()


def test_changed_latents_do_not_keep_their_companion() -> None:
    from dataclasses import replace

    oracle = mixture(PROCESSES["VP"])
    z = ss.encode(oracle, MEANS, solver="reversible_heun", steps=9)
    with pytest.raises(ValueError, match="leave companion= out"):
        ss.decode(oracle, replace(z, x=z.x + 0.1))
    assert ss.decode(oracle, replace(z, x=z.x + 0.1, companion=None)).ok
    assert solvers.get(z.provenance["solver"]).reversible


@pytest.mark.parametrize("rows", [3, 10])
def test_a_reconstruction_keeps_the_block_of_its_way_up(rows: int) -> None:
    network = Small(36).requires_grad_(False)
    network.weights = nn.ParameterList(2 * w.detach() for w in network.weights)
    model, x = ss.NetworkScore(network, ss.VP(), "noise", shape=(1, 6, 6)), pictures(rows)
    r = ss.reconstruct(model, x, solver="lattice_heun", steps=30)
    assert torch.equal(on_levels(r.x), on_levels(x))
    same = ss.edit(model, model, x, strength=1.0, solver="lattice_heun", steps=30, denoise=False)
    assert torch.equal(on_levels(same.x), on_levels(x))


def test_edict_on_vp_is_as_published() -> None:
    oracle, process = mixture(ss.VP()), ss.VP()
    x = process.prior_sample((4, 2), seed=1)
    s = ss.decode(oracle, x, solver="edict", steps=12, denoise=False)
    first, second = x, x
    for t, u in zip(s.times[:-1], s.times[1:], strict=True):  # equations (12) to (15), state x
        (alpha, sigma), (alpha1, sigma1) = process.scales(t), process.scales(u)
        a, b = alpha1 / alpha, sigma1 - alpha1 / alpha * sigma
        first = a * first + b * oracle.noise(second, t)
        second = a * second + b * oracle.noise(first, t)
        first = 0.93 * first + 0.07 * second
        second = 0.93 * second + 0.07 * first
    assert torch.allclose(s.x, first)


def test_latents_that_grow_beyond_the_prior_are_told() -> None:
    oracle = mixture(ss.EDM())
    with pytest.warns(UserWarning, match="times as large as the prior.*bdia"):
        ss.encode(oracle, MEANS, solver="bdia", steps=60)


def test_noise_of_paths_is_not_that_of_samples() -> None:
    oracle = gaussian(ss.EDM())
    s = ss.sample(oracle, 2000, solver="ancestral", steps=30, noise="path", seed=3)
    path = ss.encode_noise(oracle, s.x, steps=30, seed=3)
    chain = (path.latent - s.x).flatten()
    assert torch.corrcoef(torch.stack([chain, s.x.flatten()]))[0, 1].abs() < 0.06
    with pytest.raises(ValueError, match="solver= is set by the noise path"):
        path.replay(oracle, solver="heun")
    with pytest.raises(ValueError, match="path= has no effect on a noise path"):
        ss.encode_noise(oracle, s.x, path=True)


def test_options_at_decoding_keep_what_they_leave() -> None:
    oracle = mixture(ss.EDM())
    z = ss.encode(oracle, MEANS, solver="reversible_heun", steps=9)
    same = ss.decode(oracle, z, denoise=False)
    named = ss.decode(oracle, z, solver="reversible_heun", denoise=False)
    assert torch.equal(same.x, named.x)
    with pytest.warns(UserWarning, match="with steps=, the companion of these latents is ignored"):
        other = ss.decode(oracle, z, steps=30, denoise=False)
    assert other.provenance["solver"] == "reversible_heun"
    with pytest.warns(UserWarning, match="the companion of these latents is ignored"):
        assert ss.decode(oracle, z, solver="heun", steps=30).provenance["solver"] == "heun"
    for rows in ([2, 0], slice(0, 2), torch.tensor([1])):
        assert torch.equal(ss.decode(oracle, z.rows(rows), denoise=False).x, same.x[rows])


def test_encoding_takes_steps_alone() -> None:
    z = ss.encode(mixture(ss.EDM()), MEANS, steps=8)
    assert z.provenance["solver"] == "exponential_3"


def test_exact_latents_in_float32_lose_no_more_than_rounding() -> None:
    model = ss.load("digits")
    x = ss.dequantize(torch.zeros(3, 1, 8, 8, dtype=torch.float32), levels=17)
    r = ss.reconstruct(model, x, solver="lattice_heun", steps=12)
    assert r.x.dtype == torch.float32
    assert r.max.max() < 3e-7


def test_a_lattice_names_its_range() -> None:
    with pytest.raises(solvers.SolverError, match="beyond the .* that the lattice holds"):
        ss.encode(mixture(ss.EDM()), 1e5 * MEANS, solver="lattice_heun", steps=4)
