"""The commands of the README, run as they stand, on less data."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from fer_exp import compare
from fer_exp.config.schema import CONFIG_DIR
from fer_exp.runs.record import read_summary
from fer_exp.train import main

README = (Path(__file__).parents[2] / "README.md").read_text()
SHELL_LINES = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
COMMANDS = [line.removeprefix("uv run ") for line in SHELL_LINES if "fer_exp.train" in line]
COMPARISONS = [line for line in SHELL_LINES if "fer_exp.compare" in line]
EVALUATIONS = [line for line in SHELL_LINES if "fer_exp.evaluate" in line or "fer_exp.predict" in line]
LESS = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.precision=32-true", "data.batch_size=10")
FEWER_JOBS = ("hydra.sweeper.trials=1", "hydra.sweeper.seeds=1")


def test_it_opens_with_the_two_commands():
    assert SHELL_LINES[:3] == ["pip install uv", "uv run python -m fer_exp.train", "uv run pytest -n 2"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_run(command, faces, tmp_path, monkeypatch):
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "fer_exp.train"]
    on_folders = any(word.startswith("data.root=") for word in words)
    few_drawings = () if on_folders else ("data.train=70", "data.validation=35")
    fewer_jobs = FEWER_JOBS if "+study=optimizers" in words else ()
    arguments = [word.replace("DIR", str(faces)) for word in words[3:]]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [words[2], *arguments, *few_drawings, *fewer_jobs, *LESS, "logger=none"])
    GlobalHydra.instance().clear()
    main()
    summaries = [read_summary(path.parent) for path in tmp_path.glob("outputs/**/summary.json")]
    assert {summary["status"] for summary in summaries} == {"completed"}
    assert len(summaries) == (6 if fewer_jobs else 9 if "-m" in arguments else 1)


@pytest.mark.parametrize("command", EVALUATIONS)
def test_evaluations_of_the_readme_have_such_settings(command):
    program, *overrides = shlex.split(command)[2:]
    assert overrides[0] == "run=RUN"
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        assert compose(program.removeprefix("fer_exp."), overrides).run == "RUN"


def test_comparisons_of_the_readme_are_made(faces, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep = ("-m", "data=folders", f"data.root={faces}", "optimizer=adam,sgd", "seed=0,1", *LESS, "logger=none")
    monkeypatch.setattr(sys, "argv", ["fer_exp.train", *sweep])
    GlobalHydra.instance().clear()
    main()
    assert len(COMPARISONS) == 2
    for command in COMPARISONS:
        monkeypatch.setattr(sys, "argv", shlex.split(command)[2:])
        compare.main()
        assert "2 paired seeds" in " ".join(capsys.readouterr().out.split())
    assert len(list(tmp_path.glob("outputs/comparisons/*/report.html"))) == 2
