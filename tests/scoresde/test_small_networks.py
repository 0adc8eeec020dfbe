r"""The networks of this package: their shapes, symmetries, derivatives, files, and what settings they refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scoresde as ss
from scoresde.networks import MLP, DiT, Encoder, UNet, dit, mlp
from scoresde.networks.attention import CrossAttention, SelfAttention, attend
from scoresde.networks.dit import modulated, places
from scoresde.networks.unet import frequencies

F64 = torch.float64
IMAGE: dict[str, Any] = {"channels": 2, "classes": 3, "self_conditioning": True}
SETTINGS: dict[type[nn.Module], dict[str, Any]] = {
    MLP: {"size": 5, "width": 16, "depth": 2, "classes": 3, "self_conditioning": True},
    DiT: {**IMAGE, "size": 4, "width": 16, "depth": 2, "heads": 2, "context": 3},
    UNet: {**IMAGE, "width": 8, "multipliers": [1, 2], "blocks": 1},
}
SHAPES = {MLP: (5,), DiT: (2, 4, 4), UNet: (2, 4, 4)}
KINDS = pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
T = torch.tensor([0.1, 0.5, 0.9], dtype=F64)


def test_frequencies_rise_in_equal_ratios_on_the_device_of_the_network() -> None:
    found = frequencies(5)
    assert torch.allclose(
        found, 100 ** torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=found.dtype)
    )
    assert torch.allclose(frequencies(5, 0.01), 1 / found)
    with torch.device("meta"):
        assert frequencies(5).is_meta


def made(kind: type[nn.Module], *, random: bool = True, **others: Any) -> nn.Module:
    r"""A network in float64, with weights that are random everywhere unless it is as it starts."""

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind(**{**SETTINGS[kind], **others}).double().eval()
        if random:
            for weight in network.parameters():
                nn.init.normal_(weight, std=0.3)
    return network


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def states(kind: type[nn.Module], seed: int = 0) -> Tensor:
    return drawn(3, *SHAPES[kind], seed=seed)


@KINDS
def test_before_training_the_output_does_not_depend_on_the_input(kind: type[nn.Module]) -> None:
    network = made(kind, random=False)
    found = network(states(kind), T)
    other = network(states(kind, 1), T.flip(0), torch.tensor([0, 1, 2]), estimate=states(kind, 2))
    assert torch.equal(found, other)
    assert found.shape == states(kind).shape
    assert kind is UNet or not found.any()


def test_blocks_of_the_transformer_start_as_the_identity() -> None:
    network, h = made(DiT, random=False), drawn(3, 4, 16)
    for block in network.blocks:
        assert torch.equal(block(h, drawn(3, 16), drawn(3, 2, 3), None), h)


@KINDS
def test_rows_depend_on_their_own_input_alone(kind: type[nn.Module]) -> None:
    network, x, label = made(kind), states(kind), torch.tensor([0, 1, 2])
    whole = network(x, T, label, estimate=0.5 * x)
    for i in range(3):
        row = slice(i, i + 1)
        alone = network(x[row], T[row], label[row], estimate=0.5 * x[row])
        assert torch.allclose(alone, whole[row], rtol=1e-12, atol=1e-12)


@KINDS
def test_the_output_depends_on_time_label_and_estimate(kind: type[nn.Module]) -> None:
    network, x = made(kind), states(kind)
    plain = network(x, T)
    none = torch.full((3,), 3)
    assert torch.equal(network(x, T, none), plain)  # the label that stands for none
    assert torch.equal(network(x, T, estimate=torch.zeros_like(x)), plain)
    for other in (
        network(x, T + 0.01),
        network(x, T, torch.zeros(3, dtype=torch.int64)),
        network(x, T, estimate=x),
    ):
        assert ((other - plain).flatten(1).abs().amax(1) > 1e-6).all()


@KINDS
def test_forward_derivatives_are_those_of_differences(kind: type[nn.Module]) -> None:
    network, x, v = made(kind), states(kind), states(kind, 1)
    context = {"context": drawn(3, 2, 3)} if kind is DiT else {}

    def field(x: Tensor) -> Tensor:
        return network(x, T, estimate=0.1 * x, **context)

    _, slope = torch.func.jvp(field, (x,), (v,))
    h = 1e-5
    assert torch.allclose(slope, (field(x + h * v) - field(x - h * v)) / (2 * h), atol=1e-7)
    assert slope.abs().max() > 0.1


@KINDS
def test_second_derivatives_are_those_of_differences(kind: type[nn.Module]) -> None:
    network, v = made(kind), states(kind, 1)

    def gradient(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: network(x, T, estimate=x).square().sum())(x)

    x, h = states(kind), 1e-5
    leaf = x.clone().requires_grad_()
    found = network(leaf, T, estimate=leaf).square().sum()
    (first,) = torch.autograd.grad(found, leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * v).sum(), leaf)
    right = (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)
    assert torch.allclose(second, right, rtol=1e-5, atol=1e-5)


@KINDS
def test_files_keep_every_bit(kind: type[nn.Module], tmp_path: Path) -> None:
    names = ("label", "estimate", *(["context"] if kind is DiT else []))
    network = made(kind)
    model = ss.NetworkScore(network, ss.VP(), "v", conditions=names, shape=SHAPES[kind])
    card = {"network": {"settings": SETTINGS[kind]}}
    again = ss.load(ss.save(model, tmp_path / "model", card, dtype=F64))
    x, given = states(kind), {"label": torch.tensor([0, 1, 2]), "estimate": states(kind, 1)}
    given |= {"context": drawn(3, 2, 3)} if kind is DiT else {}
    a, b = (ss.decode(one, x, steps=3, **given).x for one in (model, again))
    assert torch.equal(a, b)
    assert again.card["network"]["name"] == kind.__name__


# ---- the U-Net with and without self-conditioning


def test_a_unet_without_self_conditioning_keeps_its_weights() -> None:
    plain, more = made(UNet, self_conditioning=False), made(UNet)
    assert plain.state_dict().keys() == more.state_dict().keys()
    known = dict(plain.state_dict())
    known["first.weight"] = torch.cat([known["first.weight"], drawn(8, 2, 3, 3)], dim=1)
    more.load_state_dict(known)
    x = states(UNet)
    assert torch.allclose(more(x, T), plain(x, T), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(more(x, T, estimate=x), plain(x, T))


# ---- attention


def test_attention_is_that_of_torch() -> None:
    q, k, v = drawn(2, 3, 4, 5), drawn(2, 3, 6, 5, seed=1), drawn(2, 3, 6, 5, seed=2)
    seen = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 0, 1, 0, 0, 0]]).bool()
    right = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
    assert torch.allclose(attend(q, k, v, seen), right, rtol=1e-12, atol=1e-12)
    assert torch.allclose(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))
    flat = attend(0 * q, k, v)
    assert torch.allclose(flat, v.mean(2, keepdim=True).expand_as(flat))


def test_self_attention_is_that_of_torch() -> None:
    layer = SelfAttention(8, 2).double()
    other = nn.MultiheadAttention(8, 2, batch_first=True, dtype=F64)
    weights = {"in_proj_weight": layer.qkv.weight, "in_proj_bias": layer.qkv.bias}
    other.load_state_dict(
        {**weights, "out_proj.weight": layer.out.weight, "out_proj.bias": layer.out.bias}
    )
    x = drawn(2, 5, 8)
    assert torch.allclose(layer(x), other(x, x, x)[0], rtol=1e-10, atol=1e-12)


CONTEXT = drawn(3, 4, 3, seed=5)
MASK = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])


def test_the_order_of_tokens_has_no_meaning() -> None:
    network, x, order = made(DiT), states(DiT), torch.tensor([2, 0, 3, 1])
    for mask in (None, MASK):
        found = network(x, T, context=CONTEXT, context_mask=mask)
        moved = None if mask is None else mask[:, order]
        other = network(x, T, context=CONTEXT[:, order], context_mask=moved)
        assert torch.allclose(found, other, rtol=1e-10, atol=1e-10)


def test_tokens_that_are_not_there_have_no_influence() -> None:
    network, x = made(DiT), states(DiT)
    found = network(x, T, context=CONTEXT, context_mask=MASK)
    for filler in (1e6, torch.nan):
        other = CONTEXT.masked_fill(MASK[..., None] == 0, filler)
        assert torch.equal(network(x, T, context=other, context_mask=MASK), found)
    none = network(x, T)
    assert torch.allclose(found[2], none[2], rtol=1e-10, atol=1e-10)
    assert (found[:2] - none[:2]).abs().max() > 1e-3
    short = network(x[1:2], T[1:2], context=CONTEXT[1:2, 1:2])
    assert torch.allclose(found[1:2], short, rtol=1e-10, atol=1e-10)


def test_attention_to_a_condition_starts_at_nothing() -> None:
    layer = CrossAttention(8, 2, 3)
    assert not layer(torch.randn(2, 5, 8), torch.randn(2, 4, 3), None).any()


def test_guidance_asks_without_the_tokens() -> None:
    network = made(DiT, self_conditioning=False)
    model = ss.NetworkScore(network, ss.EDM(), "data", conditions=["context"], shape=(2, 4, 4))
    guided = ss.classifier_free(model, 3.0, context=CONTEXT)
    x, t = states(DiT), torch.tensor(0.7, dtype=F64)
    time = t.expand(3)
    free, bound = network(x, time), network(x, time, context=CONTEXT)
    assert torch.allclose(guided.denoise(x, t), free + 3.0 * (bound - free), rtol=1e-10)


# ---- patches


def test_patches_are_put_back_where_they_were() -> None:
    network = DiT(channels=3, size=6, patch=2, width=8, heads=2)
    x = torch.arange(2 * 3 * 36.0).reshape(2, 3, 6, 6)
    tokens = network._patches(x)
    assert torch.equal(
        tokens[1, 5].reshape(3, 2, 2), x[1, :, 2:4, 4:6]
    )  # second row, third column
    assert torch.equal(network._image(tokens), x)


def test_places_differ_and_are_of_rows_and_columns() -> None:
    table = places(4, 16).reshape(4, 4, 16)
    assert torch.pdist(table.flatten(0, 1)).min() > 0.1
    assert torch.equal(table[:, 1, :8], table[:, 2, :8])
    assert torch.equal(table[1, :, 8:], table[2, :, 8:])


def test_without_places_the_transformer_does_not_know_where_a_patch_is() -> None:
    network, x = made(DiT), states(DiT)
    network.places.zero_()
    turned = x.roll((2, 2), dims=(2, 3))  # whole patches
    found = network(turned, T).roll((-2, -2), dims=(2, 3))
    assert torch.allclose(found, network(x, T), rtol=1e-10, atol=1e-10)


# ---- what is refused

BAD = [
    (lambda: MLP(0), "size must be at least 1, but is 0"),
    (lambda: MLP(2, width=1), "width must be at least 2, but is 1"),
    (lambda: MLP(2, width=2.5), "width must be a whole number, but is 2.5"),
    (lambda: MLP(2, depth=0), "depth must be at least 1"),
    (lambda: MLP(2, classes=-1), "classes must be at least 0"),
    (lambda: MLP(2, dropout=1.0), r"dropout must lie in \[0, 1\), but is 1"),
    (lambda: MLP(2, self_conditioning=1), "self_conditioning must be True or False"),
    (lambda: DiT(size=9), "size must be a multiple of 2, the size of a patch, but is 9"),
    (lambda: DiT(patch=0), "patch must be at least 1"),
    (lambda: DiT(width=30), "width must be a multiple of 4, of 4 and of the number of heads"),
    (lambda: DiT(heads=0), "heads must be at least 1"),
    (lambda: DiT(context=-1), "context must be at least 0"),
    (lambda: DiT(width="wide"), "width must be a whole number, but is 'wide'"),
    (lambda: UNet(width=12), r"width \* 1 must be a multiple of 8, the groups of its norms, but is 12"),
    (lambda: UNet(width=24, multipliers=[1, 0]), "multipliers must be at least 1, but is 0"),
    (lambda: UNet(multipliers=[]), "multipliers must hold one number for each level"),
    (lambda: UNet(multipliers=2), "multipliers must be a list"),
    (lambda: UNet(blocks=-1), "blocks must be at least 0"),
    (lambda: UNet(dropout=-0.1), r"dropout must lie in \[0, 1\)"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), BAD)
def test_settings_of_no_network_are_refused(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        make()


X = torch.zeros(2, 1, 8, 8)
PLAIN = DiT(width=8, heads=2, depth=1)
TOKENS = DiT(width=8, heads=2, depth=1, context=3)
TWICE = UNet(width=8, self_conditioning=True)
ASKED = [
    (lambda t: PLAIN(X[:, 0], t), r"x must have shape \(B, 1, 8, 8\) for this DiT, but has"),
    (lambda t: MLP(2)(torch.zeros(2, 3), t), r"x must have shape \(B, 2\) for this MLP"),
    (lambda t: UNet(width=8)(torch.zeros(2, 3, 8, 8), t), r"\(B, 1, H, W\) for this UNet"),
    (lambda t: UNet(width=8)(torch.zeros(2, 1, 7, 8), t), "multiples of 2, for 1 halvings, but has 7 and 8"),
    (lambda t: PLAIN(X, t, context=torch.zeros(2, 1, 3)), "make this one with context="),
    (lambda t: TOKENS(X, t, context=torch.zeros(2, 3)), r"context must have shape \(2, n, 3\)"),
    (lambda t: TOKENS(X, t, context_mask=torch.ones(2, 1)), "no effect without context="),
    (lambda t: TOKENS(X, t, None, torch.zeros(2, 4, 3), torch.ones(2, 3)), r"mask must have shape \(2, 4\)"),
    (lambda t: PLAIN(X, t, estimate=X), "make this one by DiT.*self_conditioning=True"),
    (lambda t: TWICE(X, t, estimate=X[:1]), "estimate must have the shape of x"),
    (lambda t: PLAIN(X, t, label=torch.zeros(2).long()), "label= is for networks with classes"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "words"), ASKED)
def test_inputs_that_do_not_fit_are_named(ask: Callable[[Tensor], Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ask(torch.zeros(2))


def test_every_network_has_a_row_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    for kind in (*SETTINGS, Encoder):
        assert f"| `{kind.__name__}` |" in page


def test_modulation_of_nothing_is_the_norm() -> None:
    x, none, one = torch.randn(2, 3, 8), torch.zeros(2, 1, 8), torch.ones(2, 1, 8)
    norm = (x - x.mean(2, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(modulated(x, none, none), norm, atol=1e-6)
    assert torch.allclose(modulated(x, 2 * one, -one), 3 * norm - 1, atol=1e-5)


def test_blocks_are_their_formulas() -> None:
    torch.manual_seed(0)
    layers, tokens = mlp.Block(8, 0.0), dit.Block(8, 2, 0, 0.0)
    for part in (*layers.parameters(), *tokens.parameters()):
        torch.nn.init.normal_(part, std=0.3)
    h, features = torch.randn(3, 8), torch.randn(3, 8)
    s, b = layers.modulate(features).chunk(2, 1)
    inner = torch.nn.functional.silu((1 + s) * layers.inner(layers.norm(h)) + b)
    assert torch.allclose(layers(h, features), h + layers.outer(inner), atol=1e-6)
    x = torch.randn(3, 5, 8)
    s1, b1, g1, s2, b2, g2 = tokens.modulate(features)[:, None].chunk(6, 2)
    norm = torch.nn.LayerNorm(8, elementwise_affine=False)
    first = x + g1 * tokens.attention((1 + s1) * norm(x) + b1)
    second = first + g2 * tokens.layers((1 + s2) * norm(first) + b2)
    assert torch.allclose(tokens(x, features, None, None), second, atol=1e-5)
