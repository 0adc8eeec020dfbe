r"""Models of several experts: their flow in closed form, and their files."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.networks import UNet

EDGE, LOW, HIGH = (
    0.5,
    0.3,
    1.0,
)  # the noise level between experts, and the deviations of their data
START, END = 80.0, 0.01


def two() -> tuple[ss.ScoreModel, ss.GaussianOracle, ss.GaussianOracle]:
    low, high = (ss.GaussianOracle(torch.zeros(3).double(), std) for std in (LOW, HIGH))
    return ss.guidance.experts([low, high], [EDGE]), low, high


def noise(count: int = 4) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return START * torch.randn(count, 3, generator=draw, dtype=torch.float64)


def scale() -> float:
    r"""The factor by which the flow shrinks noise at 80 on its way to 0.01: by each expert on its side."""

    def radius(std: float, level: float) -> float:
        return math.hypot(std, level)

    return radius(HIGH, EDGE) / radius(HIGH, START) * radius(LOW, END) / radius(LOW, EDGE)


def test_adaptive_runs_take_the_jump_within_their_tolerance() -> None:
    both, _, _ = two()
    z, options = noise(), {"solver": "exponential", "rtol": 1e-5, "atol": 1e-5, "t_min": END}
    found = ss.decode(both, z, denoise=False, **options)
    assert torch.allclose(found.x, scale() * z, rtol=1e-4, atol=1e-4)
    back = ss.encode(both, found.x, **options)
    assert torch.allclose(back.x, z, rtol=1e-3, atol=1e-2)


def test_likelihoods_state_the_error_that_the_jump_makes() -> None:
    both, _, _ = two()
    x = 0.3 * noise() / START
    found = ss.log_likelihood(both, x, rtol=1e-5, atol=1e-5, t_min=END)
    want = both.process.prior_log_prob(x / scale()) - 3 * math.log(scale())
    assert bool(((found.nats - want).abs() < found.total).all())
    finer = ss.log_likelihood(both, x, rtol=1e-5, atol=1e-5, t_min=END, nodes=256)
    assert bool(((finer.nats - want).abs() < finer.total).all())
    assert float((finer.nats - want).abs().max()) < float((found.nats - want).abs().max()) / 2


def test_two_runs_that_meet_at_the_edge_keep_their_order() -> None:
    r"""A step that begins at the jump would see the wrong expert there."""

    both, low, high = two()
    z, errors = noise(), []
    common = {"solver": "dpmpp_2m", "grid": "log_snr", "denoise": False}
    for steps in (8, 16):
        above = ss.decode(high, z, steps=steps, t_min=EDGE, **common).x
        found = ss.decode(low, above, steps=steps, t_max=EDGE, t_min=END, **common).x
        errors.append(float((found - scale() * z).abs().max()))
    whole = ss.decode(both, z, steps=32, t_min=END, **common).x
    assert errors[0] / errors[1] > 3
    assert errors[1] < float((whole - scale() * z).abs().max())


def test_experts_that_agree_are_one_model() -> None:
    one = ss.GaussianOracle(torch.zeros(3).double(), 0.7)
    both = ss.guidance.experts([one, one], [EDGE])
    for options in ({"solver": "unipc", "steps": 6}, {"solver": "ancestral", "steps": 6}):
        assert torch.equal(ss.sample(both, 4, **options).x, ss.sample(one, 4, **options).x)


def test_levels_of_two_experts_are_those_of_one_network() -> None:
    levels, process = ss.losses.levels, ss.EDM()
    whole = levels.LogNormal(-1.2, 1.2)
    parts = [levels.Between(whole, ends) for ends in ((0.0, EDGE), (EDGE, math.inf))]
    log_snr = torch.linspace(-4, 6, 41, dtype=torch.float64)
    edge = whole.share(process, torch.tensor(-math.log(EDGE)))
    mixed = edge * parts[0].density(process, log_snr) + (1 - edge) * parts[1].density(
        process, log_snr
    )
    assert torch.allclose(mixed, whole.density(process, log_snr))
    shares = torch.tensor([0.0, 1.0])
    assert float(torch.exp(-parts[0].log_snr(process, shares))[1]) == pytest.approx(EDGE)
    assert float(torch.exp(-parts[1].log_snr(process, shares))[0]) == pytest.approx(EDGE)
    with pytest.raises(ValueError, match="holds none of the noise levels"):
        levels.Between(whole, (1e5, 1e6)).log_snr(process, shares)


def networks(settings: dict[str, object]) -> ss.ScoreModel:
    parts = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = UNet(**settings).double().eval()
        torch.nn.init.normal_(network.last[-1].weight, std=0.1)
        parts.append(ss.NetworkScore(network, ss.EDM(), "edm", shape=(1, 4, 4), data_std=0.6))
    return ss.guidance.experts(parts, [EDGE])


def test_files_hold_all_experts(tmp_path: Path) -> None:
    settings = {"width": 8, "multipliers": [1], "blocks": 1}
    model = networks(settings)
    card = {"name": "pair", "network": {"settings": settings}}
    file = ss.save(model, tmp_path / "pair", card, dtype=torch.float64)
    for known in (ss.load(file), ss.load(tmp_path), ss.load(tmp_path / "pair")):
        x = torch.randn(3, 1, 4, 4).double()
        t = torch.tensor([0.1, EDGE, 2.0])
        assert torch.equal(known.denoise(x, t), model.denoise(x, t))
        assert known.card["name"] == "pair"
    again = ss.save(known, tmp_path / "again" / "pair", known.card, dtype=torch.float64)
    assert torch.equal(ss.load(again).denoise(x, t), model.denoise(x, t))
    s = ss.sample(known, 2, steps=3)
    assert s.x.shape == (2, 1, 4, 4)


def test_exact_experts_are_saved_with_their_digits(tmp_path: Path) -> None:
    both, _, _ = two()
    again = ss.load(ss.save(both, tmp_path / "two"))
    x, t = noise(2), torch.tensor([0.2, 3.0])
    assert torch.equal(again.denoise(x, t), both.denoise(x, t))


@pytest.mark.parametrize("levels", [[], [0.0], [2.0, 1.0], ["1"], 0.5, [1.0] * 2])
def test_damaged_cards_are_refused(levels: object, tmp_path: Path) -> None:
    file = ss.save(two()[0], tmp_path / "two")
    file.write_text(json.dumps({"experts": levels}))
    with pytest.raises(ValueError, match="experts"):
        ss.load(file)


def test_missing_experts_and_other_guidance_are_named(tmp_path: Path) -> None:
    both, low, high = two()
    file = ss.save(both, tmp_path / "two")
    (tmp_path / "two_experts" / "1.json").unlink()
    with pytest.raises(FileNotFoundError, match="two_experts"):
        ss.load(file)
    with pytest.raises(TypeError, match="guided or conditioned"):
        ss.save(ss.guidance.within(low, high, (0.1, 1.0)), tmp_path / "within")
