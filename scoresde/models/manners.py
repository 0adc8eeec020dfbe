r"""How a network treats the tensors that pass between it and a run.

A run needs its state after the network was called, and earlier outputs after later calls. Some networks write into
their input, and some return one buffer again and again, as those that replay a CUDA graph do. The first calls show
which, and only these cost copies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor


@dataclass
class Manners:
    r"""Creates the record of what earlier calls of a network have revealed.

    Attributes:
        leaves_input: Whether it leaves its input as it is, or `None` if that is not known.
        reuses_output: Whether it returns the same buffer as before, or `None` if that is not known.
        output: The last output, until another of this shape shows whether it is reused.
    """

    leaves_input: bool | None = None
    reuses_output: bool | None = None
    output: Tensor | None = None

    def call(
        self,
        network: Callable[..., Tensor],
        x: Tensor,
        dtype: torch.dtype,
        t: Tensor,
        condition: Mapping[str, object],
    ) -> Tensor:
        r"""Returns the output of a network, which no later call changes, and leaves the state as it is.

        Arguments:
            network: The network.
            x: The state, with shape (B, *).
            dtype: The dtype in which the network receives the state.
            t: The times, with shape (B,).
            condition: The conditions.

        Raises:
            RuntimeError: If the network writes into its input, after earlier calls did not.
        """

        seen = x.dtype == dtype and _shows_writes(x)
        lent = seen and self.leaves_input
        given = x if lent else x.to(dtype, copy=True)
        before = given._version if lent else 0
        F = network(given, t, **condition)
        if lent and given._version != before:
            raise RuntimeError(
                "the network changed its input in place, though not in earlier calls; begin its forward with "
                "x = x.clone(), so that the state is not lost."
            )
        if seen and self.leaves_input is None:
            self.leaves_input = torch.equal(given, x)
        return self._own(F) if seen and isinstance(F, Tensor) else F

    def _own(self, F: Tensor) -> Tensor:
        r"""Returns an output that later calls do not change."""

        if self.reuses_output is None:
            before, self.output = self.output, F
            if before is None or before.shape != F.shape:
                return F.clone()
            self.reuses_output, self.output = F.data_ptr() == before.data_ptr(), None
        return F.clone() if self.reuses_output else F


def _shows_writes(x: Tensor) -> bool:
    r"""Whether a tensor is an ordinary one without gradients, on which changes in place are seen."""

    plain = not (torch.is_grad_enabled() or x.is_inference() or is_functorch_wrapped_tensor(x))
    return plain and not torch.compiler.is_compiling()
