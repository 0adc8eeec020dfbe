r"""What users write: type checkers accept it as it is, and it runs."""

from typing import TYPE_CHECKING

import numpy as np
import torch

import scoresde as ss
import solvers

data = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
model = ss.GaussianOracle([0.0, 0.0], 0.5, ss.VP())
mixture = ss.MixtureOracle(np.array([[-1.0, 0.0], [1.0, 0.0]]), 0.5, process=ss.VP())

ss.sample(model, 3, times=[1.0, 0.5, 0.01], seed=0)
ss.sample(model, (3, 2), times=np.linspace(1, 0.01, 5), seeds=np.arange(3))
ss.sample(model, [3, 2], seeds=range(3))
ss.sample(model, np.array([3, 2]), seeds=torch.arange(3), device="cpu")
ss.sample(model, 3, seeds=(1, 2, 3), rtol=1, atol=1e-3, solver=solvers.get("exponential"))
ss.sample(mixture, 3, label=[0, 1, 1], seed=0)
ss.sample(mixture, 3, label=1, noise=np.zeros((3, 3, 2)), solver="ancestral", steps=3, seed=0)
ss.sample(
    ss.classifier_free(mixture, 2, label=np.array([0, 1, 1]), negative={"label": 0}), 3, seed=0
)
ss.sample(mixture.given(label=1), 3, plan=ss.Plan({"solver": "heun", "steps": 2}), seed=0)

z = ss.encode(model, data, solver="ddim", times=(0.01, 0.5, 1))
assert z.solver is not None
name: str = z.solver.undone_by.name
order: float = z.solver.order
ss.sample(model, 3, solver=z.solver, steps=z.solver.calls(3), seed=0)
ss.decode(model, z)
ss.decode(model, z.x.numpy(), t_max=1, seed=0)
ss.encode(model, [[1.0, 2.0], [3.0, 4.0]], steps=3)
ss.reconstruct(model, data, steps=20)
ss.log_likelihood(model, data, times=[1e-5, 0.1, 0.3, 1.0], solver="rk4")
ss.elbo(model, data)
ss.edit(model, model, data, noise_level=0.5, seeds=np.arange(3), method="noise")
ss.interpolate(data[:1], data[1:2], 3)
ss.moments(data)
ss.quantize(data, levels=3)
ss.compare(model, ["ddim", solvers.get("heun")], budgets=(2,), samples=8, progress=False).best(
    budget=2
)
ss.Settings(times=[1.0, 0.5], seeds=[1])
z.rows(0), z[:2], z.rows([0, 1]), z.rows(np.array([True, False, True]))

decay = solvers.ODE(lambda t, x: -x)
solvers.solve(decay, data, [0.0, 0.5, 1.0], "rk4")
for event in solvers.steps(decay, [[1.0]], np.array([0.0, 1.0]), "euler"):
    share: float = event.fraction

if TYPE_CHECKING:  # and what runs refuse, type checkers refuse
    ss.sample(model, 3, times="late")  # type: ignore[arg-type]
    ss.sample(model, 3, seeds=[0.5])  # type: ignore[list-item]
    ss.sample(model, "many")  # type: ignore[arg-type]
    ss.encode(model, None)  # type: ignore[arg-type]
    name = z.solver.undone_by.nme  # type: ignore[attr-defined]
