"""The commands and examples of README and docs are valid, and the README's and the guide's run, with less data."""

import os
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from fer_exp import compare, evaluate
from fer_exp.config.schema import CONFIG_DIR
from fer_exp.runs.record import read_summary

pytestmark = pytest.mark.usefixtures("no_plots")

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HYDRA_COMMANDS = ("train", "evaluate", "predict", "export", "audit")
SMALL = ("data.train=70", "data.validation=35")
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.precision=32-true", "data.batch_size=10")
FEW_JOBS = ("hydra.sweeper.trials=1", "hydra.sweeper.seeds=1")


def commands(page: Path) -> list[list[str]]:
    """The words after ``python -m`` of each command in the page's code blocks."""
    lines = [line.strip().removeprefix("uv run ") for line in page.read_text(encoding="utf-8").splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("python -m fer_exp.")]


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documented_settings_exist(page):
    for program, *words in commands(page):
        name = program.removeprefix("fer_exp.")
        if name not in HYDRA_COMMANDS or "--config-dir" in words:
            continue
        overrides = OverridesParser.create().parse_overrides([word for word in words if not word.startswith("-")])
        one_each = [
            f"{o.input_line.partition('=')[0]}={next(iter(o.sweep_string_iterator()))}"
            if o.is_sweep_override() and "arms" not in o.key_or_group
            else o.input_line
            for o in overrides
        ]
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            compose(name, one_each, return_hydra_config=True)


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


README_COMMANDS = [shlex.split(line) for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]


def test_the_readme_begins_with_two_commands():
    assert README_COMMANDS[:2] == [["pip", "install", "uv"], ["uv", "run", "python", "-m", "fer_exp.train"]]


def slow_if_sweep(commands: list[list[str]]) -> list:
    """The arguments of training commands as test parameters; commands with several trainings are slow."""
    return [
        pytest.param(arguments, id=" ".join(arguments) or "defaults", marks=[pytest.mark.slow] * ("-m" in arguments))
        for arguments in commands
    ]


README_TRAININGS = [w[w.index("fer_exp.train") + 1 :] for w in README_COMMANDS if "fer_exp.train" in w]


@pytest.mark.parametrize("arguments", slow_if_sweep(README_TRAININGS))
def test_the_readmes_trainings_run(arguments, command, faces, tmp_path):
    arguments = [word.replace("DIR", str(faces)) for word in arguments]
    is_study = "+study=optimizers" in arguments
    less = (*(() if "data=folders" in arguments else SMALL), *(FEW_JOBS if is_study else ()), *SHORT, "logger=none")
    status, _ = command(*arguments, *less)
    assert status == 0
    summaries = [read_summary(path.parent) for path in tmp_path.glob("outputs/**/summary.json")]
    assert {summary["status"] for summary in summaries} == {"completed"}
    assert len(summaries) == (6 if is_study else 9 if "-m" in arguments else 1)


GUIDE = ROOT / "docs/extending.md"
GUIDE_COMMANDS = [shlex.split(line)[3:] for block in blocks(GUIDE, "sh") for line in block.splitlines()]


@pytest.fixture
def guide_files(tmp_path, monkeypatch):
    """The files of the guide's examples, in the working directory; their first line is the name."""
    for block in [*blocks(GUIDE, "yaml"), *blocks(GUIDE, "python")]:
        if name := re.match(r"(?:# @package _global_\n)?# (my_\S+)\n", block):
            path = tmp_path / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


@pytest.fixture
def flat_faces(faces, tmp_path):
    """The images of class folders as CLASS_NUMBER.png, for the guide's data source."""
    for image in faces.glob("*/*/*"):
        copy = tmp_path / "flat" / image.parts[-3] / f"{image.parts[-2]}_{image.stem}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(image).save(copy)
    return tmp_path / "flat"


@pytest.mark.parametrize("arguments", slow_if_sweep(GUIDE_COMMANDS))
def test_the_guides_examples_run(arguments, command, guide_files, flat_faces):
    arguments = [word.replace("DIR", str(flat_faces)) for word in arguments]
    is_study = any(word.startswith("+study") for word in arguments)
    own_data = any(word.startswith("data=") for word in arguments)
    less = (*(() if own_data else SMALL), *(FEW_JOBS if is_study else ()), *SHORT, "model=vgg_small")
    status, printed = command(*arguments, *(word for word in less if word.split("=")[0] not in " ".join(arguments)))
    assert status == 0, printed
    assert list(guide_files.glob("outputs/**/history.csv"))


def test_the_guides_network_is_evaluated_if_it_is_trusted(command, run_main, guide_files):
    small = (*SMALL, *SHORT, "logger=none", "hydra.run.dir=run")
    assert command("--config-dir", "my_conf", "model=tiny", *small)[0] == 0
    evaluation = ("run=run", "resamples=100", "hydra.run.dir=found")
    status, printed = run_main(evaluate.main, *evaluation)
    assert status == 1
    assert "trust=[my_networks]" in printed
    status, printed = run_main(evaluate.main, *evaluation, "trust=[my_networks]")
    assert status == 0, printed


@pytest.mark.slow
def test_records_of_the_readmes_comparison_can_be_compared_again(command, tmp_path, run_main):
    status, _ = command("-m", "optimizer=adam,sgd", "seed=0,1", *SMALL, *SHORT, "model=vgg_small", "logger=none")
    assert status == 0
    status, printed = run_main(compare.main, "outputs/sweeps")
    assert status == 0, printed
    assert len(list(tmp_path.glob("outputs/**/report.html"))) >= 1
