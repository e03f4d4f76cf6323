"""docs/method.md says what docs/figures.py computes, and what that computes is right; so do the tutorial's pictures."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("method_figures", DOCS / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document():
    return (DOCS / "method.md").read_text(encoding="utf-8")


def test_the_document_holds_the_tables_as_computed(figures, document):
    for table in figures.TABLES:
        assert table() in document


def test_every_figure_is_shown_and_there(figures, document):
    shown = re.findall(r"\]\(images/method-(\w+)\.png\)", document)
    assert sorted(shown) == sorted(figures.FIGURES)
    assert all((DOCS / "images" / f"method-{name}.png").is_file() for name in shown)


def test_pictures_of_the_tutorial_are_shown_there_and_small(figures):
    tutorial = (DOCS / "tutorials" / "your_robot.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\(\.\./images/robot-(\w+)\.png\)", tutorial)
    assert sorted(shown) == sorted(figures.PICTURES)
    assert all((DOCS / "images" / f"robot-{name}.png").stat().st_size < 150_000 for name in shown)


def test_a_picture_of_the_tutorial_is_drawn(figures, tmp_path, capsys):
    pytest.importorskip("mujoco")
    from ropes_ros.errors import RuntimeSetupError

    try:
        figures.main(["visibility", "--out", str(tmp_path)])
    except RuntimeSetupError as error:
        pytest.skip(str(error))
    assert [path.name for path in tmp_path.iterdir()] == ["robot-visibility.png"]
    assert capsys.readouterr().out == ""  # no table of the method


def test_what_the_document_links_to_is_there(document):
    for target in re.findall(r"\]\(([^)#]+)", document):
        assert (DOCS / target).exists(), target


def test_label_noise_is_the_curvature_of_the_divergence_between_neighbouring_posteriors(figures):
    levels, step = figures.SETS[figures.DEFAULT], 1e-3
    u = np.array([-0.97, -0.3, 0.0, 0.6])
    here, there = levels.posterior(u), levels.posterior(u + step)
    divergence = (here * np.log(here / there)).sum(axis=0)
    assert figures.noise(levels, u) == pytest.approx(np.sqrt(step**2 / (2.0 * divergence)), rel=0.02)


def test_cost_of_a_wrong_std_is_that_of_the_levels_themselves(figures):
    levels, true = figures.SETS[figures.DEFAULT], 0.15
    rng = np.random.default_rng(0)
    location = np.linspace(-1.0, 1.0, 41)

    def probability(std):  # of each level, [K, locations]: mean over draws from the cut normal
        draws = location[:, None] + std * rng.normal(size=(len(location), 20_000))
        inside = np.abs(draws) <= 1.0
        told = levels.posterior(np.clip(draws, -1.0, 1.0))
        return (told * inside).sum(axis=2) / inside.sum(axis=1)

    right, wrong = probability(true), probability(2.0 * true)
    by_hand = (right * np.log(right / wrong)).sum(axis=0).mean()
    same, doubled = figures.cost_of_std(levels, true, np.array([1.0, 2.0]))
    assert same == pytest.approx(0.0, abs=1e-9)
    assert doubled == pytest.approx(by_hand, rel=0.05)


def test_chosen_figures_are_written(figures, tmp_path, capsys):
    figures.main(["levels", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["method-levels.png"]
    assert "8 bumps of 0.15" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        figures.main(["lebels", "--out", str(tmp_path)])
    assert "lebels" in capsys.readouterr().err


@pytest.mark.slow
def test_the_camera_is_found_in_the_figure_of_silhouettes(figures):
    pytest.importorskip("mujoco")
    found = figures.sought(200)
    assert found.error[2:6].max() < 8.0
    best = found.turns[found.values.argmax(axis=1)]
    assert np.abs(best).max() <= 12.0
