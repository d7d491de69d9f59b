"""What a second Ctrl-C does."""

import signal

import lightning as L


class SecondInterrupt(L.Callback):
    """Lets a second Ctrl-C end the process at once.

    Lightning ignores it while a first one is dealt with. This stands before the callbacks that restore and draw.
    """

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signal its own effect back."""
        if isinstance(exception, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
