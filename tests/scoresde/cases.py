r"""The processes and exact models that the laws are held on."""

import torch

import scoresde as ss

beta = ss.LinearBeta()


def _beta(t: torch.Tensor) -> torch.Tensor:
    return 0.1 + 19.9 * t


PROCESSES: dict[str, ss.Process] = {
    "VP": ss.VP(),
    "VP-cosine": ss.VP(ss.Cosine()),
    "SubVP": ss.SubVP(),
    "VE": ss.VE(ss.Geometric(0.01, 100.0)),
    "EDM": ss.EDM(),
    "Interpolant": ss.Interpolant(),
    "Linear": ss.LinearProcess(lambda t: -_beta(t) / 2, lambda t: _beta(t).sqrt()),
    "Custom": ss.CustomProcess(lambda t: 1 - t**2, lambda t: t, t_max=0.99),
}
MEANS = torch.tensor([[1.2, 0.0], [-0.6, 1.0], [-0.6, -1.0]], dtype=torch.float64)


def measured(model: ss.Oracle) -> ss.Oracle:
    r"""The model with statistics by noise level beside its exact moments."""

    model.moments = ss.statistics(model, model.data(256, seed=0), levels=40, samples=256)
    return model


def gaussian(process: ss.Process) -> ss.GaussianOracle:
    covariance = torch.tensor([[0.30, 0.10], [0.10, 0.20]], dtype=torch.float64)
    mean = torch.tensor([0.5, -0.3], dtype=torch.float64)
    return measured(ss.GaussianOracle(mean, covariance, process))


def mixture(process: ss.Process) -> ss.MixtureOracle:
    return measured(ss.MixtureOracle(MEANS, 0.3, process=process))


def quantile(process: ss.Process) -> ss.QuantileOracle:
    rotation = torch.linalg.qr(
        torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )[0]
    means = torch.tensor([[-1.0, 1.0], [-0.4, 0.9], [0.0, 0.3]], dtype=torch.float64)
    stds = torch.tensor([[0.2, 0.3], [0.4, 0.2], [0.3, 0.5]], dtype=torch.float64)
    weights = torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.6, 0.4]], dtype=torch.float64)
    return ss.QuantileOracle(means, stds, weights, rotation, process)
