r"""Models of other libraries in files and folders: what is saved is loaded, and nothing in them is executed."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import scoresde as ss
from scoresde.zoo import constructors

HERE = __name__


class Turned(nn.Module):
    r"""A network of one's own, called as `network(sigma, x, note, kind=...)`."""

    made = 0

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        Turned.made += 1
        self.line = nn.Linear(width, width)
        self.register_buffer("table", torch.arange(float(width)), persistent=False)

    def forward(self, t: Tensor, x: Tensor, note: Tensor, kind: str = "") -> dict[str, Tensor]:
        assert kind == "plain"
        return {"mean": self.line(x) + self.table * note + 0 * t[:, None]}


class Other(Turned):
    r"""Another, which nothing registers."""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constructors, "REGISTERED", {})
    ss.register_network(Turned)


def model_of(network: nn.Module, **options: Any) -> ss.NetworkScore:
    settings: dict[str, Any] = {
        "label": ss.Label("noise_level", 2.0, 1.0),
        "order": "t, x",
        "entry": "mean",
        "factor": -1.0,
        "constants": {"kind": "plain"},
        "null": {"note": torch.tensor([[0.5]])},
        "conditions": ["note"],
        "shape": (3,),
        **options,
    }
    process = ss.VP(ss.Tabulated.from_betas(torch.linspace(1e-4, 0.02, 50)))
    return ss.from_callable(network, process, "noise", **settings)


CARD = {"network": {"settings": {"width": 3}}}
X, T = torch.ones(2, 3), torch.tensor(7.5)


def edited(card_file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    card = json.loads(card_file.read_text())
    change(card)
    card_file.write_text(json.dumps(card))
    return card_file


@pytest.fixture
def saved(registered: None, tmp_path: Path) -> Path:
    return ss.save(model_of(Turned()), tmp_path / "m", CARD, dtype=torch.float64)


# ---- there and back


@pytest.mark.usefixtures("registered")
def test_a_foreign_model_is_what_it_was(tmp_path: Path) -> None:
    model = model_of(Turned())
    back = ss.load(ss.save(model, tmp_path / "m", CARD, dtype=torch.float64))
    assert back.process == model.process
    assert torch.equal(back.noise(X, T), model.noise(X, T))
    note = torch.tensor([[2.0]])
    assert torch.equal(back.noise(X, T, note=note), model.noise(X, T, note=note))
    assert not torch.equal(back.noise(X, T), model.noise(X, T, note=note))
    again = ss.load(ss.save(back, tmp_path / "n", dtype=torch.float64))
    assert torch.equal(again.noise(X, T), model.noise(X, T))


def test_nested_values_for_none_travel(tmp_path: Path) -> None:
    network = ss.networks.UNet(channels=1, width=8, multipliers=(1,), blocks=1)
    null = {"prompt": {"a": torch.ones(1, 2), "b": {"c": torch.zeros(1, dtype=torch.int64)}}}
    called = ss.adapters.Foreign(network, ss.VP(), ss.Label(), null=null, opened=["prompt"])
    model = ss.NetworkScore(called, ss.VP(), "noise", conditions=["prompt"], shape=(1, 4, 4))
    settings = {"channels": 1, "width": 8, "multipliers": [1], "blocks": 1}
    back = ss.load(ss.save(model, tmp_path / "m", {"network": {"settings": settings}}))
    kept = back.network.null["prompt"]
    assert torch.equal(kept["a"], torch.ones(1, 2))
    assert kept["b"]["c"].dtype == torch.int64
    assert back.network.opened == ("prompt",)
    assert back.card["network"]["name"] == "UNet"


def test_trust_imports_what_is_not_registered(saved: Path) -> None:
    Turned.made, constructors.REGISTERED = 0, {}
    with pytest.raises(ValueError, match=f"{HERE}:Turned.*not registered.*ss.register_network"):
        ss.load(saved)
    assert Turned.made == 0
    assert ss.load(saved, trust=True).shape == (3,)
    assert Turned.made > 0


@pytest.mark.parametrize(("options", "words"), [
    ({"label": lambda t: 2 * t}, "the time label is a function"),
    ({"constants": {"kind": len}}, "constants must be numbers, texts"),
    ({"null": {"note": (torch.zeros(1, 1),)}}, "null must hold tensors, or dictionaries"),
])  # fmt: skip
@pytest.mark.usefixtures("registered")
def test_code_is_not_saved(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        ss.save(model_of(Turned(), **options), tmp_path / "m", CARD)
    assert list(tmp_path.iterdir()) == []


def test_functions_are_not_saved(tmp_path: Path) -> None:
    model = ss.from_callable(lambda x, t: x, ss.VP(), "noise")
    with pytest.raises(ValueError, match="only networks that are modules have weights to save"):
        ss.save(model, tmp_path / "m", CARD)


def test_only_what_a_path_finds_is_registered() -> None:
    with pytest.raises(ValueError, match="at the top of a module"):
        ss.register_network(lambda: nn.Identity())


# ---- hostile cards


@pytest.mark.parametrize("name", [
    "os:system", "builtins:exec", "subprocess:Popen", "torch:load", "diffusers.utils:load_image", "..:x", "a:b:c",
    "../../evil:Net", "torch.nn:Linear", "x y:z", "", ":", "os:", 3, ["os", "system"], f"{HERE}:Other",
    f"{HERE}:Turned.made", "scoresde.networks:UNet",
])  # fmt: skip
def test_unregistered_constructors_are_not_called(name: object, saved: Path) -> None:
    made = Other.made
    edited(saved, lambda card: card["network"].update(name=name))
    with pytest.raises(
        ValueError, match="not registered|must be one of MLP, VAE, VQVAE, DiT, Encoder, UNet"
    ):
        ss.load(saved)
    assert Other.made == made


def test_trust_says_what_is_missing(saved: Path) -> None:
    for name, words in (
        (f"{HERE}:Nothing", "which is missing"),
        (f"{HERE}:HERE", "no class or function"),
    ):
        edited(saved, lambda card, name=name: card["network"].update(name=name))
        with pytest.raises(ValueError, match=words):
            ss.load(saved, trust=True)


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: c["network"]["settings"].update(width=10**12), "'settings' must be plain settings"),
    (lambda c: c["network"]["settings"].update(width=float("inf")), "'settings' must be plain settings"),
    (lambda c: c["network"]["settings"].update(width=10**9), "must have the shape of the network|memory"),
    (lambda c: c["network"]["settings"].update(width=[[[[[[[[1]]]]]]]]), "'settings' must be plain settings"),
    (lambda c: c["network"]["settings"].update(depth=3), "unexpected keyword"),
    (lambda c: c["network"]["called"].update(label={"of": "__import__"}), "label: 'of' must be"),
    (lambda c: c["network"]["called"].update(label="lambda t: t"), "'label' must be its 'of'"),
    (lambda c: c["network"]["called"].update(order="x"), "'order' must be"),
    (lambda c: c["network"]["called"].update(names=["x"]), "'names' must be two names"),
    (lambda c: c["network"]["called"].update(entry=[]), "'entry' must be a name"),
    (lambda c: c["network"]["called"].update(factor=float("nan")), "'factor' must be a finite number"),
    (lambda c: c["network"]["called"].update(code="import os"), "the unknown entry 'code'"),
    (lambda c: c["network"]["called"].pop("order"), "it lacks 'order'"),
    (lambda c: c["network"].update(hook="x"), "the unknown entry 'hook'"),
    (lambda c: c["process"]["settings"].update(log_snr=[1.0, 2.0]), "log_snr must decrease"),
    (lambda c: c["process"]["settings"].update(log_snr=[3.0]), "at least two numbers"),
    (lambda c: c["process"]["settings"].update(log_snr=["a"]), "'settings' must be finite numbers"),
    (lambda c: c["process"].update(schedule="Cosine"), "log_snr"),
])  # fmt: skip
def test_cards_are_refused_by_their_entry(
    change: Callable[[dict[str, Any]], object], words: str, saved: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        ss.load(edited(saved, change))


@pytest.mark.parametrize(("name", "value", "words"), [
    ("null.note.deep", torch.zeros(1), "both a tensor and a dictionary"),
    ("null.other", torch.zeros(3), "must have leading size 1"),
    ("line.extra", torch.zeros(1), "is not in its card"),
])  # fmt: skip
def test_odd_tensors_are_refused(name: str, value: Tensor, words: str, saved: Path) -> None:
    from safetensors.torch import load_file

    file = saved.with_suffix(".safetensors")
    save_file({**load_file(file), name: value}, file)
    with pytest.raises(ValueError, match=words):
        ss.load(saved)


def header(size: int, text: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", size) + text + rest


DAMAGED = {
    "empty": b"",
    "truncated": header(100, b'{"a":'),
    "oversized": header(2**62, b"{}"),
    "beyond the end": header(
        70, b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,8]}}     ', bytes(8)
    ),
    "no JSON": header(4, b"oops"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_headers_are_refused(content: bytes, saved: Path) -> None:
    saved.with_suffix(".safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file, or is truncated"):
        ss.load(saved)


# ---- hostile folders of diffusers


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def folder_of(path: Path, index: dict[str, Any], **files: dict[str, Any]) -> Path:
    r"""Writes a pipeline's folder: its index, and the JSON configs of its components."""

    (path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline", **index}))
    for name, config in files.items():
        (path / name).mkdir(parents=True)
        (path / name / "config.json").write_text(json.dumps(config))
    return path


UNET = {"unet": ["diffusers", "UNet2DModel"]}


@pytest.mark.parametrize("index", [
    {"_class_name": ["my_pipeline", "Mine"]},
    {"_class_name": "../evil"},
    {"_class_name": "os.system"},
    {"unet": ["unet_code", "Mine"]},
    {"unet": ["os", "system"]},
    {"unet": ["diffusers", "../evil"]},
    {"unet": ["diffusers"]},
    {"../../unet": ["diffusers", "UNet2DModel"]},
    {"/etc": ["diffusers", "UNet2DModel"]},
])  # fmt: skip
def test_code_and_paths_in_an_index_are_refused(index: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {**UNET, **index}, unet={"_class_name": "UNet2DModel"})
    (folder / "unet_code.py").write_text("open('ran', 'w')")
    words = "names code of its own|only classes of diffusers|no name of a folder in it"
    with pytest.raises(ValueError, match=words):
        ss.from_diffusers(folder)


def test_pickles_in_folders_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path, UNET, unet={"_class_name": "UNet2DModel"})
    file = folder / "unet" / "diffusion_pytorch_model.bin"
    file.write_bytes(pickle.dumps(Payload()))
    for path in (folder, folder / "unet"):
        with pytest.raises(ValueError, match="is a pickle, which may run code"):
            ss.from_diffusers(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_weights_in_folders_are_refused(content: bytes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, UNET, unet={"_class_name": "UNet2DModel"})
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file, or is truncated"):
        ss.from_diffusers(folder)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("config.json", {"auto_map": {"AutoModel": "code.Mine"}}, "code of its own by auto_map"),
    ("tokenizer_config.json", {"auto_map": {}}, "code of its own by auto_map"),
    ("w.safetensors.index.json", {"weight_map": {"a": "../../secret.safetensors"}}, "no file beside it"),
    ("w.safetensors.index.json", {"weight_map": {"a": "/etc/passwd"}}, "no file beside it"),
    ("w.safetensors.index.json", {"weight_map": ["a"]}, "no file beside it"),
    ("config.json", [1], "holds no entries by name"),
])  # fmt: skip
def test_files_of_components_are_looked_at(
    name: str, content: object, words: str, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, UNET, unet={"_class_name": "UNet2DModel"})
    (folder / "unet" / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        ss.from_diffusers(folder)


def test_missing_parts_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source must be a folder, but there is no"):
        ss.from_diffusers(tmp_path / "runwayml" / "stable-diffusion")
    with pytest.raises(ValueError, match="holds no model_index.json"):
        ss.from_diffusers(tmp_path)
    with pytest.raises(ValueError, match="the component 'unet' of .* is missing"):
        ss.from_diffusers(folder_of(tmp_path, UNET))
    (tmp_path / "model_index.json").write_text("{" * 10**5)
    with pytest.raises(ValueError, match="is not JSON text"):
        ss.load(tmp_path)


def test_missing_diffusers_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scoresde.adapters import folders

    def missing(name: str) -> str:
        raise folders.PackageNotFoundError(name)

    folder = folder_of(tmp_path, UNET, unet={"_class_name": "UNet2DModel"})
    save_file({"w": torch.zeros(1)}, folder / "unet" / "w.safetensors")
    monkeypatch.setattr(folders, "version", missing)
    with pytest.raises(ImportError, match="pip install diffusers"):
        ss.from_diffusers(folder)
    monkeypatch.setattr(folders, "version", lambda name: "0.41.2")
    with pytest.raises(ImportError, match=r"diffusers 0.42 or later, but 0.41.2 is installed"):
        ss.from_diffusers(folder)


def test_other_sources_are_refused() -> None:
    with pytest.raises(TypeError, match="source must be a network or pipeline"):
        ss.from_diffusers(3)
    with pytest.raises(ValueError, match="scheduler must be that of the network's pipeline"):
        ss.from_diffusers(nn.Identity())
