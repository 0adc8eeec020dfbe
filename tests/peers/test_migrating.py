r"""Calls of other libraries on the migration pages, beside ours: their numbers are equal."""

from pathlib import Path

import pytest

from tests.pages import PAGES, largest_difference, name_of, snippets

from .test_sources import k_diffusion

pytestmark = pytest.mark.peers
CLOSE = 2e-3  # of likelihoods in 100 steps; samples are within 1e-5
PAIRS = [
    (page, code)
    for page in PAGES
    if page.parent.name == "migrating"
    for code in snippets(page, "py")
    if "score_sde" not in page.name  # which cannot be installed
]


@pytest.mark.parametrize(("page", "code"), PAIRS, ids=[name_of(page) for page, _ in PAIRS])
def test_their_numbers_are_ours(
    page: Path,
    code: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if page.stem == "k_diffusion":
        k_diffusion()
    elif page.stem == "flow_matching":
        pytest.importorskip("flow_matching")
    exec(compile(code, page.name, "exec"), {})
    assert largest_difference(capsys.readouterr().out) < CLOSE


def test_pages_have_pairs() -> None:
    assert sorted(page.stem for page, _ in PAIRS) == ["diffusers", "flow_matching", "k_diffusion"]
