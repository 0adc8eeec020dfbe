r"""Pipelines of diffusers with tiny random networks and tokenizers of letters, made on the spot."""

import string
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL

CHANNELS = 4  # of the latent
SIDE = 8  # of the latent; the autoencoder's pictures have twice that
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
         "steps_offset": 1}  # fmt: skip
CLIP = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": 64, "max_position_embeddings": 16, "projection_dim": 16,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}  # fmt: skip
Pipeline = Any
LATER = {
    "shift_factor": 0.1,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}  # autoencoders


def autoencoder(channels: int = CHANNELS, **settings: Any) -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 8],
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=2 * SIDE,
        **{"scaling_factor": 0.18215, **settings},
    ).eval()


def unet(**settings: Any) -> diffusers.UNet2DModel:
    r"""Returns a network of pictures of one channel."""

    torch.manual_seed(2)
    return diffusers.UNet2DModel(
        **{
            "sample_size": SIDE,
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "layers_per_block": 1,
            **settings,
        }
    ).eval()


def text_unet(**settings: Any) -> diffusers.UNet2DConditionModel:
    torch.manual_seed(2)
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": SIDE,
            "in_channels": CHANNELS,
            "out_channels": CHANNELS,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "norm_num_groups": 4,
            "cross_attention_dim": 16,
            "attention_head_dim": 4,
            "layers_per_block": 1,
            **settings,
        }
    ).eval()


def clip_tokenizer() -> transformers.CLIPTokenizer:
    r"""Returns a tokenizer that knows lower-case letters, alone and at the ends of words."""

    words = ["<|startoftext|>", "<|endoftext|>", *string.ascii_lowercase]
    words += [f"{letter}</w>" for letter in string.ascii_lowercase]
    vocabulary = {word: number for number, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)


def clip(kind: str = "CLIPTextModel", **settings: Any) -> transformers.PreTrainedModel:
    torch.manual_seed(3)
    return getattr(transformers, kind)(transformers.CLIPTextConfig(**{**CLIP, **settings})).eval()


def t5_tokenizer() -> transformers.T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in string.ascii_lowercase]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=16)


def t5() -> transformers.PreTrainedModel:
    torch.manual_seed(4)
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2
    )
    return transformers.T5EncoderModel(config).eval()


def ddpm() -> Pipeline:
    return quiet(diffusers.DDPMPipeline(unet=unet(), scheduler=diffusers.DDPMScheduler()))


def stable_diffusion(scheduler: Any = None, **network: Any) -> Pipeline:
    return quiet(
        diffusers.StableDiffusionPipeline(
            vae=autoencoder(),
            text_encoder=clip(),
            tokenizer=clip_tokenizer(),
            unet=text_unet(**network),
            scheduler=scheduler or diffusers.DDIMScheduler(**BETAS, clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def stable_diffusion_xl(scheduler: Any = None) -> Pipeline:
    network = text_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=4 * 6 + 16,
        cross_attention_dim=32,
    )
    return quiet(
        diffusers.StableDiffusionXLPipeline(
            vae=autoencoder(),
            text_encoder=clip(),
            text_encoder_2=clip("CLIPTextModelWithProjection"),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            unet=network,
            scheduler=scheduler or diffusers.DDIMScheduler(**BETAS, clip_sample=False),
            add_watermarker=False,
        )
    )


def dit(scheduler: Any = None) -> Pipeline:
    torch.manual_seed(2)
    network = diffusers.DiTTransformer2DModel(
        sample_size=SIDE,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        patch_size=2,
    ).eval()
    scheduler = scheduler or diffusers.DDIMScheduler(clip_sample=False)
    pipeline = diffusers.DiTPipeline(transformer=network, vae=autoencoder(), scheduler=scheduler)
    return quiet(pipeline)


def stable_diffusion_3(scheduler: Any = None) -> Pipeline:
    torch.manual_seed(2)
    network = diffusers.SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=SIDE,
    ).eval()
    with_projection = "CLIPTextModelWithProjection"
    return quiet(
        diffusers.StableDiffusion3Pipeline(
            transformer=network,
            scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=autoencoder(**LATER),
            text_encoder=clip(with_projection),
            text_encoder_2=clip(with_projection),
            text_encoder_3=None,
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            tokenizer_3=None,
        )
    )


def flux(scheduler: Any = None, guidance: bool = False) -> Pipeline:
    torch.manual_seed(2)
    network = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 2, 2),
        guidance_embeds=guidance,
    ).eval()
    shifted = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return quiet(
        diffusers.FluxPipeline(
            transformer=network,
            scheduler=scheduler or shifted,
            vae=autoencoder(**LATER),
            text_encoder=clip(),
            text_encoder_2=t5(),
            tokenizer=clip_tokenizer(),
            tokenizer_2=t5_tokenizer(),
        )
    )


def quiet(pipeline: Pipeline) -> Pipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
