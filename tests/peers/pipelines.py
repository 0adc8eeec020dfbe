r"""Pipelines of diffusers with tiny networks of random weights, and the same models as ours."""

from typing import Any

import diffusers
import torch
from torch import Tensor

import scoresde as ss


def small(network: Any) -> Any:
    r"""The network, whose last layers are no longer zero and whose noise stays small."""

    for weight in network.parameters():
        if not weight.abs().any():
            torch.nn.init.normal_(weight, std=0.05)
    return network.eval()


def unet() -> Any:
    return small(
        diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(16,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            layers_per_block=1,
            norm_num_groups=8,
        )
    )


def text_unet() -> Any:
    return small(
        diffusers.UNet2DConditionModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            norm_num_groups=2,
        )
    )


def autoencoder(channels: int = 4, **more: Any) -> Any:
    return small(
        diffusers.AutoencoderKL(
            block_out_channels=[4, 8],
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D", "DownEncoderBlock2D"],
            up_block_types=["UpDecoderBlock2D", "UpDecoderBlock2D"],
            latent_channels=channels,
            norm_num_groups=2,
            **more,
        )
    )


def stable_diffusion(kind: Any, scheduler: Any) -> Any:
    r"""A pipeline of Stable Diffusion that is given its prompts as embeddings."""

    parts = {"vae": autoencoder(), "text_encoder": None, "tokenizer": None, "unet": text_unet()}
    rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return quiet(kind(scheduler=scheduler, **parts, **rest))


def stable_diffusion_3(scheduler: Any) -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=8,
        pooled_projection_dim=16,
        out_channels=4,
    )
    parts = {f"text_encoder{i}": None for i in ("", "_2", "_3")}
    parts |= {f"tokenizer{i}": None for i in ("", "_2", "_3")}
    vae = autoencoder(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False)
    return quiet(
        diffusers.StableDiffusion3Pipeline(
            transformer=small(transformer), scheduler=scheduler, vae=vae, **parts
        )
    )


def flux(scheduler: Any) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    parts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    vae = autoencoder(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False)
    return quiet(
        diffusers.FluxPipeline(
            transformer=small(transformer), scheduler=scheduler, vae=vae, **parts
        )
    )


def dit(scheduler: Any) -> Any:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    return quiet(diffusers.DiTPipeline(small(transformer), autoencoder(), scheduler))


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def guided(model: ss.ScoreModel, prompt: Tensor, null: Tensor, scale: float) -> ss.ScoreModel:
    r"""What a pipeline guides towards a prompt."""

    return ss.guidance.classifier_free(
        model, scale, encoder_hidden_states=prompt, negative={"encoder_hidden_states": null}
    )


def off(found: Tensor, right: Tensor) -> float:
    r"""The largest difference over the largest value."""

    return float((found - right).abs().max() / right.abs().max())
