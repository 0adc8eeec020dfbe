r"""What is printed is short, the same in every run, and says what matters."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import scoresde as ss
from scoresde.doors.tables import html_table
from scoresde.runs.settings import Settings

ORACLE = ss.MixtureOracle(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.3, process=ss.VP())
FLAT = ss.GaussianOracle(torch.zeros(1, 6, 6), 1.0)
X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))


def custom() -> ss.CustomProcess:
    return ss.CustomProcess(lambda t: torch.ones_like(t), lambda t: 80 * t)


MADE: dict[str, tuple[Callable[[], object], str]] = {
    "noise path": (lambda: ss.encode_noise(ORACLE, X, steps=20),
                   "NoisePath((300, 2) by ancestral, 20 steps"),
    "bound": (lambda: ss.elbo(ORACLE, X), "Bound(300 samples, mean "),
    "moments": (lambda: ss.moments(X.repeat(1, 32)), "Moments(of samples (64,), 64 axes, variances from"),
    "diagonal": (lambda: ss.moments(X, "diagonal"), "Moments(of samples (2,), its own axes, variances from"),
    "settings": (lambda: Settings(steps=5, callback=lambda e: None), "Settings(solver=dpmpp_2m, steps=5"),
    "grid": (lambda: Settings(times=torch.linspace(1, 0.1, 500)), "times of shape (500,)"),
    "plan": (lambda: ss.Plan({"solver": "ddim"}, tuple(range(200, 1, -1))), "Plan(ddim (198 steps of its own))"),
    "ode": (lambda: ss.probability_flow(ORACLE), "ODE(drift "),
    "sde": (lambda: ss.reverse_sde(ORACLE), "SDE(drift "),
    "custom": (custom, "CustomProcess(alpha=<lambda>, sigma=<lambda>, t in [0.001, 1])"),
    "linear": (lambda: ss.LinearProcess(lambda t: -t, lambda t: 1 + t),
               "LinearProcess(f=<lambda>, g=<lambda>, t in ["),
    "nonlinear": (lambda: ss.NonlinearProcess(lambda x, t: -x, torch.ones_like), "NonlinearProcess(f=<lambda>"),
    "spectrum": (lambda: ss.spectra.spectrum(torch.ones(2, 1, 8, 8)), "Spectrum(power (2, 7) at 7 frequencies)"),
    "decided": (lambda: ss.spectra.decided(FLAT, FLAT.data(4), [1.0]), "Decided(5 rings of frequencies at 1 "),
    "plane": (lambda: ss.geometry.Plane(torch.zeros(3), torch.eye(3)[:2]), "Plane(2 directions in samples of"),
    "principal": (lambda: ss.editing.principal_directions(X, 2), "Principal(2 directions of shape (2,), stds "),
    "trajectory": (lambda: ss.geometry.follow(ORACLE, 4, steps=3), "Trajectory((4, 2) by "),
    "solution": (lambda: ss.sample(ORACLE, 4, steps=3), "Solution((4, 2) by "),
    "likelihood": (lambda: ss.log_likelihood(ORACLE, X[:3], solver="heun", steps=8, nodes=8),
                   "Likelihood(3 samples, mean "),
    "reconstruction": (lambda: ss.reconstruct(ORACLE, X[:3], steps=4), "Reconstruction(3 samples, "),
    "check": (lambda: ss.check_score(ORACLE, ORACLE.data(64)), "ScoreCheck("),
    "residuals": (lambda: ss.residuals(ORACLE, ORACLE.data(8), levels=[1.0]), "Residuals("),
    "statistics": (lambda: ss.latent_statistics(ORACLE, X), "LatentStatistics(300 samples of 2 entries: "),
    "suggestion": (lambda: ss.suggest(ss.VP(), 8)[0], "energy distance to the data x 1000: "),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:at t_max")
def test_words_are_few_and_lasting(name: str) -> None:
    make, words = MADE[name]
    found = repr(make())
    assert words in found
    assert len(found) < 400
    assert " at 0x" not in found
    assert found == repr(make())


def test_weighted_samples_say_what_they_are_worth() -> None:
    from scoresde.weighted.particles import Weighted

    halves, ancestors = torch.tensor([0.5, 0.5, 0.0, 0.0]).log(), torch.arange(4)
    calls = torch.full((4,), 7)
    found = Weighted(torch.zeros(4, 2), halves, 1.5, torch.zeros(3), 2, calls, ancestors, 9)
    assert repr(found) == (
        "Weighted(4 samples, as good as 2; log normaliser 1.5 +- 0.5, and an error of first order in its 9 steps)"
    )


@pytest.fixture(scope="module")
def compared() -> ss.Comparison:
    options = {"samples": 16, "progress": False, "reference_tolerance": 1e-5}
    solvers = ["ddim", "dpmpp_2m", "er_sde"]
    return ss.compare(ORACLE, solvers, [4, 12], data=ORACLE.data(60), **options)


def test_a_comparison_is_a_table_in_notebooks(compared: ss.Comparison) -> None:
    assert len(repr(compared)) < 200
    assert repr(compared).startswith("Comparison(6 runs, of 16 samples, by error, energy")
    assert compared._repr_markdown_() == compared.markdown()
    plan = compared.best(budget=12)
    assert f"| plan | {plan} |" in plan._repr_markdown_()
    assert "| error, median | " in plan._repr_markdown_()


def test_an_error_is_an_error_and_a_distance_is_asked_for(compared: ss.Comparison) -> None:
    r"""Though data was given, and every run is near to it."""

    rows = {row.key: row for row in compared.rows if row.error is not None}
    for limit in (1.0, sorted(row.error["median"] for row in rows.values())[1]):
        plan = compared.best(error=limit)
        assert plan.figures["error"]["median"] <= limit
        assert plan.figures["calls"] == min(
            r.calls for r in rows.values() if r.error["median"] <= limit
        )
    least = min(rows.values(), key=lambda row: row.error["median"])
    assert compared.best(budget=12).options == least.options
    closest = min(compared.rows, key=lambda row: row.distances["energy"][0])
    assert compared.best(budget=12, metric="energy").options == closest.options
    limit = closest.distances["energy"][0]
    for named in ({}, {"metric": "energy"}):
        assert compared.best(distance=limit, **named).options == closest.options
    with pytest.raises(ValueError, match="error= is the median error of samples, not 'energy'"):
        compared.best(error=0.1, metric="energy")
    with pytest.raises(ValueError, match="distance= is a distance to data"):
        compared.best(distance=0.1, metric="error")
    with pytest.raises(ValueError, match="exactly one of budget=, error= and distance="):
        compared.best(error=0.1, distance=0.1)
    with pytest.raises(
        ValueError, match="nothing that was compared meets error=1e-09: the least is"
    ):
        compared.best(error=1e-9)


def test_reports_of_plans_that_are_best(compared: ss.Comparison, tmp_path: Path) -> None:
    c = ss.compare(ORACLE, [compared.best(budget=12)], [4], samples=8, progress=False)
    with pytest.raises(ValueError, match="the row already belongs to a plan"):
        c.plan(c.rows[0])
    assert "dpmpp_2m" in c.html(tmp_path / "c.html").read_text()


def test_the_log_density_of_a_kernel_holds_in_float32() -> None:
    draw = torch.Generator().manual_seed(0)
    y = torch.randn(50, 64, generator=draw, dtype=torch.float32)
    x, t = y[:5] + 1e-3 * torch.randn(5, 64, generator=draw).float(), torch.tensor(1e-5)
    right = ss.KernelOracle(y.double(), 1e-3, process=ss.VP()).log_prob(x.double(), t)
    found = ss.KernelOracle(y, 1e-3, process=ss.VP()).log_prob(x, t)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), right, atol=1e-3)


TABLES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "likelihood": (lambda: ss.log_likelihood(ORACLE, X[:12], solver="heun", steps=8, nodes=8),
                   ["sample", "nats", "within", "calls", "and 2 more samples"]),
    "check": (lambda: ss.check_score(ORACLE, ORACLE.data(64)),
              ["noise level", "slope of data", "Nothing is wrong."]),
    "residuals": (lambda: ss.residuals(ORACLE, ORACLE.data(8), levels=[1.0]),
                  ["noise level", "martingale", "Fokker-Planck"]),
    "statistics": (lambda: ss.latent_statistics(ORACLE, X), ["statistic", "mean over samples", "kurtosis"]),
    "plan": (lambda: ss.Plan({"solver": "ddim"}, (3.0, 1.0, 0.1)), ["plan", "ddim"]),
    "suggestions": (lambda: ss.suggest(ss.VP(), 8),
                    ["solver", "energy distance to data x 1000", "not on your model"]),
    "one suggestion": (lambda: ss.suggest(ss.VP(), 8)[0], ["solver", "measured on", "ss.compare"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_results_are_tables_in_notebooks(name: str) -> None:
    make, words = TABLES[name]
    page = make()._repr_html_()  # type: ignore[attr-defined]
    ElementTree.fromstring(f"<div>{page}</div>")  # whole and escaped
    for word in words:
        assert word in page


def test_html_holds_a_cell_for_each_name_and_escapes_it(compared: ss.Comparison) -> None:
    page = ElementTree.fromstring(
        f"<div>{html_table([{'<a>': 'x & y', 'n': 0.123456}], '<t>')}</div>"
    )
    assert [cell.text for cell in page.iter("th")] == ["<a>", "n"]
    assert [cell.text for cell in page.iter("td")] == ["x & y", "0.1235"]
    whole = ElementTree.fromstring(f"<div>{compared._repr_html_()}</div>")
    assert len(list(whole.iter("tr"))) == 1 + len(compared.rows)


def test_likelihoods_and_noise_paths_have_rows() -> None:
    whole = ss.log_likelihood(ORACLE, X[:4], solver="heun", steps=8, nodes=8)
    for index, right in (
        (-1, [3]),
        (slice(None, 2), [0, 1]),
        ([True, False, True, False], [0, 2]),
    ):
        part = whole[index]
        assert torch.equal(part.nats, whole.nats[right])
        assert torch.equal(part.total, whole.total[right])
        assert torch.equal(part.latent, whole.latent[right])
    assert len(whole) == len(list(whole)) == 4
    path = ss.encode_noise(ORACLE, X[:4], steps=3, seeds=[5, 6, 7, 8])
    assert torch.allclose(path[[3, 1]].replay(ORACLE).x, X[[3, 1]], atol=1e-6)
    assert path[1:].provenance["seeds"] == [6, 7, 8]
    with pytest.raises(IndexError, match="indices of 4 samples, but one is 4"):
        path[4]
