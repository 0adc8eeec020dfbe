r"""Options stand in signatures, as their groups say; conditions are numbers, tensors, and forms of these."""

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.checking.self_consistency import RESIDUALS
from scoresde.checking.verb import CHECK
from scoresde.comparing.bench import BENCH
from scoresde.editing.inpainting import INPAINT
from scoresde.editing.verb import TAKES
from scoresde.geometry.frequency_order import DECIDED
from scoresde.geometry.trajectory import FOLLOW
from scoresde.inference.draws import DRAW
from scoresde.latents.encoding import ENCODE
from scoresde.latents.noise_path import PATH, REPLAY
from scoresde.likelihood.batches import DENSITY, FREE
from scoresde.likelihood.classification import CLASSIFY
from scoresde.likelihood.discrete import DISCRETE
from scoresde.likelihood.modes import MODES
from scoresde.likelihood.transitions import TRANSITIONS
from scoresde.models.conditions import Condition
from scoresde.plots.maps import MAP
from scoresde.runs.options import GROUPS, OPTIONS, RunOptions, UntimedOptions
from scoresde.runs.resumed import RESUME
from scoresde.runs.takes import DEFAULTS, Takes
from scoresde.sampling import DECODE, SAMPLE

from ..test_reference import SPACES

OF_DENSITY = {"divergence", "probes", "nodes", "target_stderr"}
VERBS: dict[Callable[..., Any], tuple[Takes, set[str]]] = {  # what they take beside the model
    ss.sample: (SAMPLE, {"shape"}),
    ss.decode: (DECODE, {"z", "t_max"}),
    ss.encode: (ENCODE, {"x", "t_max"}),
    ss.resume: (RESUME, {"solution"}),
    ss.reconstruct: (ENCODE, {"x", "t_max", "one_state"}),
    ss.encode_noise: (PATH, {"x", "t_max", "chain"}),
    ss.NoisePath.replay: (REPLAY, {"self"}),
    ss.log_likelihood: (DENSITY, {"x", *OF_DENSITY}),
    ss.discrete_log_likelihood: (
        DISCRETE,
        {"x", "levels", "low", "high", "dequantization", "draws", "importance"},
    ),
    ss.classify: (CLASSIFY, {"x", "classes", "conditions", "prior", "by"}),
    ss.find_modes: (MODES, {"x", "tolerance", "max_calls", "density"}),
    ss.elbo: (FREE, {"x", "steps", "nodes", "draws"}),
    ss.path_density: (FREE, {"x", "steps", "paths"}),
    ss.transition_log_prob: (TRANSITIONS, {"solution", "eta"}),
    ss.views: (FREE, {"x"}),
    ss.plots.density: (MAP, {"file", "box", "over", "side"}),
    ss.inpaint: (INPAINT, {"x", "known", "method", "repeats", "t_max"}),
    ss.geometry.follow: (FOLLOW, {"shape", "parts"}),
    ss.inference.draw: (DRAW, {"count", "low", "high", "max_draws"}),
    ss.check_score: (CHECK, {"data", "against", "one_step"}),
    ss.spectra.decided: (DECIDED, {"x", "levels"}),
    ss.residuals: (RESIDUALS, {"data", "levels", "probes", "step", "derivatives"}),
    ss.compare: (
        BENCH,
        {"solvers", "budgets", "grids", "tolerances", "metrics", "data", "features", "samples",
         "reference_tolerance", "file", "workers", "progress"},
    ),
    ss.tune: (
        BENCH,
        {"budget", "solvers", "grids", "metric", "data", "samples", "held_out", "learned", "stochastic",
         "reference_tolerance", "file", "workers", "progress"},
    ),
}  # fmt: skip
OWN_SEED = (
    ss.check_score,
    ss.residuals,
    ss.spectra.decided,
    ss.compare,
    ss.tune,
)  # which measure with one seed, and draw none
KINDS = {name: hint for group in GROUPS for name, hint in typing.get_type_hints(group).items()}


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    r"""All public functions, classes and methods."""

    for space in SPACES.values():
        for name in space.__all__:
            known = getattr(space, name)
            if inspect.isclass(known):
                yield from (
                    (f"{name}.{n}", f) for n, f in vars(known).items() if inspect.isfunction(f)
                )
            elif inspect.isfunction(known):
                yield name, known


def keywords_of(function: Callable[..., Any]) -> inspect.Parameter | None:
    r"""What a function takes beside its named arguments."""

    kinds = inspect.signature(function).parameters.values()
    return next((p for p in kinds if p.kind is p.VAR_KEYWORD), None)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__qualname__)
def test_signatures_show_the_options_of_their_groups(verb: Callable[..., Any]) -> None:
    takes, own = VERBS[verb]
    shown = inspect.signature(verb).parameters
    assert set(shown) == {"model", "condition", *own, *takes.names}
    hints = typing.get_type_hints(inspect.unwrap(verb))
    for name in (n for n in takes.names if n in KINDS):
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        if verb in OWN_SEED and name == "seed":
            continue
        assert shown[name].default is DEFAULTS[name], name
        assert hints[name] == KINDS[name], name


def test_what_a_verb_takes_beside_its_options_is_a_condition() -> None:
    rests = {verb: keywords_of(verb) for _, verb in public() if verb not in (ss.edit,)}
    conditioned = [verb for verb, rest in rests.items() if rest and rest.annotation == Condition]
    guidances = {ss.classifier_free, ss.guidance.feedback, ss.guidance.plus_plus}
    compositions = {ss.inference.iid, ss.inference.factors}
    teaching = {
        ss.distilling.trajectories,
        ss.distilling.consistency,
        ss.distilling.progressive,
    }
    others = {
        ss.Comparison.html,
        ss.ScoreModel.given,
        ss.fine_tune,
        ss.train,
        ss.representation,
        ss.autoencoders.linear_probe,
        ss.autoencoders.pixel_elbo,
        ss.losses.reflow_pairs,
        ss.symbols.elbo,
        ss.chains.sample,
        ss.chains.elbo,
        ss.chains.log_likelihood,
        ss.chains.loss,
        ss.chains.ChainModel.given,
    }
    assert set(conditioned) == {*VERBS, *guidances, *compositions, *teaching, *others}


def test_no_public_function_takes_keywords_of_any_kind() -> None:
    for name, function in public():
        rest = keywords_of(function)
        assert rest is None or rest.annotation is not Any, f"{name}(**{rest.name})"


def test_owned_runs_take_what_their_networks_do() -> None:
    run, network = (inspect.signature(made).parameters for made in (ss.Stepwise, ss.NetworkScore))
    wanted = {n: p for n, p in network.items() if p.kind is p.KEYWORD_ONLY}
    assert {n: p for n, p in run.items() if p.kind is p.KEYWORD_ONLY} == wanted


def test_groups_are_all_there_is() -> None:
    assert typing.get_type_hints(RunOptions) == KINDS
    taken = {name for takes in TAKES.values() for name in takes.names}
    assert set(typing.get_type_hints(UntimedOptions)) == taken - {"times", "levels"}
    assert {f.name for f in fields(ss.Settings)} == set(OPTIONS) - {"plan"}
    assert len(set(OPTIONS)) == len(OPTIONS)
    text = "\n".join(inspect.getdoc(group) or "" for group in GROUPS)
    assert all(f"    {name}: " in text for name in OPTIONS)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: ss.encode(m, x, denoise=False), "denoise= has no effect on encode"),
        (lambda m, x: ss.encode(m, x, seed=1), "seed= has no effect on encode"),
        (lambda m, x: ss.reconstruct(m, x, eta=0.5), "eta= has no effect on a round trip"),
        (lambda m, x: ss.reconstruct(m, x, denoise=False), "denoise= has no effect on a round trip"),
        (lambda m, x: ss.log_likelihood(m, x, callback=print), "callback= has no effect on a likelihood"),
        (lambda m, x: ss.elbo(m, x, rtol=0.1), "rtol= has no effect here, since no path is solved"),
        (lambda m, x: ss.encode_noise(m, x, path=True), "path= has no effect on a noise path"),
        (lambda m, x: ss.edit(m, m, x, strength=0.5, eta=1.0), "eta= has no effect on method='encode'"),
    ],
)  # fmt: skip
def test_options_of_other_verbs_are_refused(call: Callable[..., Any], words: str) -> None:
    model = ss.GaussianOracle(torch.zeros(2), 0.5)
    with pytest.raises(ValueError, match=words):
        call(model, model.data(3))


def test_a_seed_that_is_said_is_told_from_the_default() -> None:
    takes = Takes("a test", *GROUPS)
    default = inspect.signature(ss.sample).parameters["seed"].default
    assert default == 0
    assert takes.said({"seed": default, "condition": {}}) == {}
    assert takes.said({"seed": 0, "condition": {"label": 1}}) == {"seed": 0, "label": 1}
    assert takes.said({"seed": None, "condition": {}}) == {"seed": None}


def shifted(x: Tensor, t: Tensor, where: Any) -> Tensor:
    r"""The denoised data of a point mass at `where`, given in some form."""

    if isinstance(where, dict):
        where = where["x"] + where["parts"][1]
    elif isinstance(where, tuple):
        where = where[0]
    return where.reshape(-1, 1).to(x).expand_as(x)


@pytest.mark.parametrize(
    ("condition", "right"),
    [
        (0.5, [0.5] * 4),
        ([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]),
        (np.arange(4.0), [0.0, 1.0, 2.0, 3.0]),
        (tuple(np.arange(4.0)), [0.0, 1.0, 2.0, 3.0]),
        (tuple(torch.arange(4.0)), [0.0, 1.0, 2.0, 3.0]),
        ((torch.arange(4.0), torch.ones(1, 7)), [0.0, 1.0, 2.0, 3.0]),
        ({"x": torch.arange(4.0), "parts": (1.0, np.full(4, 10.0))}, [10.0, 11.0, 12.0, 13.0]),
    ],
)
@pytest.mark.parametrize(
    "options", [{"steps": 4}, {"steps": 4, "batch_size": 3}, {"rtol": 0.01, "solver": "dopri5"}]
)
def test_conditions_have_many_forms(condition: Any, right: list[float], options: Any) -> None:
    model = ss.NetworkScore(shifted, ss.EDM(), "data", conditions=["where"], shape=(2,))
    model.data_scale = 3.0
    x = ss.sample(model, 4, where=condition, seed=1, dtype=torch.float64, **options).x
    torch.testing.assert_close(
        x, torch.tensor(right).double()[:, None].expand(4, 2), atol=1e-6, rtol=0
    )


def test_forms_of_conditions_are_held_against_the_batch() -> None:
    model = ss.NetworkScore(shifted, ss.EDM(), "data", conditions=["where"], shape=(2,))
    with pytest.raises(
        ValueError, match=r"where must have leading size 4 or 1, but has shape \(3,\)"
    ):
        ss.sample(model, 4, where={"x": torch.zeros(3), "parts": (0.0, 1.0)})
    with pytest.raises(TypeError, match=r"where\['x'\] must be"):
        ss.sample(model, 4, where={"x": "three"})


def test_an_option_that_is_passed_at_its_default_is_passed() -> None:
    model = ss.GaussianOracle(torch.zeros(2), 0.5)
    plan = ss.Plan({"solver": "heun", "steps": 5, "denoise": False})
    assert ss.sample(model, 3, plan=plan, seed=0).calls.tolist() == [10] * 3
    with pytest.raises(ValueError, match="denoise= is already set by plan="):
        ss.sample(model, 3, plan=plan, seed=0, denoise=True)


def test_labels_are_no_form() -> None:
    oracle = ss.MixtureOracle(torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), 0.3)
    with pytest.raises(
        TypeError, match="label must be one number for each sample, .* but is a tuple"
    ):
        ss.sample(oracle, 2, label=(torch.tensor([0, 1]),))
