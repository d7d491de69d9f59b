"""Find faults in a dataset: ``python -m fer_exp.audit data.root=DIR``."""

import json
import logging
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from fer_exp.cli import call, carry_out
from fer_exp.config.checks import ROOT_HINT, check_values
from fer_exp.config.instantiate import build_checked
from fer_exp.config.schema import CONFIG_DIR, AuditConfig, resolve
from fer_exp.errors import UserError, plural
from fer_exp.files import replacing
from fer_exp.runs.folder import check_empty_dir

log = logging.getLogger(__name__)

LOG, FINDINGS, EXCLUSIONS = "audit.log", "audit.json", "exclude.txt"


def audit(cfg: DictConfig) -> None:
    """Inspect all images of both splits, print the findings, and write them to ``cfg.output_dir``.

    Raises:
        UserError: the config is invalid, or the data cannot be read; nothing is written.
    """
    start = time.perf_counter()
    folder = Path(cfg.output_dir)
    check(cfg, folder)

    # Imported here: torch takes seconds, and --help and config errors do not need it.
    from fer_exp.data.annotations import write_exclusions
    from fer_exp.data.audit import audit_datasets
    from fer_exp.data.audit_report import describe_audit, exclusion_list, finding_sheets, format_audit
    from fer_exp.data.datamodule import ImageDataModule
    from fer_exp.files import printable, quote_override
    from fer_exp.plots.style import save_plot
    from fer_exp.plots.terminal import progress_bar

    data = build_checked(cfg.data, "data", ImageDataModule)
    datasets = data.load_for_audit()
    with progress_bar("comparing") as progress:
        found = audit_datasets(datasets, cfg.near_distance, cfg.near_correlation, progress)
    log.info("\n%s\n", format_audit(found))

    settings = {
        "schema": 3,
        "root": str(data.source.root.resolve()),
        "exclude": None if data.exclude is None else str(data.exclude),
        "near_distance": cfg.near_distance,
        "near_correlation": cfg.near_correlation,
    }
    exclusions = exclusion_list(found)
    try:
        with replacing(folder / FINDINGS) as draft:
            draft.write_text(json.dumps(settings | describe_audit(found), indent=2, allow_nan=False) + "\n")
        write_exclusions(folder / EXCLUSIONS, exclusions)
    except OSError as error:
        raise UserError(f"{folder}: the findings cannot be written ({error.strerror or error})") from error
    for name, draw in finding_sheets(found):
        save_plot(folder / f"{name}.png", draw, cfg.plots.theme)
    names = sorted(path.name for path in folder.iterdir())
    log.info("Written to %s in %.0f s: %s", printable(folder), time.perf_counter() - start, ", ".join(names))
    if excluded := sum(not line.startswith("#") for line in exclusions):
        log.info("%s proposes to exclude %s. To train without them, add:", EXCLUSIONS, plural(excluded, "image"))
        log.info("  %s", quote_override("data.exclude", folder / EXCLUSIONS))


def check(cfg: DictConfig, folder: Path) -> None:
    """Check the config, and that no earlier audit is overwritten.

    Raises:
        UserError: the config is invalid, or ``folder`` has files.
    """
    resolve(cfg, {"data.root": ROOT_HINT})
    if not cfg.get("data"):
        raise UserError("data: nothing is chosen. Give data=folders data.root=DIR")
    check_values(cfg, AuditConfig)
    check_empty_dir(folder, LOG)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="audit")
def run(cfg: DictConfig) -> None:
    """What Hydra calls with the composed config."""
    carry_out(audit, cfg)


def main() -> None:
    """Run the command; exits with status 1 if the dataset cannot be read."""
    call(run, "audit")


if __name__ == "__main__":
    main()
