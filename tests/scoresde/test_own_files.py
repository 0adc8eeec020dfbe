r"""What users own in files: processes, transforms, exact models and classes of models; the dtype of weights."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import scoresde as ss
from scoresde.processes.tables import TabulatedProcess, tabulated

HERE = __name__
SETTINGS = {"channels": 1, "width": 8, "multipliers": [1], "blocks": 1}
CARD = {"network": {"settings": SETTINGS}}


def cubic() -> ss.NonlinearProcess:
    return ss.NonlinearProcess(lambda x, t: -torch.tanh(x), 1.0, t_max=2.0)


def steeper(power: float = 1.0) -> ss.CustomProcess:
    return ss.CustomProcess(lambda t: 1 - t**power, lambda t: t**power, t_max=0.99)


class Shrink(ss.ScoreModel):
    r"""The model of normal data with a mean that is a parameter, and a deviation that is a setting."""

    conditions = ()

    def __init__(self, std: float, process: ss.Process) -> None:
        super().__init__()
        self.std, self.process, self.shape, self.data_scale = std, process, (2,), std
        self.settings = {"std": std}
        self.mean = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (scale.to(x)[..., None] for scale in self.process.scales(t))
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean.to(x) + gain * (x - alpha * self.mean.to(x))


class Fixed(Shrink):
    r"""The same, which makes its process itself, and forgets a setting."""

    def __init__(self, std: float = 1.0) -> None:
        super().__init__(std, ss.VP())
        self.settings = {}


def unet(process: ss.Process, transform: ss.Transform | None = None) -> ss.NetworkScore:
    torch.manual_seed(0)
    network = ss.networks.UNet(**SETTINGS).double()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    model = ss.NetworkScore(network.eval(), process, "noise", shape=(1, 4, 4), data_scale=1.0)
    model.transform = transform
    return model


def edited(card_file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    card = json.loads(card_file.read_text())
    change(card)
    card_file.write_text(json.dumps(card))
    return card_file


# ---- processes


class Bent(ss.Process, constant=True):
    r"""A process of one's own class, with alpha = 1 / (1 + t) and sigma = t / (1 + t)."""

    t_min, t_max = 0.01, 90.0
    grid = "rho"

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.log1p(t), t.log() - torch.log1p(t)

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr).clamp(self.t_min, self.t_max)


class Wavy(ss.processes.schedules.Schedule, constant=True):
    r"""A schedule of one's own: log_snr = 5 - 10 t + sin(3 t) / 2."""

    domain = (0.0, 1.0)

    def __call__(self, t: Tensor) -> Tensor:
        return 5 - 10 * t + torch.sin(3 * t) / 2

    def inverse(self, log_snr: Tensor) -> Tensor:
        return ss.processes.schedules.invert(self, log_snr, self.domain)


PROCESSES: dict[str, Callable[[], ss.Process]] = {
    "custom": lambda: ss.CustomProcess(lambda t: 1 - t, lambda t: t, t_max=0.99),
    "linear": lambda: ss.LinearProcess(-1.0, 2.0**0.5, t_max=5.0),
    "jump": lambda: ss.LinearProcess(
        lambda t: torch.where(t < 0.3, -1.0, -9.0),
        lambda t: torch.where(t < 0.3, 2.0, 18.0).sqrt(),
    ),
    "class": Bent,
    "schedule": lambda: ss.VP(Wavy()),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_comes_back_as_a_table(name: str, tmp_path: Path) -> None:
    model = unet(PROCESSES[name]())
    back = ss.load(ss.save(model, tmp_path / "m", CARD, dtype=torch.float64))
    process, again = model.process, back.process
    assert isinstance(again, TabulatedProcess)
    assert (again.t_min, again.t_max, again.grid) == (process.t_min, process.t_max, process.grid)
    draw = torch.Generator().manual_seed(1)
    share = torch.rand(3000, generator=draw, dtype=torch.float64)
    t = process.t_min + (process.t_max - process.t_min) * share
    assert (again.log_snr(t) - process.log_snr(t)).abs().max() < 1e-8
    for mine, its in zip(again.scales(t), process.scales(t), strict=True):
        assert ((mine - its) / its).abs().max() < 1e-8
    for mine, its in zip(again.rates(t), process.rates(t), strict=True):
        assert ((mine - its).abs() <= 1e-5 * its.abs() + 1e-8).all()
    assert (again.time(process.log_snr(t)) - t).abs().max() < 1e-6 * process.t_max
    for solver in ("heun", "dpmpp_2m"):
        run = {"steps": 8, "solver": solver, "dtype": torch.float64}
        x, y = ss.sample(model, 3, **run).x, ss.sample(back, 3, **run).x
        assert (x - y).abs().max() < 1e-6 * x.abs().max()
    once_more = ss.load(ss.save(back, tmp_path / "n", dtype=torch.float64))
    assert once_more.process == again
    assert hash(once_more.process) == hash(again)


def test_a_table_that_misses_its_process_is_refused(tmp_path: Path) -> None:
    def rough(t: Tensor) -> Tensor:  # kinks at 2000 places of no dyadic rational
        return t + 2e-4 * (1 - torch.cos(2 * math.pi * torch.floor(997 * t) / 13)) * (t > 0.2)

    jumps = ss.CustomProcess(lambda t: torch.ones_like(t), rough, t_max=5.0, t_min=0.1)
    with pytest.raises(ValueError, match="more than 32768 pieces at an error of 1e-08"):
        tabulated(jumps)

    class Liar(Bent):  # whose diffusion is not that of its scales
        def diffusion(self, t: Tensor) -> Tensor:
            return 1.01 * super().diffusion(t)

    with pytest.raises(ValueError, match="not saved: the diffusion at t=.* scales?|imply"):
        ss.save(unet(Liar()), tmp_path / "m", CARD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: c["process"].update(grid="x"), "process: 'grid' must be"),
    (lambda c: c["process"].update(levels=[1]), "process: 'levels' must be"),
    (lambda c: c["process"].update(hook=1), "unknown entry 'hook'"),
    (lambda c: c["process"].pop("of"), "it lacks 'of'"),
    (lambda c: c.update(process={"name": f"{HERE}:cubic"}), "its process is made by .*pass trust=True"),
    (lambda c: c.update(process={"name": "os"}), "process: 'name' must be one of VP"),
])  # fmt: skip
def test_entries_of_tables_are_checked(change: Any, words: str, tmp_path: Path) -> None:
    file = ss.save(unet(steeper()), tmp_path / "m", CARD)
    with pytest.raises(ValueError, match=words):
        ss.load(edited(file, change))


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t.update({"process.edges": t["process.edges"].flip(0)}), "ascending order"),
    (lambda t: t.update({"process.edges": t["process.edges"].float()}), "finite numbers in float64"),
    (lambda t: t["process.coefficients"].fill_(torch.nan), "finite numbers in float64"),
    (lambda t: t.update({"process.coefficients": t["process.coefficients"][:, :3]}), "must have shape"),
    (lambda t: t["process.coefficients"].mul_(-1), "log-SNR must decrease"),
    (lambda t: t.pop("process.edges"), "the table has no 'edges'"),
])  # fmt: skip
def test_damaged_tables_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    file = ss.save(unet(steeper()), tmp_path / "m", CARD)
    weights = file.with_suffix(".safetensors")
    tensors = load_file(weights)
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, weights)
    with pytest.raises(ValueError, match=words):
        ss.load(file)


def test_processes_by_their_import_path_need_trust(tmp_path: Path) -> None:
    network = ss.networks.UNet(**SETTINGS).double()
    model = ss.NetworkScore(network.eval(), cubic(), "score", shape=(1, 4, 4))
    with pytest.raises(
        ValueError, match="no scales.*card={'process': {'name': 'module:function'}}"
    ):
        ss.save(model, tmp_path / "m", CARD)
    said = {**CARD, "process": {"name": f"{HERE}:cubic"}}
    file = ss.save(model, tmp_path / "m", said, dtype=torch.float64)
    with pytest.raises(ValueError, match="pass trust=True, which imports and runs it"):
        ss.load(file)
    back = ss.load(file, trust=True)
    run = {"solver": "em", "clock": "t", "grid": "t", "steps": 5}
    assert torch.equal(ss.sample(back, 2, **run).x, ss.sample(model, 2, **run).x)
    custom = unet(steeper(2.0))
    named = {**CARD, "process": {"name": f"{HERE}:steeper", "settings": {"power": 2.0}}}
    assert ss.load(ss.save(custom, tmp_path / "n", named), trust=True).process.t_max == 0.99
    named["process"] = {"name": f"{HERE}:steeper", "settings": {"power": 3.0}}
    with pytest.raises(ValueError, match="its process is CustomProcess.*but the path in the card"):
        ss.save(custom, tmp_path / "n", named)


# ---- transforms


class Doubled(nn.Module):
    r"""A network of complex data."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((width,), 0.7, dtype=torch.float64))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        assert z.is_complex()
        return z * self.gain.to(z)


class Places(Doubled):
    r"""A network of named parts."""

    def forward(self, x: dict[str, Tensor], t: Tensor) -> dict[str, Tensor]:
        return {name: part * self.gain.to(part) for name, part in x.items()}


PARTS = ss.NamedParts({"place": (2,), "turn": (2, 1)})
TRANSFORMS: dict[str, Callable[[], ss.NetworkScore]] = {
    "standardized": lambda: unet(ss.VP(), ss.Standardized(torch.rand(1, 4, 4) * 10, 2.5)),
    "complex": lambda: formed(Doubled(), ss.ComplexPairs(), ss.ComplexPairs(), (4,)),
    "complex, standardized": lambda: formed(
        Doubled(), ss.ComplexPairs(), ss.Standardized(torch.tensor([3 + 1j, 2j]), 0.3, ss.ComplexPairs()), (4,)
    ),
    "parts": lambda: formed(
        Places(), PARTS, ss.Standardized({"place": [1.0, 2.0], "turn": [[3.0], [4.0]]}, 2.0, PARTS), (4,)
    ),
}  # fmt: skip


def formed(network: nn.Module, form: Any, transform: ss.Transform, shape: Any) -> ss.NetworkScore:
    model = ss.NetworkScore(form.network(network), ss.VP(), "noise", shape=shape, data_scale=1.0)
    model.transform = transform
    return model


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_transform_of_a_model_comes_back(name: str, tmp_path: Path) -> None:
    model = TRANSFORMS[name]()
    card = CARD if name == "standardized" else {"network": {"settings": {"width": 1}}}
    back = ss.load(ss.save(model, tmp_path / "m", card, dtype=torch.float64), trust=True)
    s, again = ss.sample(model, 3, steps=4), ss.sample(back, 3, steps=4)
    assert torch.equal(s.x, again.x)
    assert s.x.is_complex() == name.startswith("complex")
    mine, its = (
        ss.log_likelihood(m, s.x, rtol=1e-2, atol=1e-2, divergence="exact") for m in (model, back)
    )
    assert torch.equal(mine.nats, its.nats)
    once_more = ss.load(ss.save(back, tmp_path / "n", dtype=torch.float64), trust=True)
    assert torch.equal(ss.sample(once_more, 3, steps=4).x, s.x)


def test_a_transform_of_ones_own_is_not_saved(tmp_path: Path) -> None:
    class Mine(ss.ComplexPairs):
        pass

    wrong = [Mine(), ss.Standardized(0.0, 1.0, Mine())]
    for transform in wrong:
        with pytest.raises(
            ValueError, match=r"model.transform must be one of.*set it again after ss.load"
        ):
            ss.save(unet(ss.VP(), transform), tmp_path / "m", CARD)
    other = formed(Doubled(), ss.ComplexPairs(), ss.Standardized(0.0, 1.0), (4,))
    with pytest.raises(ValueError, match="model.transform must have this form"):
        ss.save(other, tmp_path / "m", {"network": {"settings": {"width": 1}}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("change", "words"), [
    (lambda c, t: c["transform"].update(name="os:system"), "transform: 'name' must be one of"),
    (lambda c, t: c["transform"].update(form={"name": "Standardized"}), "form: 'name' must be one of"),
    (lambda c, t: c["transform"].update(form={"name": "NamedParts", "shapes": {"a": [-1]}}), "'shapes' must be"),
    (lambda c, t: c["transform"].update(form={"name": "NamedParts", "shapes": {"a": [7]}}), "states have shape"),
    (lambda c, t: c["transform"].update(form={"name": "ComplexPairs"}), "even number of entries"),
    (lambda c, t: c["network"].update(form=True), "'form' must be false"),
    (lambda c, t: t["transform.std"].neg_(), "std must be positive"),
    (lambda c, t: t["transform.mean"].fill_(torch.inf), "mean must be finite"),
    (lambda c, t: t.update({"transform.mean": torch.zeros(3)}), "shape"),
    (lambda c, t: t.pop("transform.mean"), "its tensors must be mean, std"),
    (lambda c, t: c.pop("transform"), "'transform.mean' .*is not in its card"),
])  # fmt: skip
def test_damaged_transforms_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    file = ss.save(unet(ss.VP(), ss.Standardized(torch.zeros(1, 4, 4), 2.0)), tmp_path / "m", CARD)
    tensors = load_file(file.with_suffix(".safetensors"))
    edited(file, lambda card: change(card, tensors))
    save_file(tensors, file.with_suffix(".safetensors"))
    with pytest.raises(ValueError, match=words):
        ss.load(file)


# ---- models by their class


def spread(seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, generator=draw, dtype=torch.float64)


COVARIANCE = torch.tensor([[0.30, 0.10], [0.10, 0.20]], dtype=torch.float64)
ORACLES: dict[str, Callable[[ss.Process], ss.ScoreModel]] = {
    "gaussian": lambda p: ss.GaussianOracle(spread(0)[0], COVARIANCE, p),
    "mixture": lambda p: ss.MixtureOracle(spread(0), COVARIANCE.expand(3, 2, 2), [0.2, 0.3, 0.5], p),
    "images": lambda p: ss.MixtureOracle(spread(0).reshape(3, 1, 1, 2), 0.3, None, p),
    "kernel": lambda p: ss.KernelOracle(spread(0), 0.2, p),
    "labels": lambda p: ss.KernelOracle(spread(0), 0.2, p, labels=[0, 1, 1]),
    "quantile": lambda p: ss.QuantileOracle(
        spread(0)[:2], spread(1)[:2].exp(), spread(2)[:2].exp(), torch.linalg.qr(spread(3)[:2])[0], p
    ),
    "uniform": lambda p: ss.UniformOracle([[0.0, -1.0]], [[2.0, 1.5]], p),
    "single": lambda p: ss.GaussianOracle(spread(0)[0].float(), 0.5, p),
}  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
def test_exact_models_come_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = ORACLES[name](ss.VP())
    model.transform = ss.Standardized(5.0, 3.0)
    back = ss.load(ss.save(model, tmp_path / "m"))
    assert type(back) is type(model)
    assert back.process == model.process
    facts = ("data_std", "data_scale", "finest", "shape", "conditions")
    assert all(getattr(back, fact) == getattr(model, fact) for fact in facts)
    assert torch.equal(back.moments.variances, model.moments.variances)
    given = {"label": torch.tensor([1])} if model.conditions else {}
    s = ss.sample(model, 4, steps=5, **given)
    assert torch.equal(ss.sample(back, 4, steps=5, **given).x, s.x)
    t = float(s.times[-1])
    assert torch.equal(back.log_density(s.x, t), model.log_density(s.x, t))
    assert torch.allclose(back.data(5), model.data(5), rtol=1e-6)
    assert ss.load(ss.save(back, tmp_path / "n")).card == back.card


def test_damaged_exact_models_are_refused(tmp_path: Path) -> None:
    def refused(change: Callable[[dict[str, Any], dict[str, Tensor]], object], words: str) -> None:
        file = ss.save(ORACLES["mixture"](ss.VP()), tmp_path / "m")
        tensors = load_file(file.with_suffix(".safetensors"))
        edited(file, lambda card: change(card, tensors))
        save_file(tensors, file.with_suffix(".safetensors"))
        with pytest.raises(ValueError, match=words):
            ss.load(file)

    refused(lambda c, t: t["values"].neg_(), "'values' of a MixtureOracle must be positive")
    refused(lambda c, t: t["means"].fill_(torch.nan), "means must be finite")
    refused(lambda c, t: t.update(means=torch.zeros(10**6, 1)), "'vectors'.*must have shape")
    refused(lambda c, t: t.pop("means"), "'?means'?")
    refused(lambda c, t: t.pop("log_weights"), "log_weights")
    refused(lambda c, t: c["model"].update(name="os:system"), "pass trust=True")
    refused(lambda c, t: c["model"].update(name="Oracle"), "model: 'name' must be one of Gaussian")
    refused(lambda c, t: c["model"].update(settings={"width": 3}), "unexpected|settings")
    refused(lambda c, t: c.update(process=None), "must have a 'process'")
    refused(lambda c, t: c.update(data_std=-1), "'data_std' must be a positive number")
    refused(lambda c, t: c.pop("model"), "it lacks .*network")


def test_a_class_of_ones_own_is_made_by_its_settings(tmp_path: Path) -> None:
    model = Shrink(0.5, steeper(2.0))
    model.mean.data += 2.0
    file = ss.save(model, tmp_path / "m")
    with pytest.raises(ValueError, match=f"its model is made by '{HERE}:Shrink'.*pass trust=True"):
        ss.load(file)
    back = ss.load(file, trust=True)
    x = ss.sample(back, 400, steps=10, dtype=torch.float64).x
    assert (x - ss.sample(model, 400, steps=10, dtype=torch.float64).x).abs().max() < 1e-6
    assert x.mean() == pytest.approx(2.0, abs=0.1)
    assert back.data_scale == 0.5
    del model.settings
    with pytest.raises(ValueError, match="give it an attribute `settings`"):
        ss.save(model, tmp_path / "n")
    ss.save(model, tmp_path / "n", {"model": {"settings": {"std": 0.5}}})
    with pytest.raises(ValueError, match="the card makes a model with data_scale|other estimates"):
        ss.save(model, tmp_path / "n", {"model": {"settings": {"std": 0.4}}})
    assert ss.load(ss.save(Fixed(), tmp_path / "o"), trust=True).card["process"] is None
    forgot = Fixed(2.0)
    forgot.data_scale = 1.0
    with pytest.raises(ValueError, match="the card makes a model with other estimates"):
        ss.save(forgot, tmp_path / "o")


def test_wrappers_are_not_saved(tmp_path: Path) -> None:
    model = ss.MixtureOracle([[-1.0], [1.0]], 0.5)
    with pytest.raises(
        TypeError, match="for a guided or conditioned model, save the model that it"
    ):
        ss.save(model.given(label=torch.tensor([1])), tmp_path / "m")


# ---- the dtype of weights


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_loaded_in_the_dtype_one_chooses(dtype: torch.dtype, tmp_path: Path) -> None:
    model = unet(ss.VP())
    file = ss.save(model, tmp_path / "m", CARD, dtype=torch.float64)
    back = ss.load(file, dtype=dtype)
    for mine, its in zip(back.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, its.to(dtype))
    x, t = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(2, 1, 4, 4), torch.tensor(0.4)
    wanted, found = model.noise(x, t), back.noise(x, t)
    assert found.dtype is torch.float64
    gap = (found - wanted).norm() / wanted.norm()
    assert gap < 30 * torch.finfo(dtype).eps
    narrow = ss.save(model, tmp_path / "n", CARD, dtype=dtype)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    assert next(ss.load(narrow).parameters()).dtype is wide
    assert torch.equal(
        torch.cat([p.flatten() for p in ss.load(narrow, dtype=torch.float64).parameters()]),
        torch.cat([p.to(dtype).double().flatten() for p in model.parameters()]),
    )


def test_a_dtype_that_cannot_hold_the_weights_is_refused(tmp_path: Path) -> None:
    model = unet(ss.VP())
    with torch.no_grad():
        next(model.parameters()).fill_(1e6)
    file = ss.save(model, tmp_path / "m", CARD)
    with pytest.raises(ValueError, match="goes to 1e.06, beyond torch.float16; pass dtype="):
        ss.load(file, dtype=torch.float16)
    with pytest.raises(ValueError, match="dtype must be one of torch.float16"):
        ss.load(file, dtype=torch.int8)


class Halved(ss.NetworkScore):
    r"""Of a network, but not what the network says."""

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return super().denoise(x, t, **condition) / 2


def test_what_a_subclass_changes_is_not_lost_in_silence(tmp_path: Path) -> None:
    digits = ss.load("digits")
    own = Halved(digits.network, digits.process, digits.predicts, shape=(1, 8, 8))
    with pytest.raises(ValueError, match="settings that make a Halved are not known"):
        ss.save(own, tmp_path / "m", digits.card)
    assert not list(tmp_path.iterdir())
