"""`python -m serving web`: what it writes, and what it refuses, without a browser or a network."""

import json
import re
from pathlib import Path

import pytest

from serving import libraries
from serving.cli import main
from serving.options import WebOptions
from serving.static_site import write
from tests.conftest import ROOT, command
from tf_pipeline.artifact import Manifest
from tf_pipeline.errors import UserError
from tf_pipeline.files import sha256

LOCKED = json.loads(libraries.LOCK.read_text("utf-8"))["packages"]


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out node_modules as npm does; the files hold their names only."""
    folder = tmp_path_factory.mktemp("node_modules")
    for library in libraries.LIBRARIES:
        package = folder / library.package
        about = {"version": LOCKED[f"node_modules/{library.package}"]["version"],
                 "license": "Apache-2.0", "repository": {"url": "git+https://example.org/x"}}
        for name in library.files:
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            imported = library.imports[0] if library.imports else ""
            (package / name).write_text(f'import "{imported}";' if name.endswith("index.js")
                                        else name)
        (package / "package.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="session")
def site(artifact: Path, modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(artifact, WebOptions(out=tmp_path_factory.mktemp("web") / "site",
                                      libraries=modules))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def kept(site: Path) -> dict:
    text = (site / "kept.js").read_text("utf-8")
    return json.loads(text.removeprefix("self.KEPT = ").removesuffix(";\n"))


def test_the_site_holds_what_a_page_reads_and_no_more(site: Path, artifact: Path) -> None:
    manifest, about = Manifest.load(artifact), json.loads((site / "site.json").read_text("utf-8"))
    graphs = [g for g in manifest.graphs if g.runtime in ("onnx", "tflite")]
    assert [f["path"] for f in about["files"]] == [g.path for g in graphs]
    assert about["file"] == "onnx/model_quantized.onnx"
    found = {path for path in files(site) if path.startswith("model/")}
    assert found == {f"model/{path}" for path in ("tokenizer.json", "tokenizer_config.json",
                                                  *(g.path for g in graphs))}
    for path in found:
        assert sha256(site / path) == manifest.files[path.removeprefix("model/")]["sha256"]
    for file in about["files"]:
        assert file["sha256"] == manifest.files[file["path"]]["sha256"]


def test_every_import_leads_to_a_file(site: Path) -> None:
    ours = [site / path for path in files(site)
            if path.endswith(".js") and not path.startswith("libraries/")]
    assert len(ours) > 10
    for script in ours:
        text = re.sub(r"/\*\*.*?\*/", "", script.read_text("utf-8"), flags=re.S)
        for name in re.findall(r'(?:from|import) ?\(?"([^"]+)"', text):
            assert (script.parent / name).resolve().is_file(), f"{script}: {name}"
    for name in re.findall(r'(?:href|src)="([^"]+)"', (site / "index.html").read_text("utf-8")):
        assert (site / name).is_file(), name


def test_the_page_names_no_other_server(site: Path) -> None:
    for path in files(site):
        if path.startswith(("libraries/", "model/")):
            continue
        text = (site / path).read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[\w.]+\.\w", text), path
        assert not re.search(r'(?:href|src|fetch\(|register\()=?"/', text), path  # a sub-path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
        assert not re.search(r"<script>|<style| on\w+=| style=", text), path


def test_the_service_worker_keeps_all_that_a_page_reads(site: Path) -> None:
    listed = kept(site)
    notices = {path for path in files(site) if path.endswith(".txt")}
    unlisted = {"index.html", "kept.js", "service_worker.js"}
    assert {*listed["page"], *listed["later"]} == {"./", *files(site) - notices - unlisted}
    assert not {*listed["page"]} & {*listed["later"]}
    assert sum((site / path).stat().st_size for path in listed["page"]) < 500_000
    assert {"model/tokenizer.json", "libraries/tokenizers.js"} <= {*listed["page"]}


def test_the_version_is_that_of_the_content(site: Path, artifact: Path, modules: Path,
                                            tmp_path: Path) -> None:
    again = write(artifact, WebOptions(out=tmp_path / "a", libraries=modules))
    other = write(artifact, WebOptions(out=tmp_path / "b", libraries=modules, variant="int8"))
    assert kept(again)["version"] == kept(site)["version"] != kept(other)["version"]


@pytest.mark.parametrize(("flags", "with_libraries", "without"), [
    ({"runtime": "onnx"}, "onnx", "litert"), ({"runtime": "tflite"}, "litert", "onnx")])
def test_only_the_chosen_files_and_their_runtime_are_copied(
        flags: dict, with_libraries: str, without: str, artifact: Path, modules: Path,
        tmp_path: Path) -> None:
    site = write(artifact, WebOptions(out=tmp_path / "site", libraries=modules, variant="int8",
                                      **flags))
    about = json.loads((site / "site.json").read_text("utf-8"))
    assert [(f["runtime"], f["variant"]) for f in about["files"]] == [(flags["runtime"], "int8")]
    assert (site / "libraries" / with_libraries).is_dir()
    assert not (site / "libraries" / without).exists()
    notices = (site / "libraries/LICENCES.txt").read_text("utf-8")
    assert ("onnxruntime-web" in notices) == (flags["runtime"] == "onnx")


def test_the_command_says_what_it_wrote_and_how_to_look_at_it(
        artifact: Path, modules: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "my site"
    done = command("serving", "web", artifact, "--out", out, "--libraries", modules)
    assert done.returncode == 0, done.stderr
    assert f"Wrote {out}" in done.stderr
    assert f"python -m http.server --bind 127.0.0.1 --directory '{out}'" in done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["my site"]


@pytest.mark.parametrize(("flags", "message"), [
    ({"runtime": "saved_model"}, "no file of the runtimes onnx and tflite and runtime saved_model"),
    ({"variant": "int4"}, "variant int4. It has: saved_model/1, "),
    ({"length": 7}, "length 7"),
])
def test_files_that_no_page_runs_are_refused(flags: dict, message: str, artifact: Path,
                                             modules: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        write(artifact, WebOptions(out=tmp_path / "site", libraries=modules, **flags))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(artifact: Path, modules: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out .* exists and is not overwritten"):
        write(artifact, WebOptions(out=tmp_path, libraries=modules))
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_is_not_published(artifact: Path, modules: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in files(artifact):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        content = (artifact / path).read_bytes()
        (copy / path).write_bytes(content[:-1] + b"x" if path == "onnx/model.onnx" else content)
    with pytest.raises(UserError, match="onnx/model.onnx has sha256"):
        write(copy, WebOptions(out=tmp_path / "site", libraries=modules))
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_other_tasks_and_runs_are_refused(artifact: Path, run_folder: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((artifact / "manifest.json").read_text("utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "task": "mlm"}))
    for folder, message in ((tmp_path, "the task 'mlm', and pages answer classify, embed, match, "
                             "multilabel, regress, tag."),
                            (run_folder, "is a run, not an artifact")):
        assert main(["web", str(folder), "--out", str(tmp_path / "site")]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("content", "lacking"), [
    ("{", r"tokenizers 0\.2\.0 \(found: none\)"),
    ('{"version": "0.0.1"}', r"tokenizers 0\.2\.0 \(found: 0\.0\.1\)"),
    ('{"version": "0.2.0"}', r"tokenizers/dist/tokenizers\.min\.mjs\."),
], ids=["unreadable", "another", "without its files"])
def test_libraries_of_another_version_are_refused(content: str, lacking: str, artifact: Path,
                                                  tmp_path: Path) -> None:
    package = tmp_path / "@huggingface/tokenizers"
    package.mkdir(parents=True)
    (package / "package.json").write_text(content)
    with pytest.raises(UserError, match=f"lacks @huggingface/{lacking}"):
        write(artifact, WebOptions(out=tmp_path / "site", libraries=tmp_path))
    assert not (tmp_path / "site").exists()


def test_without_npm_the_error_says_what_to_install(artifact: Path, tmp_path: Path) -> None:
    done = command("serving", "web", artifact, "--out", tmp_path / "site",
                   KIT_CACHE=str(tmp_path / "cache"), PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: npm is missing")
    assert "apt install npm" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "site").exists()


def test_versions_are_exact_and_no_registry_is_named() -> None:
    wanted = json.loads((libraries.SITE / "package.json").read_text("utf-8"))["dependencies"]
    assert set(wanted) == {library.package for library in libraries.LIBRARIES}
    for package, version in wanted.items():
        assert LOCKED[f"node_modules/{package}"]["version"] == version
    for name, package in LOCKED.items():
        assert not name or package["integrity"].startswith("sha512-"), name
    text = libraries.LOCK.read_text("utf-8")
    assert "://" not in text.replace("https://registry.npmjs.org/", "")


@pytest.mark.parametrize("path", sorted([*libraries.SITE.rglob("*.js"), *(
    ROOT / "serving/web").glob("*.js")]), ids=lambda path: path.name)
def test_scripts_are_short_enough_to_read(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 100, max(lines, key=len)
