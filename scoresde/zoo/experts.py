r"""Models of several experts: a card with the noise levels between them, and one model of its own for each."""

from collections.abc import Mapping
from pathlib import Path

from ..files import Entry, Json, finite
from ..guidance import experts
from ..guidance.guided import Guided
from ..guidance.ranges import Experts
from ..models.score_model import ScoreModel

MOST = 64  # models
KIND = "experts"  # the entry of the card
EXPERTS: Mapping[str, Entry] = {
    KIND: Entry(
        "the noise levels between its models, which rise above 0",
        lambda levels: (
            isinstance(levels, list)
            and 0 < len(levels) < MOST
            and all(map(finite, levels))
            and 0 < levels[0]
            and levels == sorted(set(levels))
        ),
    )
}


def levels_of(model: ScoreModel) -> list[float] | None:
    r"""Returns the noise levels between the experts of a model, or `None` if it does not consist of experts."""

    rule = model.rule if isinstance(model, Guided) else None
    return list(rule.levels) if type(rule) is Experts else None


def part_files(card_file: Path, count: int) -> list[Path]:
    r"""Returns the cards of the experts, in a folder beside the card of the whole.

    Arguments:
        card_file: The card of the whole.
        count: The number of experts.
    """

    folder = card_file.with_name(f"{card_file.stem}_experts")
    return [folder / f"{number}.json" for number in range(count)]


def joined(models: list[ScoreModel], card: Json) -> ScoreModel:
    r"""Returns the model of several experts with its card."""

    model = experts(models, card[KIND])
    model.card = card  # type: ignore[assignment]
    return model
