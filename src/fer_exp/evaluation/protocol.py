"""Under which rules a figure was obtained, and the refusal of those that were not kept.

A figure says little without the images it is of, how the weights were chosen, and whether the same images had a part
in that choice. Five protocols are known, and a figure never stands without the name of its own:

- ``folders``: trained on train/, epoch selected on validation/, reported on validation/. Optimistic.
- ``held_out``: epoch selected on images held out of train/, reported on validation/, which no choice of the run saw.
- ``official``: reported on a test folder, once for each run.
- ``training``: reported on the images of the training. A fit, no result.
- ``other``: any other folder, or weights of which it is not known how they were selected. Such looks are counted,
  and an official report of the same images tells of them.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fer_exp.errors import UserError
from fer_exp.evaluation.provenance import Provenance
from fer_exp.files import replacing

PROTOCOLS = ("folders", "held_out", "official", "other", "training")
# How a face is shown, and the words for it; all but the first are test-time augmentation (TTA).
VIEWS: Mapping[str, str] = {
    "single": "single view",
    "flip": "TTA: mirrored",
    "ten_crop": "TTA: ten crops",
}
LEDGER = "reported.json"  # in the folder of a run: the images of no split of its own that it was reported on


@dataclass(frozen=True)
class EvalSplit:
    """The images that are reported on.

    Attributes:
        split: ``train``, ``selection``, ``validation``, ``test``, or a folder as it was given.
        fingerprint: of the images.
        place: the folder where they lie, relative to the data folder if it lies there.
    """

    split: str
    fingerprint: str
    place: str


def choose_protocol(wanted: str, reported: EvalSplit, origin: Provenance) -> str:
    """The protocol that images and run are fit for; ``wanted``, unless that is ``auto``, must be it.

    Raises:
        UserError: ``wanted`` is another, or test images had a part in the training.
    """
    fit = _fit(reported, origin)
    if wanted == "official" and fit == "other":  # a test folder may lie anywhere
        fit = "official"
    part = {origin.train: "trained", origin.selection: "selected"}.get(reported.fingerprint)
    if part and (reported.split == "test" or wanted == "official"):
        raise UserError(
            f"split={reported.split}: these are the images that the run was {part} on, and no test. Report on others, "
            "or under the protocol that says so."
        )
    if fit == "official" and origin.run is None:
        raise UserError(
            "protocol=official: a run is reported on test images once, and its record keeps that: give run=DIR instead "
            f"of ckpt={origin.checkpoint}"
        )
    if wanted not in ("auto", fit):
        why = _why_not(wanted, reported, origin)
        raise UserError(f"protocol={wanted}: {why}. For split={reported.split} of this run, expected auto or {fit}.")
    return fit


def _fit(reported: EvalSplit, origin: Provenance) -> str:
    if reported.split == "train" or reported.fingerprint == origin.train:
        return "training"
    if reported.split == "test":
        return "official"
    if reported.fingerprint == origin.selection:
        return "folders" if origin.val_fraction == 0 else "other"
    if reported.split == "validation" and origin.val_fraction:
        return "held_out"
    return "other"


def _why_not(wanted: str, reported: EvalSplit, origin: Provenance) -> str:
    if origin.run is None:
        return "it is not known how these weights were selected (no run record); give run=DIR"
    if wanted == "held_out" and not origin.val_fraction:
        return "this run was trained with data.val_fraction=0, and its epoch selected on validation/"
    if wanted == "folders" and origin.val_fraction:
        return f"this run was selected on {origin.selected_on} (data.val_fraction={origin.val_fraction})"
    return {
        "folders": "these images are not those that the run was selected on",
        "held_out": "it reports on split=validation, where the run did not see it",
        "official": "it reports on split=test, or another folder that the run did not see",
        "training": "these images are not those that the run was trained on",
        "other": "these images have a protocol of their own",
    }[wanted]


def state(protocol: str, reported: EvalSplit, origin: Provenance, looks: int = 0) -> str:
    """What has to be said next to each figure of a protocol: the images, the selection, and what that does.

    Args:
        protocol: its name.
        reported: the images.
        origin: of the weights.
        looks: how often the run was reported on these images before, under no protocol's rules.
    """
    where = f"{reported.place}/" if reported.split in ("train", "validation", "test") else reported.split
    if protocol == "training" and origin.train not in (None, reported.fingerprint):
        verdict = "other or changed images in the place of those that it was trained on: no result"
    elif protocol == "training":
        verdict = "the images that it was trained on: a fit, no result"
    elif reported.fingerprint == origin.selection:
        seen = "selected" if origin.selected_by and not origin.is_selected_by_training else "validated"
        verdict = f"{seen} on the images it is reported on: optimistic"
    elif protocol == "held_out":
        verdict = "which no choice of this run saw"
    elif protocol == "official":
        before = f", after {looks} {'look' if looks == 1 else 'looks'} under no protocol's rules" if looks else ""
        verdict = f"once{before}"
    else:
        verdict = "under no protocol's rules"
    return f"Protocol {protocol}: {origin.in_words}; reported on {where}, {verdict}."


def refuse_second_report(run: Path, fingerprint: str) -> None:
    """See to it that a run was not reported on these test images before.

    Raises:
        UserError: it was, or its ledger cannot be read; quotes the first report.
    """
    first = _read_ledger(run)[0].get(fingerprint)
    if first is not None:
        raise UserError(
            f"{run}: this run was reported on these {first.get('images')} test images on "
            f"{str(first.get('time'))[:10]}, with an accuracy of {first.get('accuracy'):.2%} ({first.get('weights')} "
            f"weights, {first.get('view')}): see {first.get('output')}. A second look would be a choice by the test "
            "images; that first figure stands."
        )


def record_report(run: Path, fingerprint: str, report: Mapping[str, Any]) -> None:
    """Enter a report in the run's ledger.

    Args:
        run: folder of the run.
        fingerprint: of the test images.
        report: images, accuracy, weights, view, output.

    Raises:
        UserError: the ledger cannot be read or written.
    """
    reports, looks = _read_ledger(run)
    reports[fingerprint] = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **report}
    try:
        _write_ledger(run, reports, looks)
    except OSError as error:
        raise UserError(
            f"{run / LEDGER} cannot be written ({error.strerror or error}); nothing is reported."
        ) from error


def reports_on_others(run: Path, fingerprint: str) -> Iterator[str]:
    """In words, the reports of a run on other test images.

    Raises:
        UserError: the ledger cannot be read.
    """
    for key, report in _read_ledger(run)[0].items():
        if key != fingerprint:
            yield (
                f"The run was reported on {report.get('images')} other test images on {str(report.get('time'))[:10]}, "
                f"with an accuracy of {report['accuracy']:.2%}: see {report.get('output')}."
            )


def looks_before(run: Path, fingerprint: str) -> int:
    """How often a run was reported on these images under no protocol's rules.

    Raises:
        UserError: the ledger cannot be read.
    """
    return _read_ledger(run)[1].get(fingerprint, 0)


def note_look(run: Path, fingerprint: str) -> None:
    """Note that a run was reported on these images under no protocol's rules, where its folder can be written.

    Raises:
        UserError: the ledger cannot be read.
    """
    reports, looks = _read_ledger(run)
    with suppress(OSError):
        _write_ledger(run, reports, {**looks, fingerprint: looks.get(fingerprint, 0) + 1})


def _write_ledger(run: Path, reports: Mapping[str, Any], looks: Mapping[str, int]) -> None:
    content = {"schema": 1, "reports": reports, "looks": looks}
    with replacing(run / LEDGER) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_ledger(run: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The reports on test images, and the number of looks under no protocol's rules, by fingerprints."""
    path = run / LEDGER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        reports = {
            str(key): dict(report, accuracy=float(report["accuracy"])) for key, report in content["reports"].items()
        }
        return reports, {str(key): int(count) for key, count in content.get("looks", {}).items()}
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): it tells on which test images this run was reported. Bring it back, "
            "or, if it is lost, move it away and say so next to the next figure."
        ) from error
