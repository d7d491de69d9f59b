"""Look for what is wrong with a folder of images: ``python -m fer_exp.audit data.root=DIR``.

Imports at the top are light, so that ``--help`` and a wrong key answer at once.
"""

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from fer_exp.cli import call, carry_out
from fer_exp.config.instantiate import build_checked
from fer_exp.config.schema import CONFIG_DIR, is_number, is_whole, resolve
from fer_exp.errors import UserError
from fer_exp.files import replacing
from fer_exp.runs.folder import check_unused

if TYPE_CHECKING:
    from fer_exp.data.audit import Audit

log = logging.getLogger(__name__)

LOG, FINDINGS, EXCLUSIONS = "audit.log", "audit.json", "exclude.txt"
MOST_DISTANCE = 16  # bits; hashes that differ in more propose nearly all pairs of faces


def audit(cfg: DictConfig) -> None:
    """Look at every file of both splits, print what is wrong, and leave the findings in ``cfg.output_dir``.

    Args:
        cfg: the composed configuration.

    Raises:
        UserError: the configuration or the data are not as they must be; nothing is written.
    """
    start = time.perf_counter()
    folder = Path(cfg.output_dir)
    check(cfg, folder)
    log.info("Loading torch and lightning ...")  # seconds, and on a cold disk a minute

    from fer_exp.data.annotations import write_exclusions
    from fer_exp.data.audit import audit as find
    from fer_exp.data.audit import describe, inspect, propose_exclusions
    from fer_exp.data.datamodule import ImageDataModule
    from fer_exp.files import printable, quote_override
    from fer_exp.plots.findings import draw_sheet, finding_sheets
    from fer_exp.plots.terminal import progress_bar

    data = build_checked(cfg.data, "data", ImageDataModule)
    entries = data.read_entries()
    log.info("Looking at %s images in %s ...", f"{len(entries.names):,}", printable(entries.root))
    with progress_bar("reading") as progress:
        inspection = inspect(entries.inputs, len(entries.names), data.image_format, progress)
    found = find(
        files=entries.names,
        labels=entries.labels,
        classes=entries.classes,
        validation=entries.is_validation,
        inspection=inspection,
        near_distance=cfg.near_distance,
        near_correlation=cfg.near_correlation,
    )
    log.info("%s", format_summary(found))

    settings = {
        "root": str(entries.root.resolve()),
        "exclude": None if data.exclude is None else str(data.exclude),
        "near_distance": cfg.near_distance,
        "near_correlation": cfg.near_correlation,
    }
    try:
        with replacing(folder / FINDINGS) as draft:
            draft.write_text(json.dumps({"schema": 1, **settings, **describe(found)}, indent=2, allow_nan=False) + "\n")
        proposal = propose_exclusions(found)
        write_exclusions(folder / EXCLUSIONS, proposal)
        for sheet in finding_sheets(found):
            with replacing(folder / f"{sheet.name}.png") as draft:
                draw_sheet(sheet).save(draft, "PNG")
    except OSError as error:
        raise UserError(f"{folder}: the findings cannot be written there ({error.strerror or error})") from error
    names = sorted(path.name for path in folder.iterdir())
    log.info("")
    log.info("Written to %s in %.0f s: %s", folder, time.perf_counter() - start, ", ".join(names))
    proposed = sum(not line.startswith("#") for line in proposal)
    if proposed:
        log.info("%s names %s files. To train without them, edit it as you like, and give", EXCLUSIONS, f"{proposed:,}")
        log.info("  %s", quote_override("data.exclude", folder / EXCLUSIONS))


def check(cfg: DictConfig, folder: Path) -> None:
    """See to it that the settings are possible, and that no file is written over.

    Raises:
        UserError: they are not, or ``folder`` holds files.
    """
    resolve(cfg, {"data.root": "Name the folder that holds train/ and validation/: data.root=DIR"})
    if not cfg.get("data"):
        raise UserError("data: nothing is chosen; give data=folders data.root=DIR")
    distance, correlation = cfg.near_distance, cfg.near_correlation
    if not is_whole(distance, at_least=0) or distance > MOST_DISTANCE:
        raise UserError(f"near_distance={distance}: expected a whole number from 0 to {MOST_DISTANCE}")
    if not is_number(correlation) or not 0 < correlation <= 1:
        raise UserError(f"near_correlation={correlation}: expected a number above 0 and up to 1")
    check_unused(folder, LOG)


def format_summary(found: "Audit") -> str:
    """The findings as a table a person reads: classes first, and then what is wrong, in images of each split."""
    from fer_exp.data.audit import MOST_PAIRS, SPLITS, imbalance, table

    counts = found.counts()
    width = 50
    lines = ["", f"{'class':<{width}}{'train':>12}{'validation':>12}"]
    lines += [f"{name:<{width}}{counts[0, c]:>12,}{counts[1, c]:>12,}" for c, name in enumerate(found.classes)]
    ratios = [f"{ratio:.1f}" if (ratio := imbalance(of_split)) else "-" for of_split in counts]
    lines += [f"{'largest class / smallest':<{width}}{ratios[0]:>12}{ratios[1]:>12}", ""]
    findings = {row: cells for row, cells in table(found).items() if any(cells)}
    if not findings:
        return "\n".join([*lines, "Nothing wrong was found."])
    lines += [f"{'found':<{width}}{SPLITS[0]:>12}{SPLITS[1]:>12}"]
    lines += [f"{row:<{width}}{train:>12,}{validation:>12,}" for row, (train, validation) in findings.items()]
    if not found.near_is_complete:
        lines.append(
            f"The search for near duplicates was ended after {MOST_PAIRS:,} pairs that looked alike at first: there "
            "may be more. A smaller near_distance looks at fewer."
        )
    return "\n".join(lines)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="audit")
def run(cfg: DictConfig) -> None:
    """What Hydra calls with the composed configuration."""
    carry_out(audit, cfg)


def main() -> None:
    """The command; exits with status 1 where the images cannot be looked at."""
    call(run)


if __name__ == "__main__":
    main()
