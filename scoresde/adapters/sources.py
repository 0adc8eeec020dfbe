r"""Models of other libraries, from the libraries' own objects.

Each function reads the process, the prediction type and the call of a library's model from its object, and
returns the score model. Nothing is imported from the libraries.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from solvers.doors.signatures import checked

from ..guidance.thresholds import thresholded
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..processes.custom import CustomProcess
from ..processes.process import Process
from ..processes.schedules import Geometric, Karras, LinearBeta
from ..processes.standard import EDM, VE, VP, Interpolant, SubVP
from ..processes.tabulated import Tabulated
from .foreign import Label, from_callable
from .signatures import Network, Order, order_of, read

EDGE = 2.0**-24  # how near to 0 and 1 the time of flows goes: a digit of float32


@checked
def from_edm(network: nn.Module) -> NetworkScore:
    r"""Returns the score model of a preconditioned network of EDM, called as `network(x, sigma, class_labels)`.

    Arguments:
        network: The network, such as the `EDMPrecond` of its repository, with `img_channels`, `img_resolution` and
            `label_dim`. Its labels are the condition `class_labels`, one-hot.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), equation (7)
        | https://arxiv.org/abs/2206.00364

    Examples:
        >>> class EDMPrecond(torch.nn.Module):
        ...     img_channels, img_resolution, label_dim, sigma_min, sigma_max = 1, 4, 0, 0, float("inf")
        ...     def forward(self, x, sigma):
        ...         return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
        >>> ss.from_edm(EDMPrecond()).shape
        (1, 4, 4)
    """

    least, most = getattr(network, "sigma_min", 0.0), getattr(network, "sigma_max", 80.0)
    low, high = max(float(least), 0.002), min(float(most), 80.0)
    rounded: Any = getattr(
        network, "round_sigma", lambda level: level
    )  # of nodes, which lie beyond
    process = EDM(Karras(min(low, float(rounded(low))), max(high, float(rounded(high)))))
    size, channels = getattr(network, "img_resolution", None), getattr(network, "img_channels", 3)
    conditions = ["class_labels"] if getattr(network, "label_dim", 0) else []
    shape = (channels, size, size) if isinstance(size, int) else None
    return from_callable(network, process, "data", conditions=conditions, shape=shape)


@checked
def from_k_diffusion(
    denoiser: Network,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    conditions: Sequence[str] = (),
    shape: tuple[int, ...] | None = None,
) -> NetworkScore:
    r"""Returns the score model of a denoiser of k-diffusion, called as `denoiser(x, sigma, **extra_args)`.

    Arguments:
        denoiser: The denoiser, or one of the library's wrappers of noise and v networks.
        sigma_min: The smallest noise level. By default, that of the denoiser, or 0.002 if it has none.
        sigma_max: The largest noise level. By default, that of the denoiser, or 80 if it has none.
        conditions: The names of its extra arguments.
        shape: The shape of one sample, if known.

    Examples:
        >>> model = ss.from_k_diffusion(lambda x, sigma: 0 * x, sigma_max=14.6, shape=(2,))
        >>> model.process.t_max
        14.6
    """

    known = {name: float(getattr(denoiser, name, default)) for name, default in
             (("sigma_min", 0.002), ("sigma_max", 80.0))}  # fmt: skip
    low, high = sigma_min or known["sigma_min"], sigma_max or known["sigma_max"]
    process = EDM(Karras(low, high))
    return from_callable(denoiser, process, "data", conditions=conditions, shape=shape)


@checked
def from_score_sde(
    network: nn.Module, sde: object, *, shape: tuple[int, ...] | None = None
) -> NetworkScore:
    r"""Returns the score model of a continuous-time network of score_sde, as in its `get_score_fn`.

    Arguments:
        network: The network, called as `network(x, labels)`.
        sde: Its `VPSDE`, `subVPSDE` or `VESDE`, from which the type's name and the constants are read.
        shape: The shape of one sample, if known.

    Raises:
        ValueError: If the SDE is of another type.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), appendix B
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> class VPSDE:
        ...     beta_0, beta_1, N = 0.1, 20.0, 1000
        >>> ss.from_score_sde(torch.nn.Identity(), VPSDE()).predicts  # no network, but a module
        'noise'
    """

    known: Any = sde
    kind = type(sde).__name__
    if kind == "VESDE":
        process: Process = VE(Geometric(float(known.sigma_min), float(known.sigma_max)))
        return from_callable(network, process, "score", label=Label("noise_level"), shape=shape)
    if kind not in ("VPSDE", "subVPSDE"):
        raise ValueError(
            f"sde must be a VPSDE, subVPSDE or VESDE of score_sde, but is of the type {kind}; use "
            "ss.from_callable with a process of its scales."
        )
    schedule = LinearBeta(float(known.beta_0), float(known.beta_1))
    process = VP(schedule) if kind == "VPSDE" else SubVP(schedule)
    return from_callable(network, process, "noise", label=999, shape=shape)


@checked
def from_guided_diffusion(
    network: nn.Module, diffusion: object, *, shape: tuple[int, ...] | None = None
) -> NetworkScore:
    r"""Returns the score model of a network of guided-diffusion or improved-diffusion.

    Arguments:
        network: The network, called as `network(x, t, y=...)`; a learned variance is ignored.
        diffusion: Its `GaussianDiffusion` with all training steps, from which betas and prediction type are
            read.
        shape: The shape of one sample, if known.

    Raises:
        ValueError: If the diffusion is respaced, or the network predicts the previous state.

    References:
        | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021)
        | https://arxiv.org/abs/2105.05233

    Examples:
        >>> import types
        >>> kind = types.SimpleNamespace(name="EPSILON")
        >>> betas = torch.linspace(1e-4, 0.02, 1000)
        >>> diffusion = types.SimpleNamespace(betas=betas, model_mean_type=kind, rescale_timesteps=False)
        >>> ss.from_guided_diffusion(torch.nn.Identity(), diffusion).process.t_max
        999.0
    """

    known = read(
        diffusion,
        ("betas", "model_mean_type"),
        "diffusion must be a GaussianDiffusion of guided-diffusion",
    )
    kinds = {"EPSILON": "noise", "START_X": "data"}
    kind = getattr(known.model_mean_type, "name", str(known.model_mean_type))
    if kind not in kinds:
        raise ValueError(
            f"diffusion must predict noise or data, but its model_mean_type is {kind}; only networks of EPSILON "
            "and START_X are known here."
        )
    steps = len(known.betas)
    if len(getattr(known, "timestep_map", range(steps))) != getattr(
        known, "original_num_steps", steps
    ):
        raise ValueError(
            f"diffusion must have all steps of training, but is respaced to {steps}; create it with "
            "timestep_respacing='', and choose the number of steps when you sample."
        )
    label = 1000 / steps if getattr(known, "rescale_timesteps", False) else None
    conditions = ["y"] if getattr(network, "num_classes", None) else []
    process = VP(Tabulated.from_betas(known.betas))
    return from_callable(
        network, process, kinds[kind], label=label, conditions=conditions, shape=shape
    )


@checked
def from_flow(
    network: Network,
    *,
    order: Order | None = None,
    data_at: Literal[0, 1] = 1,
    conditions: Sequence[str] = (),
    shape: tuple[int, ...] | None = None,
) -> NetworkScore:
    r"""Returns the score model of a flow-matching network, with :math:`x_t = (1 - t) z + t x_0` and dx/dt.

    With :math:`t = 0` at data, the velocity is :math:`u(x, t) = -v(x, 1 - t)`. It belongs to a Gaussian process
    if noise and data were paired at random. A network trained on optimal-transport pairs or by reflow gives a
    flow with its samples, latents and likelihood, but no score: do not use it with SDE solvers, guidance or
    `denoise`.

    Arguments:
        network: The network, called as `network(t, x)` in torchcfm, and as `network(x, t)` in flow_matching.
        order: The order of its arguments. By default, it follows from their names.
        data_at: The network's time of data: 1 in these libraries, 0 for networks whose velocity points to noise.
        conditions: The names of its conditions.
        shape: The shape of one sample, if known.

    Raises:
        ValueError: If the names do not determine the order.

    References:
        | Flow Matching for Generative Modeling (Lipman et al., 2023), example II
        | https://arxiv.org/abs/2210.02747

    Examples:
        >>> model = ss.from_flow(lambda t, x: -x / (1 - t)[:, None], shape=(2,))  # all data is 0
        >>> model.velocity(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[2., 2.]])
    """

    label, factor = (Label("t", -1.0, 1.0), -1.0) if data_at == 1 else (None, 1.0)
    return from_callable(
        network,
        Interpolant(t_min=EDGE, t_max=1 - EDGE),
        "velocity",
        label=label,
        order=order or _order(network),
        factor=factor,
        conditions=conditions,
        shape=shape,
    )


def _order(network: Network) -> Order:
    found = order_of(network)
    if found is None:
        raise ValueError(
            "order must be 'x, t' or 't, x', since the names of the network's arguments do not tell which of them "
            "is the time."
        )
    return found


@checked
def from_azula(
    denoiser: nn.Module, *, conditions: Sequence[str] = (), shape: tuple[int, ...] | None = None
) -> NetworkScore:
    r"""Returns the score model of an azula denoiser, whose `denoiser(x, t).mean` is the denoised data.

    Arguments:
        denoiser: The denoiser, with its `schedule`.
        conditions: The names of its per-sample keyword arguments.
        shape: The shape of one sample, if known.

    Examples:
        >>> import types
        >>> class Denoiser(torch.nn.Module):
        ...     def schedule(self, t):
        ...         return 1 - 0.99 * t, 0.01 + 0.99 * t
        ...     def forward(self, x, t):
        ...         return types.SimpleNamespace(mean=0 * x)
        >>> ss.from_azula(Denoiser()).denoise(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[0., 0.]])
    """

    schedule = read(denoiser, ("schedule",), "denoiser must be one of azula").schedule
    process = CustomProcess(lambda t: schedule(t)[0], lambda t: schedule(t)[1], t_min=1e-6)
    return from_callable(
        denoiser, process, "data", entry="mean", conditions=conditions, shape=shape
    )


@checked
def from_lucidrains(diffusion: nn.Module, *, clip: bool = True) -> ScoreModel:
    r"""Returns the score model of a `GaussianDiffusion` or `ElucidatedDiffusion` of denoising-diffusion-pytorch.

    Data lies in [-1, 1] here; their samplers return (x + 1) / 2.

    Arguments:
        diffusion: The diffusion, with its network.
        clip: Whether the denoised data is clipped to [-1, 1], as their samplers do.

    Raises:
        ValueError: If the network is conditioned on its own estimate.

    References:
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020)
        | https://arxiv.org/abs/2006.11239

    Examples:
        >>> class Diffusion(torch.nn.Module):
        ...     self_condition, objective = False, "pred_v"
        ...     channels, image_size = 1, (4, 4)
        ...     alphas_cumprod, model = torch.linspace(0.999, 0.001, 100), torch.nn.Identity()
        >>> ss.from_lucidrains(Diffusion(), clip=False).predicts
        'v'
    """

    known = read(
        diffusion, ("self_condition", "image_size", "channels"),
        "diffusion must be a GaussianDiffusion or ElucidatedDiffusion of denoising-diffusion-pytorch",
    )  # fmt: skip
    if known.self_condition:
        raise ValueError(
            "diffusion conditions on its own estimate (self_condition=True), which depends on the sampler's steps "
            "and is no function of x and t; train one without."
        )
    size = known.image_size
    shape = (known.channels, *((size, size) if isinstance(size, int) else size))
    model: NetworkScore
    if hasattr(known, "preconditioned_network_forward"):
        process: Process = EDM(Karras(float(known.sigma_min), float(known.sigma_max)))
        model = from_callable(known.preconditioned_network_forward, process, "data", shape=shape)
    else:
        predicts = {"pred_noise": "noise", "pred_x0": "data", "pred_v": "v"}[known.objective]
        process = VP(Tabulated.from_alphas_cumprod(known.alphas_cumprod))
        model = from_callable(known.model, process, predicts, shape=shape)
    return thresholded(model, 1.0) if clip else model


@checked
def from_sbi(estimator: object, *, shape: tuple[int, ...] | None = None) -> NetworkScore:
    r"""Returns the score model of a posterior of sbi's NPSE or FMPE, with the condition `observation`.

    Arguments:
        estimator: The vector field estimator, or the posterior that has one.
        shape: The shape of the parameters. By default, that of the estimator.

    Raises:
        ValueError: If the estimator standardises parameters outside of its network.

    Examples:
        >>> class Estimator(torch.nn.Module):
        ...     input_shape, t_min, t_max = (2,), 1e-3, 1.0
        ...     def mean_t_fn(self, t):
        ...         return (torch.exp(-5 * t))[:, None]
        ...     def std_fn(self, t):
        ...         return (1 - torch.exp(-10 * t)).sqrt()[:, None]
        ...     def score(self, input, condition, t):
        ...         return -input + 0 * condition
        >>> model = ss.from_sbi(Estimator()).given(observation=torch.ones(1, 2))
        >>> model.score(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[-1., -1.]])
    """

    known = read(
        getattr(estimator, "vector_field_estimator", estimator), ("input_shape", "mean_t_fn", "std_fn"),
        "estimator must be a vector field estimator of sbi, or a posterior that has one",
    )  # fmt: skip
    if getattr(known, "compose_enabled", False):
        raise ValueError(
            "estimator standardizes parameters outside its network (compose_standardization=True), so that its "
            "process is that of other parameters; train one without."
        )
    shape = shape or tuple(known.input_shape)

    def flat(scale: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda t: scale(t.reshape(-1)).reshape(t.shape)

    def call(x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        if flow:
            return known.ode_fn(x, observation, t)
        return known.score(x, observation, t)

    flow = hasattr(known, "noise_scale")
    process: Process = CustomProcess(
        flat(known.mean_t_fn), flat(known.std_fn), known.t_min, known.t_max
    )
    if flow:
        process = Interpolant(t_min=EDGE, t_max=1 - EDGE)
    return from_callable(
        call, process, "velocity" if flow else "score", conditions=["observation"], shape=shape
    )
