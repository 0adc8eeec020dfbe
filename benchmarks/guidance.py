r"""Guidance by scale: do samples show the label, how diverse are they, how far from digits?

200 digits of the embedded network with ten labels, 12 steps of "dpmpp_2m" unless said otherwise. A support vector machine
trained on the training digits says what they show. Coverage is the share of held-out digits that have a sample nearer than
their 5th neighbour among the held-out ones; entropy is that of the samples over 40 clusters of the training digits; both are
less where samples are alike. Four sets of training digits come first: they say what real digits have among themselves.

    python -m benchmarks.guidance
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import scoresde as ss
from scoresde import guidance, plots
from scoresde.metrics import energy_distance
from scoresde.training.digits import train_digits
from scoresde.training.digits_data import CLASSES, digits
from solvers import Solution, counting

from .gallery import PICTURES
from .report import save

COUNT, STEPS, SOLVER = 200, 12, "dpmpp_2m"
LABEL = torch.arange(COUNT) % CLASSES
NEIGHBOURS, CLUSTERS = 5, 40
HIGHEST = 10.0  # noise level above which derivatives of the network are those of its errors
WEAK = 150  # steps of training of the weak model
SCALES = (2.0, 4.0, 8.0)
SHOWN = (("classifier_free", 1.0), ("classifier_free", 4.0), ("classifier_free", 8.0), ("interval 0.3 to 5", 8.0),
         ("projected", 8.0), ("rescaled", 8.0), ("classifier", 4.0), ("universal, recurrent", 2.0))  # fmt: skip
Make = Callable[[float], ss.ScoreModel]
Case = tuple[str, float | None, ss.ScoreModel, dict[str, Any]]


def cases() -> Iterator[Case]:
    r"""Names, scales, models, and options that differ."""

    model = ss.load("digits")
    bound, clean, noisy = (
        model.given(label=LABEL),
        ss.load_classifier("digits"),
        ss.load_classifier("digits_noisy"),
    )
    weak = weak_model().given(label=LABEL)
    times = ss.sample(model, 1, solver="ddim", steps=STEPS).times

    def free(scale: float, **options: Any) -> ss.ScoreModel:
        return ss.classifier_free(model, scale, label=LABEL, **options)

    def below(guided: ss.ScoreModel) -> ss.ScoreModel:
        return guidance.within(guided, model, (0.0, HIGHEST))

    def universal(scale: float) -> ss.ScoreModel:
        return below(guidance.universal(model, clean.loss, scale, max_level=HIGHEST, label=LABEL))

    ways: dict[str, tuple[tuple[float, ...], Make, dict[str, Any]]] = {
        "classifier_free": ((1.0, *SCALES), free, {}),
        "interval 0.3 to 5": (SCALES, lambda w: free(w, interval=(0.3, 5.0)), {}),
        "projected": (SCALES, lambda w: guidance.adaptive_projected(bound, model, w), {}),
        "zero_star": (SCALES, lambda w: guidance.zero_star(bound, model, w), {}),
        "rescaled": (SCALES[1:], lambda w: guidance.rescaled(free(w), bound), {}),
        "thresholded": (SCALES[1:], lambda w: guidance.thresholded(free(w), 1.0, 0.995), {}),
        "autoguidance": (SCALES, lambda w: guidance.autoguidance(bound, weak, w), {}),
        "feedback, share": ((0.95, 0.8, 0.6), lambda p: guidance.feedback(model, noisy.log_ratio, p, label=LABEL), {}),
        "plus_plus, ddim": ((0.3, 0.6, 1.0), lambda w: guidance.plus_plus(model, w, times, label=LABEL),
                            {"solver": "ddim", "times": times}),
        "classifier": ((1.0, *SCALES), lambda w: guidance.classifier(model, noisy.log_prob, w, label=LABEL), {}),
        "universal": ((1.0, 2.0), universal, {}),
        "universal, recurrent": ((1.0, 2.0), universal, {"solver": "recurrent:repeats=3"}),
        "optimised": ((0.1, 0.5), lambda w: below(guidance.optimised(model, clean.loss, w, label=LABEL)), {}),
    }  # fmt: skip
    yield "no guidance, no label", None, model, {}
    for name, (scales, make, options) in ways.items():
        for scale in scales:
            yield name, scale, make(scale), options


def weak_model() -> ss.ScoreModel:
    r"""The digits model after a few steps of training."""

    return train_digits(steps=WEAK).model


def judge() -> Callable[[Tensor, Tensor], dict[str, float]]:
    r"""What says of samples what they show, how diverse they are, and how far from digits."""

    from sklearn.cluster import KMeans
    from sklearn.svm import SVC

    train, test = digits("train"), digits("test")
    flat = train.images.flatten(1).numpy()
    machine = SVC(C=10.0).fit(flat, train.labels.numpy())
    clusters = KMeans(CLUSTERS, n_init=4, random_state=0).fit(flat)
    real = test.images.flatten(1)
    reach = torch.cdist(real, real).kthvalue(NEIGHBOURS + 1, dim=1).values

    def figures(x: Tensor, label: Tensor) -> dict[str, float]:
        samples = x.float().flatten(1)
        said = torch.from_numpy(machine.predict(samples.numpy()))
        shares = torch.bincount(
            torch.from_numpy(clusters.predict(samples.numpy())).long(), minlength=CLUSTERS
        ) / len(x)
        return {
            "shows the label": (said == label).double().mean().item(),
            "coverage": (torch.cdist(real, samples).min(1).values < reach).double().mean().item(),
            "entropy": torch.special.entr(shares).sum().item(),
            "energy distance": energy_distance(x, test.images),
            "deviation": x.std().item(),
        }

    return figures


def real(figures: Callable[[Tensor, Tensor], dict[str, float]]) -> Iterator[dict[str, Any]]:
    r"""The same of as many training digits, four times: they differ by chance alone."""

    train, some = digits("train"), COUNT // CLASSES
    each = [(train.labels == k).nonzero()[:, 0] for k in range(CLASSES)]
    for part in range(4):
        index = torch.cat([rows[part * some : (part + 1) * some] for rows in each])
        yield {"method": f"training digits, {part + 1}", "scale": None, "calls": None, "backward": None,
               **figures(train.images[index], train.labels[index])}  # fmt: skip


def drawn(model: ss.ScoreModel, options: dict[str, Any]) -> Solution:
    r"""Samples of a case."""

    steps = {} if "times" in options else {"steps": STEPS}
    return ss.sample(model, COUNT, **{"solver": SOLVER, **steps, **options})


def picture() -> None:
    r"""The first twenty samples of the cases that are shown."""

    shown = {
        f"{name} {scale:g}": drawn(model, options).x[:20]
        for name, scale, model, options in cases()
        if (name, scale) in SHOWN
    }
    plots.images(PICTURES / "guidance.png", shown, columns=20, across=1)


def main() -> None:
    torch.set_num_threads(2)
    figures, rows = judge(), []
    rows += real(figures)
    for name, scale, model, options in cases():
        with counting() as counter:
            s = drawn(model, options)
        rows.append({"method": name, "scale": scale, "calls": int(s.calls.max()), "backward": counter.backward,
                     **figures(s.x, LABEL)})  # fmt: skip
        print(rows[-1])
    save("guidance", rows, samples=COUNT)
    picture()


if __name__ == "__main__":
    main()
