"""Which checkpoint and which record belong together."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from fer_exp.config.schema import ModelConfig
from fer_exp.errors import UserError
from fer_exp.evaluation.source import find_source
from fer_exp.runs.record import RunRecord


def find(**given):
    return find_source(
        OmegaConf.create({"run": None, "ckpt": None, "weights": "best", "trust": [], **given}), ModelConfig
    )


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    RunRecord(folder, {"run_id": "a", "config": {"data": {"root": "faces"}}}).finish("completed", 1.0)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/best.ckpt").touch()
    return folder


def test_a_run_has_a_checkpoint_and_a_checkpoint_a_run(run, tmp_path, monkeypatch):
    best, copy = run / "checkpoints/best.ckpt", tmp_path / "copy.ckpt"
    by_run, by_file = find(run=str(run)), find(ckpt=str(best))
    assert (by_run.checkpoint, by_run.run) == (best, run)
    assert (by_file.checkpoint, by_file.run) == (best, run)
    copied = find(ckpt=str(copy))
    assert (copied.checkpoint, copied.run) == (copy, None)
    monkeypatch.chdir(run)
    assert (find(run=".").run, find(ckpt="checkpoints/best.ckpt").checkpoint) == (run, best)


@pytest.mark.parametrize(
    ("place", "weights", "part"),
    [
        ("run", "last", "existing weights: best"),
        (".", "best", "run"),
        ("nowhere", "best", "nowhere"),
        ("run/checkpoints/best.ckpt", "best", "ckpt=FILE"),
    ],
)
def test_what_exists_is_named(run, tmp_path, place, weights, part):
    with pytest.raises(UserError, match=part):
        find(run=str(tmp_path / place), weights=weights)


def test_a_damaged_record_is_refused(run):
    (run / "summary.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        find(run=str(run))


def test_a_checkpoint_of_another_run_is_refused(run):
    found = find(run=str(run))
    own, others = (SimpleNamespace(epoch=4, settings={"run_id": name, "config": {"data": {}}}) for name in "ab")
    provenance = found.provenance(own)
    assert (provenance.name, provenance.epoch, provenance.selected_by) == ("best", 4, "val_loss")
    with pytest.raises(UserError, match="another run"):
        found.provenance(others)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({}, "run=DIR"),
        ({"run": "a", "ckpt": "b"}, "run=DIR"),
        ({"run": "a", "weights": "restored"}, "weights=restored"),
        ({"ckpt": "a", "weights": "last"}, "weights=last"),
    ],
)
def test_the_keys_must_name_one_network(given, part):
    with pytest.raises(UserError, match=part):
        find(**given)
