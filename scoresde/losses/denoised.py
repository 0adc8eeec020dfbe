r"""The denoising loss, of which most objectives of the field are weights, targets and couplings."""

from torch import Tensor

from solvers.doors.signatures import checked

from ..models.estimate import estimate
from ..models.score_model import ScoreModel
from ..processes.blocks.process import BlockProcess
from .block_errors import BLOCK_WEIGHTS, as_error
from .noised import mean_square, noised
from .weights import Weight, weights


@checked
def denoising(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    weight: str | Weight = "edm",
    **condition: Tensor,
) -> Tensor:
    r"""Returns the weighted squared error of the denoised data at given noise levels, with shape (B,).

    .. math:: \frac{w}{d} \, |D(x_t) - x|^2 , \qquad x_t = \alpha x + \sigma z

    For independent noise z, the minimiser is :math:`D = \mathbb{E}[x \mid x_t]` for any weight. For a pair
    (x, z), it is the same conditional mean, whose velocity transports the law of z to that of x.

    A prediction of a network is linear in D, so its error is a weight. With :math:`s = \sigma / \alpha`,
    :math:`\lambda = -\log s` and the root mean square c of the data, the weights are

    - "data": 1; "noise": :math:`1 / s^2`; "score": :math:`1 / (s^2 \sigma^2)`; "v":
      :math:`((\alpha^2 + \sigma^2) / \sigma)^2`; "velocity": :math:`(\alpha \dot \lambda)^2`; "edm":
      :math:`1 / s^2 + 1 / c^2`. Each is the plain error of that prediction, so `weight=model.predicts` is the
      error of the network's output.
    - "min_snr": :math:`\min(1 / s^2, \gamma)`, with :math:`\gamma = 5` or as in "min_snr:3".
    - "soft_min_snr": :math:`1 / (s^2 + 1 / \gamma)`, with :math:`\gamma = 1 / c^2` or as in "soft_min_snr:4".
    - "sigmoid": :math:`\operatorname{sigmoid}(b - 2 \lambda) / s^2`, with b = 0 or as in "sigmoid:-1".
    - "likelihood": :math:`-\dot \lambda / s^2 = \frac{1}{2} g^2 (\alpha / \sigma^2)^2`, with which levels that
      are uniform in time give the evidence lower bound. For levels that are uniform in log-SNR, "noise" does.

    For a process on blocks, each prediction's error is taken with its matrix, so that "noise", of a process with
    velocities, is hybrid score matching, and "likelihood" is the squared error of :math:`G^T` times the score.

    How much a level counts is its weight times the density with which levels are drawn. See
    :mod:`scoresde.losses.levels`.

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
        z: Standard noise, or the partners of the data in pairs, with shape (B, *).
        weight: The name of a weight, or a function `weight(process, log_snr, data_std)` that returns weights
            with the shape of `log_snr`, in float64.
        condition: The conditions.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        | equation (8), for "edm"
        | https://arxiv.org/abs/2206.00364
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020), equation (14), for "noise"
        | https://arxiv.org/abs/2006.11239
        | Progressive Distillation (Salimans and Ho, 2022), section 4, for "v"
        | https://arxiv.org/abs/2202.00512
        | Flow Matching for Generative Modeling (Lipman et al., 2023), for "velocity"
        | https://arxiv.org/abs/2210.02747
        | Efficient Diffusion Training via Min-SNR Weighting Strategy (Hang et al., 2023), for "min_snr"
        | https://arxiv.org/abs/2303.09556
        | Scalable High-Resolution Pixel-Space Image Synthesis with Hourglass Diffusion Transformers (Crowson et
        | al., 2024), for "soft_min_snr"
        | https://arxiv.org/abs/2401.11605
        | Understanding Diffusion Objectives as the ELBO (Kingma and Gao, 2023), for "sigmoid"
        | https://arxiv.org/abs/2303.00848
        | Score-Based Generative Modeling with Critically-Damped Langevin Diffusion (Dockhorn et al., 2022),
        | equation (8), for hybrid score matching
        | https://arxiv.org/abs/2112.07068
        | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021), equation (7), for
        | "likelihood"
        | https://arxiv.org/abs/2101.09258

    Examples:
        >>> x, z = torch.zeros(2, 2), torch.ones(2, 2)  # data of deviation 0.5, whose D = x / (1 + 4 s^2)
        >>> ss.losses.denoising(model, x, torch.zeros(2), z, weight="data")  # (1 / 5)^2
        tensor([0.0400, 0.0400])
    """

    known = noised(model, x, log_snr, z, condition)
    if isinstance(model.process, BlockProcess) and weight in BLOCK_WEIGHTS:
        D = model.denoise(known.state, known.t, **known.condition)
        return mean_square(as_error(model, model.process, str(weight), D - known.x, known.t))
    w = weights(weight, model.process, known.log_snr, model.data_std)
    error = estimate(model, known.state, known.t, **known.condition) - known.x
    return w.to(known.x) * mean_square(error)
