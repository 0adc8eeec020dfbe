r"""The page: every control, wrong values, sessions, files, the network, and windows of all widths."""

from pathlib import Path

import pytest

import scoresde as ss
from scoresde.playground.choices import VIEWS

from .conftest import Served, Tab, wait_for

pytestmark = pytest.mark.peers
FAST = {"samples": 4, "steps": 4, "step": 2}


def test_every_view_shows_a_picture_with_its_code(tab: Tab) -> None:
    tab.open(data="pair", **FAST)
    tab.seen("The code for this")
    pictures = {tab.picture}
    for show, words in VIEWS.items():
        if show in ("paths", "spectra"):
            continue
        tab.choose("show", words)
        tab.until_address(f"show={show.replace(' ', '+')}")
        pictures.add(tab.picture)
        assert "ss.MixtureOracle" in tab.page.locator("#script").inner_text()
        assert "scoresde" in tab.page.locator("#command").inner_text()
    assert len(pictures) == len(VIEWS) - 1
    assert tab.sentence.strip() == ""


def test_digits_are_shown(tab: Tab) -> None:
    tab.open(show="spectra", data="digits", **FAST)
    wait_for(lambda: tab.picture.startswith(tab.base))


def test_every_control_changes_the_view(tab: Tab) -> None:
    tab.open(**FAST)
    before = tab.picture
    for name, words in (("data", "ring"), ("show", "Geometry of a step")):
        tab.choose(name, words)
    tab.until_address("show=geometry&data=ring")
    assert tab.picture != before
    for name, value, said in (
        ("process", "VP", "process=VP"),
        ("error", "0.1", "error=0.1"),
        ("label", "3", "label=3"),
        ("guidance", "2", "guidance=2"),
        ("guide_from", "0.1", "guide_from=0.1"),
        ("guide_to", "30", "guide_to=30"),
        ("steps", "6", "steps=6"),
        ("grid", "rho:5", "grid=rho%3A5"),
        ("solver", "ancestral", "solver=ancestral"),
        ("eta", "0.5", "eta=0.5"),
        ("samples", "9", "samples=9"),
        ("seed", "7", "seed=7"),
        ("step", "4", "step=4"),
    ):
        tab.fill(name, value)
        tab.until_address(said)
    assert tab.sentence.strip() == ""


def test_a_wrong_value_is_a_sentence_and_the_picture_stays(tab: Tab) -> None:
    tab.open(**FAST)
    before = tab.picture
    for name, value, sentence, right in (
        ("process", "XY", "process must be one of", "EDM"),
        ("error", "5", "error must be a finite number >= -2, at most 2", "0"),
        ("label", "9", "label is 9, but moons has classes 0 to 1", ""),
        ("guidance", "99", "guidance must be a finite number", ""),
        ("guide_from", "-1", "guide_from must be", "0"),
        ("guide_to", "-1", "guide_to must be", ""),
        ("solver", "nonsense", "solver 'nonsense' is unknown", "dpmpp_2m"),
        ("steps", "0", "steps must be at least 1", "4"),
        ("grid", "fog", "grid", ""),
        ("eta", "-1", "eta must be", ""),
        ("samples", "1.5", "samples must be a whole number", "4"),
        ("seed", "-3", "seed must be at least 0", "0"),
    ):
        tab.fill(name, value)
        tab.until_sentence(sentence)
        assert tab.page.locator("#sentence [role=alert]").count() == 1
        assert tab.picture == before
        tab.fill(name, right)
        tab.until_no_sentence()


def test_a_wrong_plan_is_a_sentence(tab: Tab) -> None:
    tab.open(**FAST)
    tab.seen("Plan")
    tab.page.locator("#plan textarea").click()
    tab.page.keyboard.insert_text("nothing")  # as pasting does
    tab.page.keyboard.press("Tab")
    tab.until_sentence("plan is not a plan: it is not JSON text.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [({"colour": "red"}, "no setting 'colour'"), ({"steps": "many"}, "steps must be a number")],
)
def test_a_wrong_address_is_a_sentence(words: dict[str, str], sentence: str, tab: Tab) -> None:
    tab.open(**words)
    tab.until_sentence(sentence)


def test_an_address_opens_with_its_settings(tab: Tab) -> None:
    tab.open(solver="heun", steps=5, data="ring", label=2, show="geometry", step=3)
    wait_for(lambda: tab.picture.startswith(tab.base))
    assert tab.page.locator("#solver input").input_value() == "heun"
    assert tab.page.locator("#steps input").input_value() == "5"
    assert tab.page.locator("#label input").input_value() == "2"
    assert tab.page.locator("#data input:checked").input_value() == "ring"


def test_two_sessions_share_nothing(tab: Tab, other: Tab) -> None:
    tab.open(**FAST)
    other.open(**FAST)
    tab.fill("solver", "heun")
    other.fill("solver", "ddim")
    tab.until_address("solver=heun")
    other.until_address("solver=ddim")
    tab.fill("seed", "5")
    tab.until_address("seed=5")
    assert "solver=heun" in tab.page.url
    assert "solver=ddim" in other.page.url
    assert "seed" not in other.page.url


def test_a_drawing_becomes_the_density(tab: Tab) -> None:
    tab.open(**FAST)
    tab.seen("Draw a density")
    tab.page.locator("#sketch button[aria-label=Brush]").first.click()
    canvas = tab.page.locator("#sketch canvas").first
    box = canvas.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(middle[0] - 40, middle[1])
    tab.page.mouse.down()
    tab.page.mouse.move(middle[0] + 40, middle[1] + 10, steps=8)
    tab.page.mouse.up()
    tab.until_address("data=drawn&ink=")
    assert tab.page.locator("#data input:checked").input_value() == "drawn"


def test_a_plan_comes_in_and_goes_out(tab: Tab, tmp_path: Path) -> None:
    tab.open(**FAST)
    plan = ss.Plan({"solver": "ddim", "grid": None}, noise_levels=(60.0, 3.0, 0.4, 0.05))
    file = plan.save(tmp_path / "mine.json")
    tab.seen("Share")
    tab.page.locator("input[type=file][accept='.json']").set_input_files(file)
    tab.until_address("plan=")
    with tab.page.expect_download() as caught:
        tab.page.locator("a[download='plan.json']").click()
    caught.value.save_as(tmp_path / "out.json")
    assert ss.Plan.load(tmp_path / "out.json") == plan


def test_a_long_run_can_be_stopped(tab: Tab) -> None:
    tab.open(data="pair", **FAST)
    tab.choose("data", "digits")
    tab.choose("show", "Error against calls")
    tab.page.wait_for_timeout(1500)
    tab.page.locator("#stop").click()
    tab.until_sentence("stopped; the picture is the last one that was finished.")
    assert tab.picture.startswith(tab.base)


def test_nothing_asks_another_machine(tab: Tab) -> None:
    tab.open(data="pair", **FAST)
    for words in ("The code for this", "Share", "Draw a density"):
        tab.seen(words)
    tab.page.wait_for_timeout(1000)
    others = [url for url in tab.asked if not url.startswith((tab.base, "data:", "blob:"))]
    assert len(tab.asked) > 10
    assert not others


def test_windows_of_all_widths_hold_the_page(tab: Tab) -> None:
    tab.open(data="pair", show="geometry", **FAST)
    tab.seen("The code for this")
    for width in (360, 768, 1280, 2560):
        tab.page.set_viewport_size({"width": width, "height": 800})
        tab.page.wait_for_timeout(1000)
        assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        box = tab.page.locator("#picture img").bounding_box()
        assert box is not None
        assert box["width"] > min(250, width / 2)
        assert box["x"] + box["width"] <= width


def test_nothing_is_written_elsewhere(tab: Tab, served: Served) -> None:
    tab.open(data="pair", **FAST)
    assert not [file for file in served.elsewhere.rglob("*") if file.is_file()]
    assert list((served.folder / "temporary" / "sessions").iterdir())
