"""Export formats: ONNX and TorchScript."""

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_exp.data.dataset import normalize
from fer_exp.errors import UserError, one_line
from fer_exp.files import replacing
from fer_exp.runs.record import write_json

TOLERANCE = 1e-4  # of a probability
Run = Callable[[Tensor], Tensor]  # images (N, C, S, S) to probabilities (N, classes)


class WithPreprocessing(nn.Module):
    """A network with its preprocessing: uint8 images (N, C, S, S) in, probabilities (N, classes) out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.network(normalize(images))
        return logits.softmax(dim=1)


def export_model(
    network: nn.Module, image_shape: tuple[int, ...], format_name: str, folder: Path, facts: Mapping[str, Any]
) -> Path:
    """Write a network to ``folder``, after a check of the file against the network's own output on random images.

    Args:
        network: in evaluation mode, on the CPU.
        image_shape: (C, S, S).
        format_name: a key of ``FORMATS``.
        folder: where to write the model and ``model.json``.
        facts: content of ``model.json``; also the metadata of an ONNX file.

    Returns:
        The model file.

    Raises:
        UserError: the network cannot be exported in this format, or the file gives other outputs.
        OSError: the folder cannot be written.
    """
    suffix, write_and_read = FORMATS[format_name]
    model = WithPreprocessing(network.to(memory_format=torch.contiguous_format)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    # Two batch sizes: a file that fixed the size of its example is of no use.
    batches = [torch.randint(0, 256, (n, *image_shape), dtype=torch.uint8, generator=generator) for n in (2, 3)]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"model{suffix}"
    with replacing(file) as draft, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside torch's exporters
        try:
            run = write_and_read(model, batches[0], draft, facts)
            difference = max(float((run(images) - model(images)).abs().max()) for images in batches)
        except OSError:
            raise
        except Exception as error:  # exporters raise many types
            name = type(network).__name__
            raise UserError(f"format={format_name}: {name} cannot be exported ({one_line(error):.300})") from error
        if not difference <= TOLERANCE:
            raise UserError(
                f"format={format_name}: the exported network gives other probabilities, by up to {difference:.2g} on "
                f"random images; expected at most {TOLERANCE:g}. Use another format."
            )
    write_json(folder / "model.json", {**facts, "file": file.name})
    return file


def _onnx(model: WithPreprocessing, images: Tensor, path: Path, facts: Mapping[str, Any]) -> Run:
    import onnx
    import onnxruntime

    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they log every optimization
    program = torch.onnx.export(
        model,
        (images,),
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in facts.items()})
    onnx.save(proto, path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0])


def _torchscript(model: WithPreprocessing, images: Tensor, path: Path, facts: Mapping[str, Any]) -> Run:
    traced = torch.jit.trace(model, images, check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={"model.json": json.dumps(dict(facts))})
    loaded: Run = torch.jit.load(path)
    return loaded


# name: file suffix, and a function that writes the file and returns the network that it reads back
FORMATS: Mapping[str, tuple[str, Callable[..., Run]]] = {
    "onnx": (".onnx", _onnx),
    "torchscript": (".pt", _torchscript),
}
