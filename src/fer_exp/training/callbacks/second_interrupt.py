"""A second Ctrl-C."""

import signal

import lightning as L


class SecondInterrupt(L.Callback):
    """Lets a second Ctrl-C end the process at once.

    Lightning ignores it while it handles the first one. This callback comes before those that load weights and draw.
    """

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the default handler of the signal."""
        if isinstance(exception, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
