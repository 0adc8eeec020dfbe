r"""A solver of one's own works in every verb, whatever it is called; files hold what its name can bring back."""

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from solvers.catalogue import label, name_of
from solvers.methods.runge_kutta import RungeKutta

from .cases import mixture

MODEL = mixture(ss.VP())


def tableau_of(known: str, name: str) -> solvers.Solver:
    r"""A known method under another name."""

    return RungeKutta(dataclasses.replace(solvers.get(known).tableau, name=name))


DISGUISED = tableau_of("heun", "euler")  # a name of the catalogue's
OWN = tableau_of("heun", "my_heun")  # and one of its own
GRID = {"steps": 30, "clock": "log_snr"}


@pytest.fixture
def data() -> Tensor:
    return MODEL.data(4, seed=3)


@pytest.mark.parametrize("mine", [DISGUISED, OWN])
def test_every_way_is_that_of_the_object(mine: solvers.Solver, data: Tensor) -> None:
    z = ss.encode(MODEL, data, solver=mine, **GRID)
    right = ss.encode(MODEL, data, solver="heun", **GRID)
    assert torch.equal(z.x, right.x)
    assert z.solver == mine
    back = ss.decode(MODEL, right, denoise=False).x
    for options in ({}, {"solver": mine}):
        assert torch.equal(ss.decode(MODEL, z, denoise=False, **options).x, back)
    found = ss.sample(MODEL, 4, solver=mine, seed=1, **GRID).x
    assert torch.equal(found, ss.sample(MODEL, 4, solver="heun", seed=1, **GRID).x)
    trips = [ss.reconstruct(MODEL, data, solver=s, **GRID).rms for s in (mine, "heun")]
    assert torch.equal(*trips)
    edits = [
        ss.edit(MODEL, MODEL, data, noise_level=0.5, solver=s, **GRID).x for s in (mine, "heun")
    ]
    assert torch.equal(*edits)


def test_changed_settings_lead_back_and_into_files(data: Tensor, tmp_path: Path) -> None:
    mine = dataclasses.replace(solvers.get("edict"), mix=0.8)
    assert name_of(mine) == "edict:mix=0.8"
    z = ss.encode(MODEL, data, solver=mine, steps=20)
    alpha = MODEL.process.scales(z.times[0])[0]
    ss.save_latents(tmp_path / "z.npz", z)
    for latents in (z, z.rows([0, 1, 2, 3]), ss.load_latents(tmp_path / "z.npz")):
        back = ss.decode(MODEL, latents, denoise=False).x / alpha
        torch.testing.assert_close(back, data, rtol=0, atol=1e-9)


def test_what_no_name_brings_back_goes_into_no_file(data: Tensor, tmp_path: Path) -> None:
    assert name_of(DISGUISED) is None
    assert label(DISGUISED) == "euler (own)"
    z = ss.encode(MODEL, data, solver=DISGUISED, **GRID)
    with pytest.raises(ValueError, match="differs from the solver of that name in the catalogue"):
        ss.save_latents(tmp_path / "z.npz", z)
    assert z.provenance["solver"] == "euler (own)"
    with pytest.raises(ValueError, match="leave out file="):
        ss.compare(MODEL, [OWN], [6], samples=4, file=tmp_path / "c.json", progress=False)
    with pytest.raises(ValueError, match="two solvers are named 'my_heun'"):
        ss.compare(MODEL, [OWN, tableau_of("euler", "my_heun")], [6])
    assert not list(tmp_path.iterdir())


def test_solvers_of_ones_own_are_compared(tmp_path: Path) -> None:
    c = ss.compare(MODEL, [DISGUISED, "heun", "euler"], [21], samples=8, progress=False)
    errors = {row.solver: row.error for row in c.rows}
    assert errors["euler (own)"] == errors["heun"]
    assert errors["euler"] != errors["heun"]
    own = ss.compare(MODEL, [OWN], [21], samples=8, progress=False)
    assert own.rows[0].error == errors["heun"]
    found = ss.sample(MODEL, 8, plan=own.best(budget=21), seed=5).x
    right = ss.sample(MODEL, 8, solver="heun", steps=10, grid="rho", clock="log_snr", seed=5).x
    assert torch.equal(found, right)
    for save in (own.save, own.best(budget=21).save):
        with pytest.raises(
            ValueError, match="differs from the solver of that name in the catalogue"
        ):
            save(tmp_path / "file.json")


def test_solvers_of_ones_own_are_searched() -> None:
    mine = dataclasses.replace(solvers.get("dpmpp_2m"), name="ddim")
    plans = [
        ss.tune(MODEL, 5, solvers=[s], grids=["rho"], samples=8, held_out=8, progress=False)
        for s in (mine, "dpmpp_2m")
    ]
    assert plans[0].noise_levels == plans[1].noise_levels
    assert plans[0].figures["error"] == plans[1].figures["error"]
    drawn = [ss.sample(MODEL, 4, plan=plan, seed=2).x for plan in plans]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name", solvers.available())
def test_solvers_of_the_catalogue_are_pickled(name: str) -> None:
    assert pickle.loads(pickle.dumps(solvers.get(name))) == solvers.get(name)


@dataclasses.dataclass(frozen=True)
class Damped(solvers.Solver):
    name: str = "damped"
    depth: float = -3.0  # which means another thing in the catalogue
    broken: bool = False

    @property
    def can(self) -> solvers.Abilities:
        return (
            self.missing
            if self.broken
            else solvers.Abilities(solves=solvers.ODE, order=1, calls_per_step=1)
        )


def test_fields_of_ones_own_mean_what_they_mean_there() -> None:
    assert Damped().order == 1
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = Damped(broken=True).order
