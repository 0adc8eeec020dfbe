r"""Conditions that models turn into tensors themselves: texts, through whatever is made of the model."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss


class UNet2DConditionModel(nn.Module):
    r"""A network that adds what its texts are encoded to."""

    config = {"in_channels": 1, "sample_size": 2}

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        return 0.1 * sample + encoder_hidden_states.mean((1, 2))[:, None, None, None]


class Autoencoder(nn.Module):
    config = {"scaling_factor": 0.5, "shift_factor": 1.0}

    def encode(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: x.round(decimals=1)))

    def decode(self, z: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=z)


class Pipeline:
    r"""A pipeline whose encoder counts letters."""

    def __init__(self) -> None:
        scheduler = SimpleNamespace(
            config={"prediction_type": "v_prediction"},
            alphas_cumprod=torch.linspace(0.999, 0.01, 1000),
        )
        self.text_encoder = nn.Linear(1, 1)
        self.components = {
            "unet": UNet2DConditionModel(), "vae": Autoencoder(), "scheduler": scheduler,
        }  # fmt: skip
        self.asked: list[list[str]] = []

    def encode_prompt(
        self, texts: list[str], device: torch.device, count: int, guided: bool
    ) -> tuple[Tensor, Tensor]:
        self.asked.append(texts)
        counts = torch.tensor([float(len(text)) for text in texts])[:, None, None]
        return counts, torch.full_like(counts, -1.0)


@pytest.fixture
def model() -> Any:
    return ss.from_diffusers(Pipeline())


X, T = torch.ones(2, 1, 2, 2), torch.tensor(500.0)


def test_wrappers_take_what_the_model_takes(model: ss.ScoreModel) -> None:
    texts = ["a", "abc"]
    said = model.denoise(X, T, **{"encoder_hidden_states": torch.tensor([[[1.0]], [[3.0]]])})
    assert torch.equal(model.given(prompt=texts).denoise(X, T), said)
    clipped = ss.guidance.thresholded(model, 1e6)
    assert torch.equal(clipped.given(prompt=texts).denoise(X, T), said)
    other = ss.Rescheduled(model, ss.EDM())
    level = model.process.noise_level(500.0)
    there = other.given(prompt=texts).noise(X / model.process.scales(T)[0], torch.tensor(level))
    torch.testing.assert_close(there, model.given(prompt=texts).noise(X, T))
    assert torch.equal(
        model.given(prompt=texts).rows(torch.tensor([1])).denoise(X[1:], T), said[1:]
    )


def test_verbs_take_texts(model: ss.ScoreModel) -> None:
    options: dict[str, Any] = {"solver": "ddim", "steps": 3, "seed": 0}
    one = ss.sample(model, 2, prompt="abc", **options)
    assert torch.equal(one.x, ss.sample(model, 2, prompt=["abc", "xyz"], **options).x)
    with pytest.raises(ValueError, match="prompt must have leading size 2 or 1"):
        ss.sample(model, 2, prompt=["a", "b", "c"], **options)


def test_guidance_knows_what_stands_for_none(model: Any) -> None:
    hidden = torch.tensor([[[3.0]]])
    w, by_hand = 7.5, {"encoder_hidden_states": -torch.ones(1, 1, 1)}
    guided = ss.classifier_free(model, w, prompt="abc")
    with_hands = ss.classifier_free(model, w, negative=by_hand, encoder_hidden_states=hidden)
    assert torch.equal(guided.denoise(X, T), with_hands.denoise(X, T))
    away = ss.classifier_free(model, w, prompt="abc", negative={"prompt": "blurry"})
    assert not torch.equal(away.denoise(X, T), guided.denoise(X, T))
    assert model.texts.pipeline.asked == [[""], ["abc"], ["abc"], ["blurry"]]


def test_texts_are_encoded_once_in_a_run(model: Any) -> None:
    ss.sample(model, 2, prompt="abc", solver="ddim", steps=5, seed=0)
    assert model.texts.pipeline.asked == [[""], ["abc"]]


@pytest.mark.parametrize("value", [3, [], ["a", 3], torch.zeros(2)])
def test_other_prompts_are_refused(model: ss.ScoreModel, value: object) -> None:
    with pytest.raises(TypeError, match="prompt must be a text or a list of texts"):
        model.given(prompt=value)


def test_models_without_encoders_refuse_texts() -> None:
    pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
    with pytest.raises(TypeError, match="label must"):
        pair.given(label="right")


def test_autoencoder_at_both_ends(model: Any) -> None:
    images = torch.tensor([0.23, -0.5]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    latents = model.autoencoder.encode(images)
    torch.testing.assert_close(latents, 0.5 * (images.round(decimals=1) - 1.0))
    torch.testing.assert_close(model.autoencoder.error(images), torch.tensor([0.03, 0.0]))
    guided = ss.classifier_free(model, 2.0, prompt="a")
    for known in (model, guided, model.given(prompt="a"), ss.Rescheduled(guided, ss.EDM())):
        torch.testing.assert_close(ss.pictures(known, latents), images.round(decimals=1))


def test_latents_by_channel() -> None:
    network = Autoencoder()
    network.config = {
        "latents_mean": [1.0, -1.0],
        "latents_std": [2.0, 4.0],
        "scaling_factor": 0.5,
    }
    ends = ss.adapters.Autoencoder(network)
    images = torch.tensor([3.0, 3.0]).reshape(1, 2, 1, 1)
    latents = ends.encode(images)
    torch.testing.assert_close(latents.flatten(), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(ends.decode(latents), images)


def test_models_of_pixels_have_no_pictures_to_decode() -> None:
    with pytest.raises(ValueError, match="model has no autoencoder"):
        ss.pictures(ss.load("digits"), torch.zeros(1, 1, 8, 8))


def test_half_autoencoders_that_overflow_are_refused() -> None:
    network = Autoencoder()
    network.config = {"force_upcast": True}
    network.weight = nn.Parameter(torch.zeros(1, dtype=torch.float16))
    with pytest.raises(ValueError, match=r"pipeline.vae.to\(torch.float32\)"):
        ss.adapters.Autoencoder(network).encode(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(("components", "words"), [
    ({}, "must have a unet or a transformer, but this SimpleNamespace has: nothing"),
    ({"prior": nn.Identity()}, "has: prior"),
    ({"unet": nn.Identity()}, "has no scheduler, which says what the network predicts"),
])  # fmt: skip
def test_pipelines_of_which_a_part_is_missing(components: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.from_diffusers(SimpleNamespace(components=components))


def test_pipelines_of_two_networks_are_refused() -> None:
    parts = {"transformer": nn.Identity(), "transformer_2": nn.Identity(), "scheduler": object()}
    with pytest.raises(ValueError, match="two denoising networks"):
        ss.from_diffusers(SimpleNamespace(components=parts, transformer_2=parts["transformer_2"]))
