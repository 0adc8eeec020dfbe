r"""Damaged or edited files are refused by the entry that is wrong; nothing is saved that cannot be read."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import scoresde as ss
from scoresde.networks import UNet
from solvers import Solution

SETTINGS = {"width": 8, "multipliers": [1], "blocks": 1}
CARD = {"network": {"name": "UNet", "settings": SETTINGS}}
Change = Callable[[dict[str, Any]], object]


def small(process: ss.Process | None = None, **options: Any) -> ss.NetworkScore:
    torch.manual_seed(0)
    network = UNet(**SETTINGS).float()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return ss.NetworkScore(network, process or ss.VP(), "noise", shape=(1, 4, 4), **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small()
    model.moments = ss.moments(torch.rand(40, 1, 4, 4, dtype=torch.float64))
    return ss.save(model, tmp_path_factory.mktemp("model") / "m", CARD)


def edited(card: Path, folder: Path, change: Change | None = None, tensors: Any = None) -> Path:
    content, weights = json.loads(card.read_text()), load_file(card.with_suffix(".safetensors"))
    if change is not None:
        change(content)
    if tensors is not None:
        tensors(weights)
    file = folder / "m.json"
    file.write_text(json.dumps(content))
    save_file(weights, folder / "m.safetensors")
    return file


def put(*path: Any) -> Change:
    *names, last, value = path

    def change(content: dict[str, Any]) -> None:
        for name in names:
            content = content[name]
        content[last] = value

    return change


@pytest.mark.parametrize(("change", "words"), [
    *((put("data_std", v), "'data_std' must be a number from") for v in (0, -1, 1e30, True, "1", None)),
    (put("data_std", float("nan")), "'data_std' must be a number from"),
    *((put("process", end, v), f"process: {end!r} must be a finite number")
      for end in ("t_min", "t_max") for v in (float("nan"), float("inf"), "0", None)),
    (put("process", "schedule", "Nothing"), "process: 'schedule' must be one of"),
    (put("process", "name", []), "process: 'name' must be one of"),
    (put("process", "settings", "beta_min", float("nan")), "process: 'settings' must be finite"),
    (put("process", "settings", "beta", 1.0), "beta"),
    (put("conditions", ["label", "label"]), "'conditions' must be names, each once"),
    (put("conditions", "label"), "'conditions' must be names, each once"),
    (put("shape", [1, 0, 4]), "'shape' must be positive whole numbers"),
    (put("shape", [1, 4, 5]), "'mean' of the moments has shape"),
    (put("predicts", "nois"), "'predicts' must be one of"),
    (put("network", "UNet"), "'network' must be its name and settings"),
    (put("network", "name", "nn"), "network: 'name' must be one of MLP, VAE, VQVAE, DiT, Encoder, UNet"),
    (put("network", "settings", "blocks", 10**9), "its settings make more weights than the"),
    (put("network", "settings", "multipliers", [1] * 10**5), "its settings make more weights than"),
    (put("network", "settings", "width", 80_000), "must have the shape of the network"),
    (put("network", "settings", "blocks", 0), "is not in its card"),
    (put("moments", "rest", -1.0), "moments: 'rest' must be a number of at least 0"),
    (put("moments", None), "'moments' must have the 'rest'"),
])  # fmt: skip
def test_a_card_is_refused_by_its_entry(
    saved: Path, tmp_path: Path, change: Change, words: str
) -> None:
    with pytest.raises(
        ValueError, match=r"m\.json does not describe a model of this package"
    ) as e:
        ss.load(edited(saved, tmp_path, change))
    assert words in str(e.value)
    assert len(str(e.value)) < 500


@pytest.mark.parametrize("ends", [(1e-300, 50.0), (0.01, 1e300), (1e-300, 1e300), (0.01, 1e20)])
def test_noise_beyond_all_numbers_is_refused(
    saved: Path, tmp_path: Path, ends: tuple[float, float]
) -> None:
    def change(card: dict[str, Any]) -> None:
        settings = dict(zip(("sigma_min", "sigma_max"), ends, strict=True))
        card["process"] = {"name": "VE", "schedule": "Geometric", "settings": settings}
        card["process"] |= {"t_min": 0.0, "t_max": 1.0}

    with pytest.raises(ValueError, match="must lie between 1e-12 and 1e|no finite log-SNR"):
        ss.load(edited(saved, tmp_path, change))


def scale(name: str, factor: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].float() * factor

    return change


@pytest.mark.parametrize(("change", "words"), [
    (lambda w: w.update({"first.bias": w["first.bias"].long()}), "'first.bias' must hold floating-point"),
    (lambda w: w.update({"first.bias": w["first.bias"].to(torch.complex64)}), "'first.bias' must hold"),
    (lambda w: w.update({"first.bias": w["first.bias"][:3].clone()}), "'first.bias' must have the shape"),
    (lambda w: w.pop("first.bias"), "'first.bias' of UNet with"),
    (scale("first.bias", float("nan")), "'first.bias' must be finite"),
    (scale("moments.basis", 1.1), "the basis must be orthonormal"),
    (lambda w: w["moments.basis"][:, 0].copy_(w["moments.basis"][:, 1]), "the basis must be orthonormal"),
    (scale("moments.mean", float("inf")), "mean must be finite"),
    (scale("moments.variances", float("nan")), "variances must be finite"),
    (lambda w: w.update({"moments.mean": w["moments.mean"].long()}), "'mean' of the moments must hold real"),
    (lambda w: w.pop("moments.variances"), "the moments have no 'variances'"),
])  # fmt: skip
def test_weights_are_refused_by_their_name(
    saved: Path, tmp_path: Path, change: Any, words: str
) -> None:
    with pytest.raises(ValueError, match="does not describe a model of this package") as e:
        ss.load(edited(saved, tmp_path, tensors=change))
    assert words in str(e.value)


def test_weights_beyond_float16_are_kept(tmp_path: Path) -> None:
    r"""Those that float16 cannot hold are float32 in the file, and the model is what it was."""

    model = small()
    with torch.no_grad():
        model.network.first.weight[0, 0, 0, 0] = 1e6
        model.network.time[0].weight.mul_(1e-9)
    x, t = torch.randn(2, 1, 4, 4, dtype=torch.float32), torch.tensor(0.5)
    back = ss.load(ss.save(model, tmp_path / "m", CARD))
    weights = load_file(tmp_path / "m.safetensors")
    assert weights["first.weight"].dtype == weights["time.0.weight"].dtype == torch.float32
    assert weights["last.2.weight"].dtype == torch.float16
    assert torch.equal(back.network.first.weight, model.network.first.weight)
    assert torch.equal(back.network.time[0].weight, model.network.time[0].weight)
    with pytest.raises(ValueError, match=r"'first.weight' goes to 1e\+06, beyond torch.float16"):
        ss.save(model, tmp_path / "n", CARD, dtype=torch.float16)
    for name in ("n.json", "n.safetensors", "n.json.part", "n.safetensors.part"):
        assert not (tmp_path / name).exists()
    exact = ss.load(ss.save(model, tmp_path / "n", CARD, dtype=torch.float32))
    assert torch.equal(exact.denoise(x, t), model.denoise(x, t))
    wide = model.double()
    again = ss.load(ss.save(wide, tmp_path / "w", CARD, dtype=torch.float64))
    assert torch.equal(again.denoise(x.double(), t), wide.denoise(x.double(), t))


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    model, file = small(), tmp_path / "m"
    own = ss.NonlinearProcess(lambda x, t: -x, 1.0)
    other = ss.NetworkScore(torch.nn.Linear(2, 2), ss.VP(), "noise", shape=(2,))
    broken = small()
    torch.nn.init.constant_(broken.network.first.bias, float("nan"))
    doubled = small(conditions=("label",))
    doubled.conditions = ("label", "label")

    def named(name: object) -> dict[str, Any]:
        return {"network": name}

    for refused, card, words in (
        (other, named({"name": "Linear", "settings": {}}), "network: 'name' must be one of"),
        (other, CARD, "the card names the network UNet, but this is a Linear"),
        (other, None, "card must have the entry 'network'"),
        (model, named("UNet"), "'network' must be its name and settings"),
        (model, named({"name": "UNet"}), "network: it lacks 'settings'"),
        (model, {"name": "UNet"}, "card must have the entry 'network'"),
        (model, {"network": {"name": "UNet", "settings": {"width": 16}}}, "more weights|shape|not in"),
        (model, {**CARD, "figure": float("nan")}, "could not be loaded again"),
        (model, {**CARD, "figure": torch.zeros(2)}, "could not be loaded again"),
        (broken, CARD, "'first.bias' must be finite"),
        (small(data_std=1e-12), CARD, "'data_std' must be a number"),
        (doubled, CARD, "'conditions' must be names, each once"),
        (small(own), CARD, "could not be loaded again"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            ss.save(refused, file, card)
    for wrong in (
        ss.classifier_free(ss.load("digits"), 2.0, label=3),
        ss.load("digits").given(label=3),
    ):
        with pytest.raises(TypeError, match="model must be a NetworkScore"):
            ss.save(wrong, file)
    assert list(tmp_path.iterdir()) == []


class Mine(UNet):
    r"""Of the same weights as its parent, but another function of them."""


def test_the_network_is_the_one_of_the_card(tmp_path: Path) -> None:
    model = ss.NetworkScore(Mine(**SETTINGS), ss.VP(), "noise", shape=(1, 4, 4))
    with pytest.raises(ValueError, match="the card names the network UNet, but this is a Mine"):
        ss.save(model, tmp_path / "m", CARD)


def test_a_model_without_a_shape_takes_any_shape(tmp_path: Path) -> None:
    model = ss.NetworkScore(UNet(**SETTINGS).float(), ss.VP(), "noise")
    back = ss.load(ss.save(model, tmp_path / "m", CARD))
    assert back.shape is None
    assert ss.sample(back, (2, 1, 4, 4), steps=2).x.shape == (2, 1, 4, 4)


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    before = torch.get_rng_state()
    ss.load(saved)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("change", "words"), [
    *((lambda c, n=n: c.pop(n), f"it lacks '{n}'")
      for n in ("options", "noise_levels", "additions", "model", "figures")),
    (put("options", {}), "'options' must name a 'solver'"),
    (put("options", "solver", "dpm2m"), "solver 'dpm2m' is unknown"),
    (put("options", [1]), "'options' must be options by name"),
    *((put("noise_levels", v), "'noise_levels' must be noise levels that are positive and fall")
      for v in ([1.0], [1.0, 2.0], [1.0, 0.0], [float("nan"), 1.0], 3, ["a", "b"])),
    (put("additions", [[float("nan")]]), "'additions' must be lists of finite numbers"),
    (put("additions", [[1.0, 1.0], [1.0, 1.0]]), "additions of step 1 must be 3 numbers"),
    (put("model", None), "'model' must be the fingerprint"),
    (put("figures", []), "'figures' must be figures by name"),
    (put("more", 1), "the unknown entry 'more'"),
])  # fmt: skip
def test_a_plan_is_refused_by_its_entry(tmp_path: Path, change: Change, words: str) -> None:
    plan = ss.Plan({"solver": "dpmpp_2m"}, (10.0, 1.0, 0.1), ((0.1, 0.2), (0.1, 0.2, 0.3)))
    file = plan.save(tmp_path / "p.json")
    assert ss.Plan.load(file) == plan
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"p\.json is not a plan, or was damaged or edited") as e:
        ss.sample(ss.GaussianOracle(torch.zeros(2), 1.0), 2, plan=file)
    assert words in str(e.value)


@pytest.fixture(scope="module")
def compared() -> ss.Comparison:
    oracle = ss.GaussianOracle(torch.zeros(2), 1.0, process=ss.VP())
    options = {
        "samples": 8,
        "progress": False,
        "data": oracle.data(40),
        "reference_tolerance": 1e-2,
    }
    return ss.compare(oracle, ["ddim"], [4], **options)


@pytest.mark.parametrize(("change", "words"), [
    *((lambda c, n=n: c.pop(n), f"it lacks '{n}'") for n in ("setup", "references", "floors", "exact", "rows")),
    *((lambda c, n=n: c["rows"][0].pop(n), f"row 0: it lacks '{n}'")
      for n in ("solver", "grid", "budget", "options", "stochastic", "calls", "error", "distances", "status")),
    *((lambda c, n=n: c["setup"].pop(n), f"setup: it lacks '{n}'") for n in ("model", "metrics", "samples")),
    (put("rows", 0, "error", "median", float("nan")), "row 0: 'error' must be numbers"),
    (put("rows", 0, "error", 0.1), "row 0: 'error' must be numbers"),
    (put("rows", 0, "distances", "energy", 0.1), "row 0: 'distances' must be pairs"),
    (put("rows", 0, "budget", "five"), "row 0: 'budget' must be a finite number"),
    (put("rows", {}), "'rows' must be a list"),
    (put("references", "flow", "median", None), "references, flow: 'median' must be a number"),
    (put("floors", "energy", [1]), "'floors' must be pairs"),
])  # fmt: skip
def test_a_comparison_is_refused_by_its_entry(
    compared: ss.Comparison, tmp_path: Path, change: Change, words: str
) -> None:
    file = compared.save(tmp_path / "c.json")
    assert ss.Comparison.load(file).rows == ss.Comparison.load(file).rows
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"c\.json is not a comparison, or was damaged") as e:
        ss.Comparison.load(file)
    assert words in str(e.value)


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: c["known"].update({next(iter(c["known"])): float("nan")}), "'known' must be numbers"),
    (put("known", "x", "1"), "'known' must be numbers"),
    (lambda c: c.pop("known"), "it lacks 'known'"),
    (lambda c: c.pop("setup"), "it lacks 'setup'"),
])  # fmt: skip
def test_a_search_is_refused_by_its_entry(tmp_path: Path, change: Change, words: str) -> None:
    from scoresde.comparing.bench import Bench
    from scoresde.files import write_json
    from scoresde.tuning.objective import KIND, Measure, Objective

    file = tmp_path / "t.json"
    write_json(
        file, KIND, {"setup": {}, "known": {"a plan": 0.1, "one that failed": float("inf")}}
    )
    measure = Measure(Bench(ss.GaussianOracle(torch.zeros(2), 1.0), (4, 2), 0, 0.1), "error")
    make = lambda: Objective(measure, file, {}, lambda count: None)
    assert make().known["a plan"] == 0.1
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"t\.json is not a search, or was damaged") as e:
        make()
    assert words in str(e.value)


@pytest.mark.filterwarnings("ignore:the latents are")
def test_latents_of_pictures_come_back_with_their_companions(tmp_path: Path) -> None:
    oracle = ss.GaussianOracle(torch.zeros(1, 2, 2), 1.0, process=ss.VP())
    for solver in (
        "lattice_heun",
        "lattice_heun_isotropic",
        "reversible_heun",
        "o_belm",
        "edict",
        "rex_rk4",
    ):
        z = ss.encode(oracle, oracle.data(3), solver=solver, steps=4)
        ss.save_latents(tmp_path / "z.npz", z)
        back = ss.load_latents(tmp_path / "z.npz")
        assert torch.equal(back.companion, z.companion)
        assert torch.equal(ss.decode(oracle, back).x, ss.decode(oracle, z).x)


@pytest.fixture(scope="module")
def latents() -> Solution:
    oracle = ss.GaussianOracle(torch.zeros(2), 1.0, process=ss.VP())
    return ss.encode(oracle, oracle.data(3), solver="lattice_heun", steps=4)


def rewritten(file: Path, z: Solution, change: Callable[[dict[str, Any]], object]) -> Path:
    ss.save_latents(file, z)
    with np.load(file) as loaded:
        arrays = dict(loaded)
    change(arrays)
    np.savez(file, **arrays)
    return file


@pytest.mark.parametrize(("change", "words"), [
    (lambda a: a.update(x=a["x"].astype(int)), "'x' must hold finite"),
    (lambda a: a.update(x=a["x"] * np.nan), "'x' must hold finite"),
    (lambda a: a.update(x=a["x"][:, 0]), "'x' must have shape"),
    (lambda a: a.update(times=a["times"][::-1]), "'times' must rise"),
    (lambda a: a.update(times=a["times"][:1]), "'times' must have shape"),
    (lambda a: a.update(calls=a["calls"][:2]), "'calls' must have shape"),
    (lambda a: a.update(status=a["status"][:2]), "'status' must have shape"),
    (lambda a: a.update(calls=a["calls"] * 0.5), "'calls' must hold whole"),
    (lambda a: a.update(companion=a["companion"][:, :1]), "'companion' must have shape"),
    (lambda a: a.update(provenance=np.array("{}")), "it lacks 'solver'"),
    (lambda a: a.update(provenance=np.array("[]")), ""),
    (lambda a: a.pop("times"), "it lacks times"),
])  # fmt: skip
def test_latents_are_refused_by_their_entry(
    latents: Solution, tmp_path: Path, change: Any, words: str
) -> None:
    file = rewritten(tmp_path / "z.npz", latents, change)
    with pytest.raises(ValueError, match=r"z\.npz holds no latents of ss.encode") as e:
        ss.load_latents(file)
    assert words in str(e.value)


def test_latents_that_claim_to_be_huge_take_no_memory(latents: Solution, tmp_path: Path) -> None:
    file = tmp_path / "z.npz"
    ss.save_latents(file, latents)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["x.npy"] = parts["x.npy"].replace(b"(3, 2), }" + 10 * b" ", b"(3000000000000, 2)}")
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="its entry 'x' declares"):
        ss.load_latents(file)


def test_a_huge_block_is_refused(latents: Solution, tmp_path: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        made = json.loads(str(arrays["provenance"]))
        made["solver"] = "lattice_heun:block=1000000000"
        arrays["provenance"] = np.array(json.dumps(made))

    with pytest.raises(ValueError, match="block must be a whole number from 0 to 4096"):
        ss.load_latents(rewritten(tmp_path / "z.npz", latents, change))
