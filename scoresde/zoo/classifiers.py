r"""Loading and saving of classifiers of noisy data, in files like those of models."""

from pathlib import Path

import torch

from solvers.doors.signatures import checked
from solvers.doors.values import as_device

from ..files import Json
from ..guidance.noisy_classifier import Classifier
from .build import CLASSIFIER, check_card
from .files import EMBEDDED, described, open_card, read_weights
from .processes import described_process, take_process
from .weights import build_network
from .write import write_model

FOLDER = EMBEDDED / "classifiers"


class CardClassifier(Classifier):
    r"""A classifier with the card that describes it.

    Attributes:
        card: The card.
        fingerprint: The identifier of its weights.
    """

    card: Json
    fingerprint: str


@checked
def load_classifier(
    name: str | Path, *, device: torch.device | str | None = None
) -> CardClassifier:
    r"""Returns an embedded classifier, or the classifier in a file.

    Arguments:
        name: The name of an embedded classifier ("digits" for clean digits, or "digits_noisy" for any noise
            level), or a path, as for :func:`scoresde.load`.
        device: The device. By default, the CPU.

    Raises:
        FileNotFoundError: If there is no such classifier.
        ValueError: If the files are not a classifier, or are damaged.

    Examples:
        >>> classifier = ss.load_classifier("digits")
        >>> classifier(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    device = as_device("device", device)
    card_file, card = open_card(name, FOLDER, CLASSIFIER)
    tensors, fingerprint = read_weights(card_file)
    with described(card_file):
        check_card(card, CLASSIFIER)
        process = take_process(tensors, card["process"])
        network = build_network(card, tensors)
        low, high = card["levels"]
        classes = card["network"]["settings"].get("classes", 0)
        found = CardClassifier(
            network, process, data_std=card["data_std"], levels=(low, high), classes=classes
        )
    found.card, found.fingerprint = card, fingerprint
    return found.requires_grad_(False).to(device or "cpu")


@checked
def save_classifier(
    classifier: Classifier,
    file: str | Path,
    card: Json,
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    r"""Writes a classifier to `file.safetensors` and `file.json`.

    Arguments:
        classifier: The classifier, whose network is one of :mod:`scoresde.networks`.
        file: The path, without suffix.
        card: The entries of the card: the network's name and settings, as for :func:`scoresde.save`, and further
            ones.
        dtype: The dtype of the weights, as for :func:`scoresde.save`.

    Returns:
        The path of the card.

    Examples:
        >>> digits = ss.load_classifier("digits")
        >>> ss.save_classifier(digits, folder / "copy", digits.card).name
        'copy.json'
    """

    process, table = described_process(classifier.process)
    card = {
        **card,
        "process": process,
        "data_std": classifier.data_std,
        "levels": list(classifier.levels),
    }
    return write_model(classifier.network, Path(file), card, table, CLASSIFIER, dtype)
