"""keras: the notebook itself, in the current Keras.

``image_dataset_from_directory`` replaces the notebook's ``ImageDataGenerator``, which is deprecated and slower. Needs
TensorFlow and nothing of this project, so it can run in a separate environment.
"""

import os
import platform
import time
from typing import Any

from benchmarks.contenders.turns import WARMUP_STEPS, mean_step, serve

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class KerasNotebook:
    """A turn is a ``fit`` of one epoch; all turns train the same compiled model, so it is traced once.

    Args:
        train: folder of the training images.
        validation: folder of the validation images.
        batch_size: images of a batch.
        others: settings of other contenders.
    """

    def __init__(self, train: str, validation: str, batch_size: int, **others: Any) -> None:
        import tensorflow as tf  # here, so that `serve` can report a missing package
        from tensorflow import keras

        self.keras = keras
        self.train_set, self.val_set = (
            keras.utils.image_dataset_from_directory(
                folder,
                label_mode="categorical",
                color_mode="grayscale",
                image_size=(48, 48),
                batch_size=batch_size,
                shuffle=shuffle,
                verbose=False,
            )
            for folder, shuffle in ((train, True), (validation, False))
        )
        self.model = notebook_model(keras)
        self.model.compile(
            loss="categorical_crossentropy", optimizer=keras.optimizers.Adam(0.001), metrics=["accuracy"]
        )
        self.facts = {
            "precision": keras.mixed_precision.dtype_policy().name,
            "threads": tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count(),
            "versions": {
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "keras's python": platform.python_version(),
            },
        }

    def turn(self, steps: int, validation: int) -> dict[str, float]:
        """Fit for an epoch without its last, incomplete batch.

        The epoch ends at ``on_epoch_end``: ``fit`` releases its data once, not in each epoch.
        """
        start = time.perf_counter()
        times: dict[str, float] = {}

        def note(batch: int, logs: dict[str, Any]) -> None:
            if batch + 1 in (WARMUP_STEPS, steps):
                float(logs["loss"])  # waits for the device
                times["trained" if batch + 1 == steps else "warm"] = time.perf_counter()

        def end(epoch: int, logs: dict[str, Any]) -> None:
            times["end"] = time.perf_counter()

        history = self.model.fit(
            self.train_set.take(steps).prefetch(2),
            validation_data=self.val_set.take(validation).prefetch(2),
            epochs=1,
            callbacks=[self.keras.callbacks.LambdaCallback(on_train_batch_end=note, on_epoch_end=end)],
        )
        return {
            "step_seconds": mean_step(times.get("warm"), times["trained"], steps),
            "train_seconds": times["trained"] - start,
            "val_seconds": times["end"] - times["trained"],
            "train_loss": float(history.history["loss"][0]),
            "val_loss": float(history.history["val_loss"][0]),
        }


def notebook_model(keras: Any) -> Any:
    """The notebook's network."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((48, 48, 1))])
    for filters, size in ((64, 3), (128, 5), (512, 3), (512, 3)):
        model.add(layers.Conv2D(filters, (size, size), padding="same"))
        model.add(layers.BatchNormalization())
        model.add(layers.Activation("relu"))
        model.add(layers.MaxPooling2D(pool_size=(2, 2)))
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    for units in (256, 512):
        model.add(layers.Dense(units))
        model.add(layers.BatchNormalization())
        model.add(layers.Activation("relu"))
        model.add(layers.Dropout(0.25))
    model.add(layers.Dense(7, activation="softmax"))
    return model


if __name__ == "__main__":
    serve(KerasNotebook)
