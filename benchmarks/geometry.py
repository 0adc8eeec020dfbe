r"""The pictures of the pages on guidance and its geometry, of a mixture in the plane and of the embedded digits.

python -m benchmarks.geometry
"""

import torch
from sklearn.datasets import load_sample_images

import scoresde as ss
from scoresde import geometry, guidance, plots
from scoresde.training.digits_data import digits

from .gallery import PICTURES
from .report import save

MEANS, STDS = [[-1.5, 0.3], [0.9, 1.1], [1.2, -0.9]], [0.3, 0.25, 0.35]
ONE, THREE = torch.tensor([2]), torch.tensor([3])
PATCH = 64
DIMENSIONS, ALONG, JACOBIANS = (
    "what two dimensions get wrong",
    "along sampling",
    "derivatives of the network",
)
STEP, OPTIONS = 7, {"solver": "ancestral", "steps": 16, "grid": "rho", "seed": 1}
NEAR = {
    **OPTIONS,
    "seed": 15,
}  # whose states stay near the data, so that pictures of the plane show both


def flat() -> None:
    r"""A mixture of three, guided towards one of them by several methods."""

    model = ss.MixtureOracle(torch.tensor(MEANS), torch.tensor(STDS), process=ss.EDM())
    bound = model.given(label=ONE)

    def log_prob(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        parts = [
            ss.MixtureOracle(torch.tensor([m]), s, process=model.process)
            for m, s in zip(MEANS, STDS, strict=True)
        ]
        return torch.stack([part.log_prob(x, t) for part in parts], 1).log_softmax(1)[
            torch.arange(len(x)), label
        ]

    ways = {
        "free": ss.classifier_free(model, 3.0, label=ONE),
        "interval": ss.classifier_free(model, 3.0, interval=(0.2, 2.0), label=ONE),
        "projected": guidance.adaptive_projected(bound, model, 3.0),
        "classifier": guidance.classifier(model, log_prob, 3.0, label=ONE),
    }
    t = geometry.follow(ways.pop("free"), 1, **NEAR)
    plots.geometry(PICTURES / "geometry_free.png", t, step=STEP)
    plots.geometry(PICTURES / "geometry.gif", t)
    for name, guided in ways.items():
        t = geometry.follow(guided, 1, **NEAR)
        plots.geometry(PICTURES / f"geometry_{name}_way.png", t)


def picture() -> geometry.Trajectory:
    r"""A three of the embedded digits, in the plane of a step; lengths and angles of 32, which it returns; a film."""

    model = ss.load("digits")
    guided = ss.classifier_free(model, 3.0, label=THREE)
    t = geometry.follow(guided, 32, **{**OPTIONS, "steps": 24})
    plots.geometry(PICTURES / "geometry_digits.png", t, step=13)
    plots.trajectory(PICTURES / "trajectory.png", t)
    plots.film(PICTURES / "film.png", t)
    return t


def images() -> list[dict]:
    r"""Draws them, and returns the figures of the page."""

    model, t = ss.load("digits"), picture()
    rows = [{"table": DIMENSIONS, "claim": c.name, "2 dimensions": c.flat, "64 dimensions": c.here}
            for c in geometry.high_dimensions(t)]  # fmt: skip
    rows += [{"table": ALONG, **row} for row in geometry.measure(t)]
    levels = (80.0, 30.0, 10.0, 5.0, 2.0, 1.0)
    rows += [{"table": JACOBIANS, **jacobian(model, level)} for level in levels]
    own = digits("train").images.var(0).mean().item()
    data = {"noise level": "data alone", "mean variance": own, "least": None, "most": None}
    return [*rows, {"table": JACOBIANS, **data}]


def jacobian(model: ss.ScoreModel, level: float) -> dict[str, float]:
    r"""The mean variance of data given its noisy state, as the derivatives of the network have it."""

    x = level * torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = (x + digits("train").images[:8]).requires_grad_()
    D = model.denoise(x, torch.tensor(level))
    trace = torch.zeros(8)
    for entry in range(64):
        (row,) = torch.autograd.grad(D.flatten(1)[:, entry].sum(), x, retain_graph=True)
        trace += level**2 * row.flatten(1)[:, entry] / 64
    return {"noise level": level, "mean variance": trace.mean().item(), "least": trace.min().item(),
            "most": trace.max().item()}  # fmt: skip


def spectra() -> None:
    r"""Of digits and of what the network makes of noise; of photographs."""

    own = geometry.follow(ss.load("digits"), 256, solver="exponential_2", steps=24, grid="rho")
    print(plots.spectrum(PICTURES / "spectrum.png", digits("train").images, followed=own))
    photographs()


def photographs() -> None:
    r"""Grey patches of scikit-learn's two photographs, on [-1, 1]."""

    patches = []
    for photograph in load_sample_images().images:
        grey = torch.tensor(photograph).double().mean(2) / 127.5 - 1
        patches.append(
            grey.unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).reshape(-1, 1, PATCH, PATCH)
        )
    print(
        plots.spectrum(
            PICTURES / "spectrum_photos.png", torch.cat(patches), levels=(0.05, 0.2, 0.8)
        )
    )


def main() -> None:
    torch.set_num_threads(2)
    flat()
    spectra()
    save("geometry", images())


if __name__ == "__main__":
    main()
