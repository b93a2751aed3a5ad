"""The JavaScript libraries of a static site, fetched once through npm.

npm compares each archive with the sha512 of site/package-lock.json. Only the files that a page
needs are kept, in the cache folder of `tf_pipeline/fetch.py`.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tf_pipeline.errors import UserError
from tf_pipeline.fetch import cache_folder

log = logging.getLogger(__name__)

SITE = Path(__file__).with_name("site")
LOCK = SITE / "package-lock.json"
_ONNX_LICENCE = "LICENCE-onnxruntime-web.txt"
_TIMEOUT_S = 600
_CHANGED = "// Changed by `python -m serving web`: the import below names a file.\n"


@dataclass(frozen=True)
class Library:
    """A package of package-lock.json and what a page loads of it."""

    package: str
    files: dict[str, str]  # path in the package -> path in the site's libraries/
    runtime: str | None = None  # of the files that it runs; None: always needed
    imports: tuple[str, str] | None = None  # a package's name, which only bundlers find -> a path


# Every .mjs becomes a .js: not every server knows that .mjs is a script.
LIBRARIES = (
    Library("@huggingface/tokenizers", {"dist/tokenizers.min.mjs": "tokenizers.js",
                                        "LICENSE": "LICENCE-Apache-2.0.txt"}),
    Library("onnxruntime-web", {
        "dist/ort.wasm.min.mjs": "onnx/ort.js",
        "dist/ort-wasm-simd-threaded.mjs": "onnx/ort-wasm.js",
        "dist/ort-wasm-simd-threaded.wasm": "onnx/ort-wasm.wasm"}, runtime="onnx"),
    # The page loads one of the two builds, by what the device's processor can do.
    Library("@litertjs/core", {
        "dist/index.js": "litert/index.js",
        **{f"wasm/litert_wasm_{build}.{end}": f"litert/litert_wasm_{build}.{end}"
           for build in ("internal", "compat_internal") for end in ("js", "wasm")}},
        runtime="tflite", imports=("@litertjs/wasm-utils", "./wasm_utils.js")),
    Library("@litertjs/wasm-utils", {"dist/index.js": "litert/wasm_utils.js"}, runtime="tflite"),
)


def find(folder: Path | None) -> Path:
    """Give a node_modules folder with every library: the one named, or that of the cache.

    The cache is filled through npm when it is first needed. UserError where that cannot be done.
    """
    if folder is not None:
        if lacking := _lacking(folder):
            raise UserError(f"{folder} lacks {lacking}. Run `npm ci --ignore-scripts` in a copy of "
                            "serving/site and pass its node_modules as --libraries, or leave "
                            "--libraries out.")
        return folder
    name = f"site-libraries-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    cache = cache_folder()
    found = cache / name
    try:
        if _lacking(found):
            from filelock import FileLock

            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f".{name}.lock"):
                if _lacking(found):  # another process may have filled it
                    _fill(found)
    except OSError as error:
        raise UserError(f"Cannot keep the site's libraries in the cache folder {cache}: {error}. "
                        "Make it writable, free space there, or name another folder with "
                        "KIT_CACHE.") from error
    return found


def copy(modules: Path, runtimes: set[str], target: Path) -> None:
    """Copy what these runtimes need into `target`, with licences."""
    needed = [one for one in LIBRARIES if one.runtime is None or one.runtime in runtimes]
    notices = []
    for library in needed:
        package = modules / library.package
        for source, name in library.files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package / source, target / name)
            if library.imports and name.endswith("index.js"):
                _rename_import(target / name, *library.imports)
        about = json.loads((package / "package.json").read_text("utf-8"))
        notices.append(f"{library.package} {about['version']}: {about['license']}, "
                       f"{about['repository']['url'].removeprefix('git+')}")
    (target / "LICENCES.txt").write_text("".join(f"{line}\n" for line in notices), "utf-8")
    if "onnx" in runtimes:  # its package holds no licence text
        shutil.copyfile(SITE / _ONNX_LICENCE, target / _ONNX_LICENCE)


def _rename_import(path: Path, package: str, file: str) -> None:
    """Make an import name a file: browsers look packages up in pages only, not in workers."""
    text = path.read_text("utf-8")
    if text.count(f'"{package}"') != 1:
        raise UserError(f"{path.name} imports {package!r} {text.count(package)} times; expected "
                        "once. Use the versions of serving/site/package-lock.json.")
    path.write_text(_CHANGED + text.replace(f'"{package}"', f'"{file}"'), "utf-8")


def _lacking(modules: Path) -> str:
    """Say what a node_modules folder lacks of the lock's versions and their files, if anything."""
    locked = json.loads(LOCK.read_text("utf-8"))["packages"]
    for library in LIBRARIES:
        package = modules / library.package
        wanted = locked[f"node_modules/{library.package}"]["version"]
        try:
            found = json.loads((package / "package.json").read_text("utf-8"))["version"]
        except (OSError, ValueError, KeyError):
            found = "none"
        if found != wanted:
            return f"{library.package} {wanted} (found: {found})"
        for name in library.files:
            if not (package / name).is_file():
                return f"{library.package}/{name}"
    return ""


def _fill(folder: Path) -> None:
    """Install into a folder beside `folder` and keep what pages load."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is missing, which fetches the page's JavaScript libraries once. "
                        "Install Node.js (Debian and Ubuntu: apt install npm); or run `npm ci "
                        "--ignore-scripts` in a copy of serving/site on another computer and pass "
                        "its node_modules as --libraries.")
    staging = folder.with_name(f".{folder.name}.partial")  # the lock makes one name enough
    shutil.rmtree(staging, ignore_errors=True)  # left behind by a kill
    staging.mkdir()
    try:
        for name in ("package.json", LOCK.name):
            shutil.copyfile(SITE / name, staging / name)
        log.info("Fetching the page's libraries through npm, once: about 40 MB ...")
        words = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(words, cwd=staging, text=True, capture_output=True, check=False,
                                  timeout=_TIMEOUT_S, errors="replace")
        except subprocess.TimeoutExpired:
            raise UserError(f"npm did not end within {_TIMEOUT_S} s. Check the network and npm's "
                            "registry: npm ping") from None
        if done.returncode:
            said = [line.removeprefix("npm error ") for line in done.stderr.splitlines()
                    if line.startswith("npm error ")] or [f"exit code {done.returncode}"]
            raise UserError(f"npm could not fetch the page's libraries ({'; '.join(said[:2])}). "
                            "Check the network and npm's registry: npm ping")
        whole = staging / "whole"
        for library in LIBRARIES:
            for name in ("package.json", *library.files):
                target = whole / library.package / name
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / "node_modules" / library.package / name, target)
        shutil.rmtree(folder, ignore_errors=True)  # something in it was missing
        os.rename(whole, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    log.info("Wrote %s.", folder)
