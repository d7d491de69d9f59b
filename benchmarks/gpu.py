"""Measure everything that only a GPU can show: ``python -m benchmarks.gpu --data DIR --output OUT --minutes 10``.

The parts run in order. Each is written to ``OUT/gpu.json`` and ``OUT/gpu.md`` when it ends, so an interrupted command
loses nothing: the next one with the same ``OUT`` skips finished parts. A part that fails is recorded with its traceback
and does not stop the others. Without a GPU every part runs in miniature on the CPU: a small subset, two epochs.

``python -m benchmarks.gpu --data DIR --pack FILE`` makes an archive for a machine without network access.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_session import OutOfTimeError, Part, Session
from benchmarks.measuring import describe_machine, find_images, format_machine, load_before, write_json

MINIATURE_IMAGES = (8, 4)  # images of each class in the subset: training, validation


def run_parts(session: Session, parts: Mapping[str, Part]) -> bool:
    """Run the parts that are not finished, and write the results after each.

    Returns:
        True if no part failed.
    """
    for name, part in parts.items():
        purpose = (part.__doc__ or name).splitlines()[0]
        if session.parts.get(name, {}).get("status") == "finished":
            print(f"{name}: finished before, skipped", flush=True)
            continue
        print(f"\n{name} ({session.seconds_left:.0f} s left): {purpose}", flush=True)
        start = time.monotonic()
        session.failures.clear()
        try:
            result = {"status": "finished", **part(session)}
        except OutOfTimeError as error:
            result = {"status": "skipped", "error": f"{error}"}
        except Exception:
            result = {"status": "failed", "error": traceback.format_exc()}
        seconds = round(time.monotonic() - start, 1)
        session.parts[name] = {"purpose": purpose, "seconds": seconds, "failures": [*session.failures], **result}
        print(format_part(name, session.parts[name]), flush=True)
        write(session)
    return all(result["status"] != "failed" for result in session.parts.values())


def write(session: Session) -> None:
    """Write ``gpu.json`` and ``gpu.md``; an interruption leaves the old file or the new one."""
    content = {**session.header, "parts": session.parts}
    report = "\n".join([format_header(session.header), *(format_part(*item) for item in session.parts.items())])
    draft = session.output / "gpu.draft"
    write_json(draft, content)
    draft.replace(session.output / "gpu.json")
    draft.write_text(report, encoding="utf-8")
    draft.replace(session.output / "gpu.md")


def format_header(header: Mapping[str, Any]) -> str:
    """The title of the report and what was measured on, as Markdown."""
    title = "# GPU benchmark"
    if header["miniature"]:
        title += ": miniature on the CPU\n\nNo GPU was used. These numbers only show that the command works."
    counts = "{} training and {} validation images".format(*header["images"])
    return f"{title}\n\n    {format_machine(header['machine']).replace(chr(10), chr(10) + '    ')}\n\n{counts}.\n"


def format_part(name: str, result: Mapping[str, Any]) -> str:
    """One part as Markdown: a table of its measurements, and its error or output."""
    lines = [f"## {name}: {result['status']} after {result['seconds']:.0f} s", "", result["purpose"], ""]
    if rows := result.get("rows"):
        cells = [(row["what"], format_value(row["value"]), row["unit"], row["target"]) for row in rows]
        table = [("what", "value", "unit", "target"), ("---", "---:", "---", "---"), *cells]
        lines += [f"| {' | '.join(row)} |" for row in table] + [""]
    for text in (result.get("error"), result.get("output"), *result.get("failures", ())):
        if text:
            lines += ["```text", text.rstrip(), "```", ""]
    return "\n".join(lines)


def format_value(value: Any) -> str:
    """A measurement as text: four significant digits, and ``-`` for one that is missing."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def subset(data: Path, target: Path) -> Path:
    """Link a few images of each class of both splits of ``data`` below ``target``, and return ``target``."""
    for split, count in zip(("train", "validation"), MINIATURE_IMAGES, strict=True):
        for folder in (each for each in sorted((data / split).iterdir()) if each.is_dir()):
            links = target / split / folder.name
            links.mkdir(parents=True, exist_ok=True)
            for image in sorted(folder.iterdir())[:count]:
                if not (links / image.name).exists():
                    (links / image.name).symlink_to(image)
    return target


def start_session(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Session:
    """Create the output folder, read earlier results, and choose between the GPU and the miniature."""
    load = load_before()
    deadline = time.monotonic() + 60 * options.minutes
    data, counts = find_images(parser, options.data)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    import torch

    miniature = options.miniature or not torch.cuda.is_available()
    if miniature:
        data = subset(data, output / "images")
        data, counts = find_images(parser, data)
        print("No GPU is used: every part runs in miniature on the CPU, with a subset and two epochs.", flush=True)
    header = {"miniature": miniature, "machine": describe_machine(load), "images": counts, "minutes": options.minutes}
    session = Session(data, output, deadline, miniature, header)
    if (output / "gpu.json").exists():
        earlier = json.loads((output / "gpu.json").read_text(encoding="utf-8"))
        if earlier["miniature"] != miniature:
            parser.error(f"--output={output} holds results of another device; give another folder")
        session.parts = earlier["parts"]
    return session


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/ and validation/")
    parser.add_argument("--output", type=Path, metavar="OUT", help="folder for the results; it may hold earlier ones")
    parser.add_argument("--minutes", type=float, default=10, metavar="M", help="time for all parts (default: 10)")
    parser.add_argument("--miniature", action="store_true", help="use the CPU and a subset, also with a GPU")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="make the archive FILE (.tar.xz) and exit")
    options = parser.parse_args(arguments)
    if options.pack:
        from benchmarks.gpu_pack import pack

        return pack(find_images(parser, options.data)[0], options.pack)
    if options.output is None:
        parser.error("expected --output=OUT or --pack=FILE")
    session = start_session(options, parser)
    from benchmarks.gpu_parts import PARTS

    succeeded = run_parts(session, PARTS)
    print(f"\nResults: {session.output / 'gpu.md'} ({session.seconds_left:.0f} s left)")
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
