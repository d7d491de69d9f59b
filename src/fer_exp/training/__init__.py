"""Training: the LightningModule, losses, schedules, loggers, hardware choices and callbacks."""
