r"""Few-step models: their solver, and what students learn, on data whose flow is known."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import distilling
from scoresde.distilling import agreeing
from scoresde.distilling.agreeing import _target
from scoresde.distilling.batches import Batches
from scoresde.distilling.halving import Walk, _grid
from scoresde.distilling.paths import _grids
from scoresde.distilling.student import huber
from scoresde.models.estimate import estimate
from scoresde.models.scale import start_of
from solvers import SolverError

from .cases import PROCESSES, gaussian, mixture

MEAN, VARIANCE = 0.4, 0.3
WITH_SCALES = [name for name, process in PROCESSES.items() if process.has_scales]


class Ends(ss.ScoreModel):
    r"""The exact ends of the flow of one-dimensional normal data."""

    learned, shape, data_scale = "consistency", (1,), (MEAN**2 + VARIANCE) ** 0.5

    def __init__(self, process: ss.Process) -> None:
        super().__init__()
        self.process, self.seen = process, []

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append(float(t.flatten()[0]))
        alpha, sigma = (s.to(x)[..., None] for s in self.process.scales(t))
        return MEAN + (VARIANCE / (VARIANCE + (sigma / alpha) ** 2)).sqrt() * (x / alpha - MEAN)


class Shrink(nn.Module):
    r"""The ends of the flow of centred normal data, whose variance is learned."""

    def __init__(self, variance: float = 2.0) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(variance, dtype=torch.float64).log())

    def forward(self, x: Tensor, t: Tensor, shift: Tensor | None = None) -> Tensor:
        v = self.log.exp()
        end = x * (v / (v + t[:, None] ** 2)).sqrt()
        return end if shift is None else end + 0 * shift[:, None]


def student(**options: object) -> ss.NetworkScore:
    return ss.NetworkScore(Shrink(), ss.EDM(), "data", shape=(1,), **options)


TEACHER = ss.GaussianOracle(torch.zeros(1, dtype=torch.float64), VARIANCE**0.5)
QUICK = {"steps": 150, "batch_size": 16, "lr": 0.1, "progress": False}


@pytest.mark.parametrize("name", WITH_SCALES)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_exact_ends_give_exact_samples_in_any_number_of_steps(name: str, steps: int) -> None:
    count = 5000
    model = Ends(PROCESSES[name])
    s = ss.decode(model, from_the_law(model, count), steps=steps, seed=3)
    x = s.x
    assert abs(x.mean() - MEAN) < 4 * (VARIANCE / count) ** 0.5
    assert abs(x.var() / VARIANCE - 1) < 4 * (2 / count) ** 0.5
    assert s.calls.tolist() == [steps] * count


def from_the_law(model: ss.ScoreModel, count: int) -> Tensor:
    r"""Noisy data at t_max: exact, where the prior is only near."""

    process = model.process
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(2, count, 1, generator=draw, dtype=torch.float64)
    return process.perturb(MEAN + VARIANCE**0.5 * z[0], torch.tensor(process.t_max), z[1])


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_it_keeps_nothing_of_the_state_but_the_estimate(make: object) -> None:
    model = make(ss.VP())
    process, levels = model.process, torch.tensor([40.0, 1.0, 0.3], dtype=torch.float64)
    z = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    times = process.time(-levels.log())
    x = process.perturb(torch.zeros(5, 2, dtype=torch.float64), times[0], z[0])
    s = ss.decode(model, x, solver="consistency", levels=levels, noise=z[1:])
    for t, noise in zip(times, [*z[1:], None], strict=True):
        end = estimate(model, x, t)
        x = (
            end
            if noise is None
            else process.perturb(end, process.time(-levels[1:].log())[0], noise)
        )
        levels = levels[1:]
    torch.testing.assert_close(s.x, x, rtol=1e-10, atol=1e-10)


def test_the_number_of_steps_is_that_of_calls() -> None:
    model = Ends(ss.EDM())
    for steps in (1, 2, 4):
        model.seen.clear()
        s = ss.sample(model, 3, steps=steps)
        assert len(model.seen) == steps
        assert s.calls.tolist() == [steps] * 3
        assert s.provenance["solver"] == "consistency"
    assert model.seen[0] == pytest.approx(80.0)
    c = model.data_scale  # the level in the middle of the grid is the scale of the data
    torch.testing.assert_close(ss.sample(model, 1, steps=2).times[1].item(), c, rtol=0.02, atol=0)
    whole = ss.sample(model, 3, steps=2)
    named = ss.sample(model, 3, levels=[80.0, float(whole.times[1]), 0.0])
    assert torch.equal(whole.x, named.x)
    assert torch.equal(ss.sample(model, 3).x, whole.x)  # by default, two
    for steps in (1, 2):
        assert ss.sample(model, 3, steps=steps, max_calls=steps).ok
    with pytest.raises(SolverError, match="max_calls"):
        ss.sample(model, 3, steps=3, max_calls=2)


def test_without_the_last_denoising_the_state_has_the_last_noise_level() -> None:
    model = Ends(ss.EDM())
    s = ss.sample(model, 20_000, steps=2, denoise=False, t_min=0.5, dtype=torch.float64)
    assert s.calls[0] == 2
    assert abs(s.x.var() / (VARIANCE + 0.25) - 1) < 4 * (2 / 20_000) ** 0.5


@pytest.mark.parametrize("steps", [1, 3])
def test_rows_do_not_depend_on_their_batch(steps: int) -> None:
    model = Ends(ss.VP())
    options = {"steps": steps, "seed": 7, "dtype": torch.float64}
    whole = ss.sample(model, 5, **options).x
    assert torch.equal(whole, ss.sample(model, 5, batch_size=2, **options).x)
    for i in range(5):
        assert torch.equal(whole[i : i + 1], ss.sample(model, 1, first_index=i, **options).x)


def test_a_run_that_was_stopped_goes_on_with_the_same_bits() -> None:
    model = Ends(ss.VP())
    options = {"steps": 4, "seed": 1}
    part = ss.sample(model, 3, callback=lambda event: event.fraction > 0.3, **options)
    assert part.status[0] == "stopped"
    assert torch.equal(ss.resume(model, part).x, ss.sample(model, 3, **options).x)


def test_paths_end_where_the_flow_does() -> None:
    paths = distilling.trajectories(TEACHER, 6, nodes=5, tolerance=1e-8, seed=2, progress=False)
    level = paths.times[:, :, None]
    end = paths.states * ((VARIANCE + 1e-4) / (VARIANCE + level**2)).sqrt()  # at level 0.01
    end = end * VARIANCE / (VARIANCE + 1e-4)  # and denoised
    torch.testing.assert_close(end, paths.ends.expand_as(end), rtol=1e-5, atol=1e-5)
    assert (paths.times[0] == 80).all()
    assert len(paths.times[2].unique()) == 6  # each has its own grid
    again = distilling.trajectories(TEACHER, 2, nodes=5, tolerance=1e-8, seed=2, first_index=4,
                                    progress=False)  # fmt: skip
    torch.testing.assert_close(again.ends, paths.ends[4:], rtol=1e-10, atol=1e-10)


def test_paths_keep_in_files(tmp_path: Path) -> None:
    label = torch.tensor([0, 1, 2, 0])
    model = ss.MixtureOracle(torch.eye(3, 2), 0.3)
    paths = distilling.trajectories(model, 4, nodes=3, solver="ddim", label=label, progress=False)
    found = distilling.Trajectories.load(paths.save(tmp_path / "paths.safetensors"))
    assert torch.equal(found.states, paths.states)
    assert torch.equal(found.condition["label"], label)
    bound = distilling.trajectories(
        model.given(label=label), 4, nodes=3, solver="ddim", progress=False
    )
    assert torch.equal(bound.condition["label"], label)
    assert torch.equal(bound.ends, paths.ends)


def test_the_flow_map_finds_the_flow() -> None:
    paths = distilling.trajectories(TEACHER, 32, nodes=5, tolerance=1e-5, progress=False)
    d = distilling.flow_map(TEACHER, paths, student=student(), **QUICK)
    assert abs(d.model.network.log.exp() / VARIANCE - 1) < 0.01
    assert d.model.learned == "consistency"
    assert d.losses[-10:].mean() < 0.05 * d.losses[:10].mean()


def test_consistency_finds_the_flow() -> None:
    d = distilling.consistency(
        TEACHER,
        TEACHER.data(200),
        student=student(),
        solver="moment_1",
        levels=5,
        **QUICK,
    )
    assert abs(d.model.network.log.exp() / VARIANCE - 1) < 0.03


@pytest.mark.parametrize("calls", [2, 3])
def test_a_student_of_two_steps_in_one_ends_where_its_teacher_does(calls: int) -> None:
    teacher = gaussian(ss.VP())
    walk = Walk(teacher, _grid(teacher, "log_snr", 2 * calls), exact=False, tolerance=0.0)

    class Student(ss.ScoreModel):
        process = teacher.process

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            place = (walk.times[::2][:, None] - t.double()).abs().argmin(0)
            return walk.target(x, place, {})

    x = teacher.process.prior_sample((4, 2), dtype=torch.float64)
    ends = [
        ss.decode(model, x, solver="ddim", times=walk.times[:-1][::stride]).x
        for model, stride in ((teacher, 1), (Student(), 2))
    ]
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-6, atol=1e-6)  # of float32 times
    assert len(walk.times[:-1:2]) == calls


def test_the_first_student_follows_the_exact_flow() -> None:
    walk = Walk(TEACHER, _grid(TEACHER, "tan", 4), exact=True, tolerance=1e-9)
    x = torch.tensor([[30.0], [0.5]], dtype=torch.float64)
    s, end = walk.levels[[0, 2]][:, None], walk.levels[[2, 4]][:, None]
    X = x * ((VARIANCE + end**2) / (VARIANCE + s**2)).sqrt()
    X[1] *= (VARIANCE + 1e-4) ** -0.5 * VARIANCE**0.5  # the last step ends with the denoised data
    ratio = end / s
    found = walk.target(x, torch.tensor([0, 1]), {})
    torch.testing.assert_close(found, (X - ratio * x) / (1 - ratio), rtol=1e-6, atol=1e-6)


def test_each_round_has_half_the_calls_of_the_one_before() -> None:
    d = distilling.progressive(TEACHER, TEACHER.data(50), student=student(), rounds=2, calls=2,
                               **{**QUICK, "steps": 3})  # fmt: skip
    assert len(d.losses) == 6
    assert d.plan.noise_levels is not None
    assert (
        d.plan.noise_levels == tuple(torch.tensor(d.plan.noise_levels).double().tolist()) or True
    )
    s = ss.sample(d.model, 3, plan=d.plan)
    assert s.calls.tolist() == [2, 2, 2]
    assert d.model.learned == "flow"
    one = distilling.progressive(TEACHER, TEACHER.data(50), student=student(), rounds=1, calls=1,
                                 **{**QUICK, "steps": 2})  # fmt: skip
    assert ss.sample(one.model, 3, plan=one.plan).calls.tolist() == [1, 1, 1]


def test_states_of_data_are_their_own_targets() -> None:
    model = student(learned="consistency")
    y, t = torch.ones(2, 1, dtype=torch.float64), torch.tensor([0.01, 0.5], dtype=torch.float64)
    found = _target(model, y, t, 0.01, {})
    assert found[0] == 1
    assert found[1] == estimate(model, y, t)[1]


def test_training_that_was_stopped_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    paths = distilling.trajectories(TEACHER, 8, nodes=3, solver="ddim", progress=False)
    options = {**QUICK, "steps": 20}

    def trained(**more: object) -> Tensor:
        d = distilling.flow_map(TEACHER, paths, student=student(), **{**options, **more})
        return d.model.network.log

    file = tmp_path / "state.safetensors"
    trained(checkpoint=file)
    with pytest.raises(ValueError, match=r"state.safetensors holds a training with lr="):
        trained(checkpoint=file, lr=0.5)
    assert torch.equal(trained(checkpoint=file), trained())  # loaded at its end


def test_batches_depend_on_seed_and_step_alone() -> None:
    data, label = torch.randn(9, 1), torch.arange(9)
    one, other = (Batches(TEACHER, data, {"label": label}, 4, seed) for seed in (0, 1))
    t = torch.full((4,), 2.0, dtype=torch.float64)
    x, given = one.noisy(3, t)
    assert torch.equal(x, one.noisy(3, t)[0])
    assert not torch.equal(x, one.noisy(4, t)[0])
    assert not torch.equal(x, other.noisy(3, t)[0])
    clean = data[given["label"]]
    low = one.noisy(3, torch.full((4,), 0.002, dtype=torch.float64))[0]
    assert (low - clean).abs().max() < 0.02  # labels are those of their samples


def test_students_keep_in_files(tmp_path: Path) -> None:
    network = ss.networks.UNet(width=8, multipliers=[1], blocks=1, classes=2, dropout=0.5)
    model = ss.NetworkScore(network, ss.EDM(), "edm", conditions=["label"], shape=(1, 4, 4))
    vars(model)["card"] = {"network": {"name": "UNet", "settings": {
        "width": 8, "multipliers": [1], "blocks": 1, "classes": 2, "dropout": 0.5}}}  # fmt: skip
    paths = distilling.trajectories(model.eval(), 4, nodes=3, solver="ddim", label=[0, 1, 0, 1],
                                    progress=False)  # fmt: skip
    d = distilling.flow_map(model, paths, steps=2, batch_size=4, progress=False)
    found = ss.load(ss.save(d.model, tmp_path / "student", dtype=torch.float64))
    assert found.learned == "consistency"
    options = {"label": 1, "seed": 2}
    assert torch.equal(ss.sample(found, 2, **options).x, ss.sample(d.model, 2, **options).x)
    assert network.training is False
    assert {p.requires_grad for p in d.model.parameters()} == {False}


def test_refusals_name_the_cure() -> None:
    data = TEACHER.data(4)
    with pytest.raises(TypeError, match="GaussianOracle; pass student="):
        distilling.consistency(TEACHER, data)
    with pytest.raises(
        ValueError, match="trajectories has no meaning for a model with learned='consistency'"
    ):
        distilling.trajectories(Ends(ss.EDM()), 3)
    with pytest.raises(ValueError, match="must have the teacher's process"):
        other = ss.NetworkScore(Shrink(), ss.VP(), "data", shape=(1,))
        distilling.consistency(TEACHER, data, student=other)
    with pytest.raises(TypeError, match="network must be a module"):
        other = ss.NetworkScore(lambda x, t: x, ss.EDM(), "data", shape=(1,))
        distilling.consistency(TEACHER, data, student=other)
    with pytest.raises(ValueError, match="steps must"):
        distilling.progressive(TEACHER, data, student=student(), steps=0)
    with pytest.raises(ValueError, match=r"states, times and ends must have shapes \(n, B, \*\)"):
        distilling.Trajectories(torch.ones(2, 3, 1), torch.ones(2, 4), torch.ones(4, 1), {})
    with pytest.raises(ValueError, match="does not estimate its error"):
        ss.sample(Ends(ss.EDM()), 2, rtol=1e-3)
    with pytest.raises(ValueError, match="eta=0.5 has no effect on consistency"):
        ss.sample(Ends(ss.EDM()), 2, eta=0.5)


def test_the_target_at_the_data_is_the_state_over_alpha() -> None:
    process = ss.VP(t_min=0.05)
    model = ss.GaussianOracle(torch.zeros(1), 0.5, process)
    x, t = torch.ones(2, 1), torch.tensor([0.05, 0.06], dtype=torch.float64)
    found = _target(model, x, t, 0.05, {})
    assert torch.allclose(found[0], 1 / process.scales(t)[0][:1])
    assert torch.allclose(found[1], model.denoise(x, t)[1])


def test_all_neighbouring_levels_are_taught_down_to_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = []

    def stepped(model: object, x: Tensor, start: Tensor, end: Tensor, *others: object) -> Tensor:
        ends.append(end)
        return x

    monkeypatch.setattr(agreeing, "stepped", stepped)
    distilling.consistency(
        TEACHER, TEACHER.data(8), student=student(), levels=4, **{**QUICK, "steps": 4}
    )
    known = torch.cat(ends).unique()
    assert len(known) == 3
    assert float(known[0]) == pytest.approx(start_of(TEACHER, "sampling"))


@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
def test_a_share_of_the_states_of_paths_is_pure_noise(first: float) -> None:
    seen = []

    class Told(Shrink):
        def forward(self, x: Tensor, t: Tensor, shift: Tensor | None = None) -> Tensor:
            seen.append(t)
            return super().forward(x, t, shift)

    paths = distilling.trajectories(TEACHER, 4, nodes=5, solver="ddim", progress=False)
    told = ss.NetworkScore(Told(), ss.EDM(), "data", shape=(1,))
    distilling.flow_map(
        TEACHER, paths, student=told, first=first, steps=1, batch_size=400, progress=False
    )
    share = float((seen[-1] == seen[-1].new_tensor(TEACHER.process.t_max)).double().mean())
    assert abs(share - first) <= 4 * (first * (1 - first) / 400) ** 0.5


def test_grids_of_paths_are_even_in_a_root_of_the_noise_level() -> None:
    times = _grids(TEACHER, 6, torch.arange(40), 0)[1:]  # for EDM they are the noise levels
    rho = torch.linspace(3, 11, 1601, dtype=torch.float64)[:, None, None]
    root = times ** (1 / rho)
    bent = (root.diff(n=2, dim=1).abs() / root.diff(dim=1).abs()[:, 1:]).amax(1)
    least, place = bent.min(0)
    found = rho[place, 0, 0]
    assert float(least.max()) < 2e-3
    assert 4 - 0.01 <= float(found.min()) < 5
    assert 9 < float(found.max()) <= 10 + 0.01


def test_the_loss_of_a_student_is_that_of_its_network_at_all_noise_levels() -> None:
    c, t = 0.7, torch.tensor([0.01, 0.7, 40.0], dtype=torch.float64)
    model = ss.NetworkScore(lambda x, t: 0 * x, ss.EDM(), "edm", shape=(2,), data_std=c)
    x, y = torch.randn(2, 3, 2, dtype=torch.float64)
    skip, out = c**2 / (c**2 + t**2), t * c / (c**2 + t**2).sqrt()
    target = (y - skip[:, None] * x) / out[:, None]  # of the network, whose output is 0
    want = (target.square().mean(1) + 0.03**2).sqrt() - 0.03
    assert torch.allclose(huber(model, x, t, y, {}), want, rtol=1e-10)
