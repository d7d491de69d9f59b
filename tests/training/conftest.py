import pytest


@pytest.fixture
def tiny(small, tmp_path, no_plots):
    """Compose the config of a run without plots: 7 steps per epoch, a network of 3,000 parameters, 2 epochs."""

    def compose(*overrides, folder=tmp_path / "run"):
        return small(
            "model=vgg", "model.widths=[8,8,16]", "model.convolutions=[1,1,1]", "model.dense=[16]",
            f"output_dir={folder}", *overrides,
        )  # fmt: skip

    return compose


@pytest.fixture
def interrupted(monkeypatch):
    """Interrupt trainings in an epoch (from 1) at a step (from 0), as Ctrl-C does: ``with interrupted(2): ...``."""
    from contextlib import contextmanager

    from fer_exp.training.module import Classifier

    @contextmanager
    def interrupt(epoch, step=0):
        original = Classifier.training_step

        def training_step(self, batch, index):
            if (self.current_epoch, index) == (epoch - 1, step):
                raise KeyboardInterrupt
            return original(self, batch, index)

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "training_step", training_step)
            with pytest.raises(SystemExit) as exit_info:
                yield
            assert exit_info.value.code == 130

    return interrupt
