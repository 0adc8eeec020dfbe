r"""Pipelines and folders of diffusers in: the same samples as their own, from texts to pictures."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scoresde as ss

pytestmark = pytest.mark.peers
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from . import tiny  # noqa: E402

TEXTS = ["abc de", "a red fox"]
LATENT = (tiny.CHANNELS, tiny.SIDE, tiny.SIDE)


def start(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    r"""The largest difference, by the scale of the result."""

    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def stock(name: str) -> Any:
    r"""Returns a stock scheduler."""

    if name == "ddim":
        return diffusers.DDIMScheduler(**tiny.BETAS, clip_sample=False)
    if name == "dpmpp_2m":
        return diffusers.DPMSolverMultistepScheduler(**tiny.BETAS)
    return diffusers.EulerDiscreteScheduler(**tiny.BETAS)


# ---- from text to latents, as pipelines do


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "euler"])
def test_guided_stable_diffusion(name: str) -> None:
    pipeline, z = tiny.stable_diffusion(stock(name)), start(2, *LATENT)
    model = ss.from_diffusers(pipeline)
    theirs = pipeline(
        TEXTS, num_inference_steps=10, guidance_scale=7.5, latents=z.clone(), output_type="latent"
    ).images
    guided, times = ss.classifier_free(model, 7.5, prompt=TEXTS), model.times(10)
    if (
        name == "euler"
    ):  # in the frame where the signal keeps its scale, Euler's steps are those of DDIM
        z = z * model.process.scales(times[0])[1].float()
    solver = "ddim" if name == "euler" else name
    assert difference(ss.decode(guided, z, solver=solver, times=times).x, theirs) < 2e-5


def test_negative_prompt() -> None:
    pipeline, z = tiny.stable_diffusion(), start(1, *LATENT)
    model = ss.from_diffusers(pipeline)
    theirs = pipeline(
        TEXTS[0],
        negative_prompt=TEXTS[1],
        num_inference_steps=5,
        guidance_scale=5.0,
        latents=z.clone(),
        output_type="latent",
    ).images
    guided = ss.classifier_free(model, 5.0, prompt=TEXTS[0], negative={"prompt": TEXTS[1]})
    ours = ss.decode(guided, z, solver="ddim", times=model.times(5)).x
    assert difference(ours, theirs) < 2e-5


def test_stable_diffusion_xl() -> None:
    pipeline, z = tiny.stable_diffusion_xl(), start(2, *LATENT)
    model = ss.from_diffusers(pipeline)
    theirs = pipeline(
        TEXTS, num_inference_steps=5, guidance_scale=5.0, latents=z.clone(), output_type="latent"
    ).images
    guided = ss.classifier_free(model, 5.0, prompt=TEXTS)
    ours = ss.decode(guided, z, solver="ddim", times=model.times(5)).x
    assert difference(ours, theirs) < 2e-5


def test_stable_diffusion_3() -> None:
    pipeline, z = tiny.stable_diffusion_3(), start(2, *LATENT)
    model = ss.from_diffusers(pipeline)
    theirs = pipeline(
        TEXTS, num_inference_steps=5, guidance_scale=5.0, latents=z.clone(), output_type="latent"
    ).images
    guided = ss.classifier_free(model, 5.0, prompt=TEXTS)
    ours = ss.decode(guided, z, solver="euler", clock="t", times=model.times(5)).x
    assert difference(ours, theirs) < 1e-5


@pytest.mark.parametrize("distilled", [False, True])
def test_flux(distilled: bool) -> None:
    pipeline, z = tiny.flux(guidance=distilled), start(2, *LATENT)
    model = ss.from_diffusers(pipeline, shape=LATENT)
    packed = pipeline._pack_latents(z, 2, *LATENT)
    sides = {"height": 2 * tiny.SIDE, "width": 2 * tiny.SIDE}
    theirs = pipeline(
        TEXTS, num_inference_steps=5, latents=packed, output_type="latent", **sides
    ).images
    options = {"guidance": torch.tensor([3.5])} if distilled else {}
    ours = ss.decode(
        model, z, solver="euler", clock="t", times=model.times(5), prompt=TEXTS, **options
    )
    assert difference(pipeline._pack_latents(ours.x, 2, *LATENT), theirs) < 1e-5


def test_flux_with_classifier_free_guidance() -> None:
    pipeline, z = tiny.flux(), start(1, *LATENT)
    model = ss.from_diffusers(pipeline, shape=LATENT)
    theirs = pipeline(
        TEXTS[0],
        negative_prompt="",
        true_cfg_scale=4.0,
        num_inference_steps=5,
        latents=pipeline._pack_latents(z, 1, *LATENT),
        output_type="latent",
        height=2 * tiny.SIDE,
        width=2 * tiny.SIDE,
    ).images
    guided = ss.classifier_free(model, 4.0, prompt=TEXTS[0])
    ours = ss.decode(guided, z, solver="euler", clock="t", times=model.times(5)).x
    assert difference(pipeline._pack_latents(ours, 1, *LATENT), theirs) < 1e-5


# ---- to pictures


def test_dit_pictures() -> None:
    pipeline = tiny.dit()
    model = ss.from_diffusers(pipeline)
    theirs = pipeline(
        class_labels=[3, 7],
        guidance_scale=4.0,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images
    guided = ss.classifier_free(model, 4.0, class_labels=torch.tensor([3, 7]))
    solution = ss.decode(guided, start(2, *LATENT), solver="ddim", times=model.times(5))
    pictures = (ss.pictures(guided, solution) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert difference(pictures, torch.from_numpy(theirs)) < 1e-5


@pytest.mark.parametrize("build", [tiny.stable_diffusion, tiny.stable_diffusion_3])
def test_pictures_are_those_of_the_pipeline(build: Any) -> None:
    pipeline, latents = build(), start(2, *LATENT)
    model = ss.from_diffusers(pipeline)
    config = pipeline.vae.config
    plain = latents / config.scaling_factor + (config.shift_factor or 0.0)
    theirs = pipeline.vae.decode(plain).sample
    for known in (model, ss.classifier_free(model, 2.0, prompt="a"), model.given(prompt="b")):
        assert torch.equal(ss.pictures(known, latents), theirs)


def test_round_trip_in_pixels_stands_beside_the_error_of_the_autoencoder() -> None:
    model = ss.from_diffusers(tiny.stable_diffusion())
    ends = model.autoencoder
    pictures = start(2, 3, 2 * tiny.SIDE, 2 * tiny.SIDE).tanh()
    latents = ends.encode(pictures)
    back = ss.reconstruct(model, latents, solver="lattice_heun", steps=10, prompt=TEXTS)
    assert float(back.max.max()) < 1e-6
    lost = (ss.pictures(model, back.x) - pictures).flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(lost, ends.error(pictures), rtol=1e-4, atol=1e-6)


def test_pictures_have_derivatives_by_latents() -> None:
    model = ss.from_diffusers(tiny.dit())
    z = start(1, *LATENT).requires_grad_()
    with torch.enable_grad():
        assert torch.autograd.grad(ss.pictures(model, z).sum(), z)[0].abs().max() > 0
        assert not ss.pictures(model, z.detach()).requires_grad


# ---- prompts


def test_prompts_are_tensors_once() -> None:
    model = ss.from_diffusers(tiny.stable_diffusion())
    z, t = start(2, *LATENT), torch.tensor(500.0)
    taken = model.take_condition("prompt", TEXTS)
    said = model.given(prompt=TEXTS).denoise(z, t)
    assert torch.equal(model.given(prompt=taken).denoise(z, t), said)
    explicit = model.given(encoder_hidden_states=taken["encoder_hidden_states"])
    assert torch.equal(explicit.denoise(z, t), said)
    shared = model.given(prompt=TEXTS[0]).denoise(z, t)
    assert difference(shared[:1], said[:1]) < 1e-5


@pytest.mark.parametrize("value", [3, [], ["a", 3], torch.zeros(2)])
def test_other_prompts_are_refused(value: object) -> None:
    model = ss.from_diffusers(tiny.stable_diffusion())
    with pytest.raises(TypeError, match="prompt must be a text or a list of texts"):
        model.given(prompt=value)


def test_pipelines_without_encoders_take_tensors() -> None:
    pipeline = tiny.stable_diffusion()
    pipeline.text_encoder = None
    model = ss.from_diffusers(pipeline)
    assert model.conditions[0] == "encoder_hidden_states"
    with pytest.raises(TypeError, match="prompt= is neither"):
        model.given(prompt="a")


def test_offloaded_networks() -> None:
    from accelerate import cpu_offload

    pipeline = tiny.stable_diffusion()
    z, t = start(1, *LATENT), torch.tensor(500.0)
    here = ss.from_diffusers(pipeline).given(prompt="a").denoise(z, t)
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        cpu_offload(part, torch.device("cpu"))
    assert next(pipeline.unet.parameters()).is_meta
    model = ss.from_diffusers(pipeline)
    assert difference(model.given(prompt="a").denoise(z, t), here) < 1e-6
    solution = ss.sample(model, 2, steps=2, solver="ddim", prompt="a", seed=0)
    assert ss.pictures(model, solution).shape == (2, 3, 2 * tiny.SIDE, 2 * tiny.SIDE)


# ---- folders


def test_folder_of_a_pipeline(tmp_path: Path) -> None:
    pipeline, z = tiny.ddpm(), start(2, 1, tiny.SIDE, tiny.SIDE)
    pipeline.save_pretrained(tmp_path)
    there, here = ss.from_diffusers(tmp_path), ss.from_diffusers(pipeline)
    options = {"solver": "ddim", "times": here.times(5)}
    ours = ss.decode(there, z, **options).x
    assert torch.equal(ours, ss.decode(here, z, **options).x)
    stepped = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    stepped.set_timesteps(5)
    for t in stepped.timesteps:
        with torch.no_grad():
            z = stepped.step(
                pipeline.unet(z, t).sample, t, z, use_clipped_model_output=True
            ).prev_sample
    assert difference(ours, z) < 1e-5


def test_folder_of_texts_to_pictures(tmp_path: Path) -> None:
    pipeline, z = tiny.stable_diffusion(), start(1, *LATENT)
    pipeline.save_pretrained(tmp_path)
    there, here = (
        ss.decode(ss.from_diffusers(one), z, solver="ddim", steps=3, prompt="ab")
        for one in (tmp_path, pipeline)
    )
    assert torch.equal(there.x, here.x)
    model = ss.load(tmp_path)  # as any model
    assert model.conditions[0] == "prompt"


def test_folder_of_a_network(tmp_path: Path) -> None:
    tiny.ddpm().save_pretrained(tmp_path)
    model = ss.from_diffusers(tmp_path / "unet", tmp_path / "scheduler")
    assert model.shape == (1, tiny.SIDE, tiny.SIDE)
    with pytest.raises(ValueError, match="scheduler must be that of the network's pipeline"):
        ss.from_diffusers(tmp_path / "unet")


@pytest.mark.parametrize("number", range(3))
def test_snippets_of_the_page_run(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = Path(__file__).parents[2] / "docs" / "diffusers.md"
    snippets = re.findall(r"```py\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(snippets) == 3
    tiny.stable_diffusion().save_pretrained(tmp_path / "sd")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    exec(compile(snippets[number], f"{page}:{number}", "exec"), {})
    assert capsys.readouterr().out.strip()


# ---- files of ours


@pytest.mark.parametrize(
    "build", [tiny.ddpm, tiny.stable_diffusion, tiny.dit, tiny.stable_diffusion_3, tiny.flux]
)
def test_networks_of_diffusers_are_saved_by_their_class(build: Any, tmp_path: Path) -> None:
    pipeline = build()
    shape = (1, tiny.SIDE, tiny.SIDE) if build is tiny.ddpm else LATENT
    model = ss.from_diffusers(pipeline, shape=shape, clip=False)
    file = ss.save(model, tmp_path / "m", dtype=torch.float32)
    named = json.loads(file.read_text())["network"]["name"]
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    assert named == f"diffusers:{type(network).__name__}"
    back, x = ss.load(file), start(2, *shape)
    given = {"prompt": model.take_condition("prompt", TEXTS)} if model.texts else {}
    if build is tiny.dit:
        given = {"class_labels": torch.tensor([3, 7])}
    t = torch.tensor(0.5 * (model.process.t_min + model.process.t_max))
    assert torch.equal(back.denoise(x, t, **given), model.denoise(x, t, **given))
    if "class_labels" in model.conditions or "prompt" in model.conditions:
        assert torch.equal(back.denoise(x, t), model.denoise(x, t))  # of none


@pytest.mark.parametrize(("name", "words"), [
    ("DDIMScheduler", "no ModelMixin that diffusers exports"),
    ("DiffusionPipeline", "no ModelMixin that diffusers exports"),
    ("utils", "no ModelMixin that diffusers exports"),
    ("Nothing", "no ModelMixin that diffusers exports"),
])  # fmt: skip
def test_other_names_of_diffusers_are_refused(name: str, words: str, tmp_path: Path) -> None:
    file = ss.save(ss.from_diffusers(tiny.ddpm(), clip=False), tmp_path / "m")
    card = json.loads(file.read_text())
    card["network"]["name"] = f"diffusers:{name}"
    file.write_text(json.dumps(card))
    with pytest.raises(ValueError, match=words):
        ss.load(file)


def test_the_command_line_takes_folders(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from scoresde.cli.app import app

    tiny.stable_diffusion().save_pretrained(tmp_path / "sd")
    words = ["sample", str(tmp_path / "sd"), "-n", "2", "--solver", "ddim", "--steps", "2"]
    words += ["--condition", "prompt=a red fox, or 3", "--out", str(tmp_path / "s.npz")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["x"].shape == (2, *LATENT)
        assert arrays["pictures"].shape == (2, 3, 2 * tiny.SIDE, 2 * tiny.SIDE)


# ---- hostile folders, as far as only diffusers knows


def changed(file: Path, **entries: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.mark.parametrize(("entries", "words"), [
    ({"block_out_channels": [10**6, 16]}, "its config says"),
    ({"layers_per_block": 10**5}, "its settings make more weights"),
    ({"in_channels": 3}, "its config says"),
    ({"_class_name": "Evil"}, "no ModelMixin that diffusers exports"),
    ({"down_block_types": ["DownBlock2D", "exec"]}, "describes no network"),
])  # fmt: skip
def test_configs_that_do_not_fit_their_weights(
    entries: dict[str, object], words: str, tmp_path: Path
) -> None:
    tiny.ddpm().save_pretrained(tmp_path)
    changed(tmp_path / "unet" / "config.json", **entries)
    for source in (tmp_path, tmp_path / "unet"):
        with pytest.raises(ValueError, match=words):
            ss.from_diffusers(source, tmp_path / "scheduler")


def test_pipelines_that_diffusers_does_not_export(tmp_path: Path) -> None:
    tiny.ddpm().save_pretrained(tmp_path)
    changed(tmp_path / "model_index.json", _class_name="UNet2DModel")
    with pytest.raises(ValueError, match="no DiffusionPipeline that diffusers exports"):
        ss.from_diffusers(tmp_path)


def test_local_code_stays_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.ddpm().save_pretrained(tmp_path)
    ran = tmp_path / "ran"
    for name in ("pipeline.py", "unet/unet.py", "unet/__init__.py"):
        (tmp_path / name).write_text(f"open({str(ran)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert ss.from_diffusers(tmp_path).shape == (1, tiny.SIDE, tiny.SIDE)
    assert not ran.exists()
