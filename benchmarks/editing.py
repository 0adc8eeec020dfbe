r"""Edits of held-out digits: do they show what was asked, how far did they go, and does the way lead back?

200 held-out digits become the digit five further on, by the embedded network, 12 steps each way. A classifier trained on the training digits says what they
show; the distance is that to the source per pixel, of a range of 2; "held" is the error of an edit towards the label that the digit has already.

    python -m benchmarks.editing
"""

import torch
from torch import Tensor

import scoresde as ss
from scoresde.training.digits_data import CLASSES, digits

from .report import save

COUNT, STEPS = 200, 12
GUIDED = 3.0
DOUBLY = {"solver": "exponential_2"}
METHODS: dict[str, dict] = {
    "encode": DOUBLY,
    "encode, exactly reversible": {"method": "encode", "solver": "lattice_heun"},
    "noise": DOUBLY,
    "noise_path": {},
    "noise_path, independent": {"method": "noise_path", "chain": "independent"},
    "flow": {},
    "flow, 2 averages": {"method": "flow", "averages": 2},
    "null": {},
}
CASES = (
    *(("encode", False, level) for level in (1.0, 4.0)),
    *((name, False, 2.0) for name in METHODS if name != "null"),
    *((name, True, 2.0) for name in ("encode", "noise_path", "flow", "null")),
)


def models(model: ss.ScoreModel, label: Tensor, guided: bool) -> ss.ScoreModel:
    return ss.classifier_free(model, GUIDED, label=label) if guided else model.given(label=label)


def figure(name: str, guided: bool, level: float, classify) -> dict:
    model, test = ss.load("digits"), digits("test")
    x, label = test.images[:COUNT], test.labels[:COUNT]
    options = {"method": name, "steps": STEPS, "noise_level": level, **METHODS[name]}
    if name == "null":
        options["pivot"] = model.given(label=label)
    goal = (label + 5) % CLASSES
    # guidance is for the way to the target: up goes the model itself, but for what compares two guided flows
    source = models(model, label, guided and options["method"] in ("flow", "null"))
    e = ss.edit(source, models(model, goal, guided), x, **options)
    held = ss.edit(source, models(model, label, guided), x, **options)
    return {
        "method": name, "scale": GUIDED if guided else 1.0, "noise level": level, "calls": int(e.calls.max()),
        "shows the target": (classify(e.x) == goal).double().mean().item(),
        "shows the source": (classify(e.x) == label).double().mean().item(),
        "distance to the source": rms(e.x - x), "held": rms(held.x - x),
    }  # fmt: skip


def rms(x: Tensor) -> float:
    return x.double().flatten(1).square().mean(1).sqrt().mean().item()


def main() -> None:
    torch.set_num_threads(2)
    from sklearn.svm import SVC

    train = digits("train")
    machine = SVC(C=10.0).fit(train.images.flatten(1).numpy(), train.labels.numpy())

    def classify(x: Tensor) -> Tensor:
        return torch.from_numpy(machine.predict(x.float().flatten(1).numpy()))

    save("editing", [figure(*case, classify) for case in CASES], samples=COUNT)


if __name__ == "__main__":
    main()
