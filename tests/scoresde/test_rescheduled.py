r"""A model on another process equals the oracle of that process, at equal noise level."""

import pytest
import torch

import scoresde as ss

MEANS = torch.tensor([[1.0, -0.5], [-2.0, 0.25]], dtype=torch.float64)
TRAINED = ss.MixtureOracle(
    MEANS, 0.5, process=ss.VP(ss.Tabulated.from_betas(torch.linspace(1e-4, 0.02, 1000)))
)
OTHERS = [ss.EDM(), ss.VP(), ss.VP(ss.Cosine()), ss.SubVP(), ss.VE(), ss.Interpolant()]
NAMES = ["EDM", "VP", "cosine", "SubVP", "VE", "flow"]


@pytest.mark.parametrize("process", OTHERS, ids=NAMES)
def test_estimates_are_those_of_the_other_process(process: ss.Process) -> None:
    model = ss.Rescheduled(TRAINED, process)
    truth = ss.MixtureOracle(MEANS, 0.5, process=process)
    x = torch.tensor([[0.3, -0.7], [1.5, 0.2], [-4.0, 2.0]], dtype=torch.float64)
    span = model.process.t_max - model.process.t_min
    for share in (0.01, 0.3, 0.9):
        t = torch.full((3,), model.process.t_min + share * span, dtype=torch.float64)
        for name in ("denoise", "noise", "score", "velocity"):
            found, want = (getattr(m, name)(x, t) for m in (model, truth))
            assert torch.allclose(found, want, rtol=1e-9, atol=1e-9), name


@pytest.mark.parametrize("process", OTHERS, ids=NAMES)
def test_samples_and_likelihoods_are_those_of_the_other_process(process: ss.Process) -> None:
    model = ss.Rescheduled(TRAINED, process)
    truth = ss.MixtureOracle(MEANS, 0.5, process=model.process)
    options = {"steps": 6, "dtype": torch.float64}
    for solver in ("dpmpp_2m", "edm_heun", "ancestral"):
        found = ss.sample(model, 3, solver=solver, **options).x
        assert torch.allclose(found, ss.sample(truth, 3, solver=solver, **options).x, atol=1e-9)
    x = MEANS[:1] + 0.1
    want = ss.log_likelihood(truth, x).nats
    assert torch.allclose(ss.log_likelihood(model, x).nats, want, atol=1e-8)


def test_conditions_pass_through() -> None:
    model = ss.Rescheduled(TRAINED, ss.EDM())
    x = ss.sample(model, 200, steps=12, label=1).x
    assert torch.allclose(x.double().mean(0), MEANS[1], atol=0.2)
    with pytest.raises(ValueError, match="label"):
        ss.sample(model, 2, label=7)


def test_noise_levels_that_the_model_does_not_know_are_cut_off() -> None:
    inner, outer = TRAINED.process, ss.EDM()
    process = ss.Rescheduled(TRAINED, outer).process
    assert process.t_min == pytest.approx(inner.noise_level(0.0))
    assert process.t_max == outer.t_max
    with pytest.raises(ValueError, match="none of them"):
        ss.Rescheduled(TRAINED, ss.EDM(ss.Karras(1e-4, 1e-3)))
