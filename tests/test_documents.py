"""The README and docs/: short, true where a program can tell, and up to date."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import memory
import pytest
import readme
from accelerate.state import AcceleratorState

from lite.cli.main import main
from lite.config.evaluate import parse_evaluate
from lite.config.parse import parse
from lite.config.recipes import with_recipe
from lite.config.runs import Stage1Config, Stage2Config
from lite.models.families import FAMILIES
from lite.schema import LiteError
from lite.terminal import ArgumentParser

ROOT = Path(__file__).parents[1]
DOCUMENTS = readme.documents()
SECTIONS = readme.sections()
STAGES = {"stage1": Stage1Config, "stage2": Stage2Config}
OTHERS = {
    "source",
    "pip",
    "uv",
    "ray",
    "tensorboard",
    "playwright",
    "git",
    "curl",
}  # commands of others, and of the shell


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def spans(text: str) -> list[str]:
    """What is set as code within a line."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def commands() -> Iterator[tuple[str, str]]:
    """(document, command) of every command that a reader may copy."""
    for path in DOCUMENTS:
        text = path.read_text()
        lines = [line for block in blocks(text, "bash") for line in block.splitlines()]
        mentioned = [span for span in spans(text) if re.match(r"(\w+=\S+ )?(bash|lite|python) \S", span)]
        lines += [span for span in mentioned if not re.fullmatch(r"lite (\w+ )?\w+", span)]  # that names a command only
        for line in dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in lines):
            if line and not re.search("…|<", line):
                yield name_of(path), line


class Parsed(Exception):
    """The arguments were fine."""


@pytest.fixture
def only_parse(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands end where their arguments are read."""
    original = ArgumentParser.parse_args

    def parse_args(self, *arguments, **options):
        original(self, *arguments, **options)
        raise Parsed

    monkeypatch.setattr(ArgumentParser, "parse_args", parse_args)
    monkeypatch.chdir(ROOT)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # `use_cpu` binds it


def check_lite(arguments: list[str]) -> None:
    """Raises where `lite …` would refuse its arguments."""
    if "--help" in arguments or "--help_all" in arguments:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
    elif arguments[0] == "train":
        assert main(["train", "--help"]) == 0
        parse(STAGES[arguments[1]], "train", [*with_recipe(arguments[2:], arguments[1]), "--use_cpu", "true"])
    elif arguments[0] == "evaluate":
        parse_evaluate([*with_recipe(arguments[1:], "stage2"), "--use_cpu", "true"])
    else:
        with pytest.raises(Parsed):
            main(arguments)


def check(command: str) -> None:
    """Raises where a command names what does not exist, or options that it does not have."""
    words = shlex.split(command)
    settings = {}
    while re.match(r"[A-Z_]+=", words[0]):
        name, _, settings[name] = words.pop(0).partition("=")
    program, *arguments = words
    if program == "lite":
        check_lite(arguments)
    elif program == "bash":
        script = ROOT / arguments[0]
        assert script.exists()
        if "ACCELERATE" in settings:
            assert (ROOT / "recipes" / "accelerate" / f"{settings['ACCELERATE']}.yaml").exists()
        recipe = ROOT / "recipes" / settings.get("PROFILE", "tiny")
        if script.stem in STAGES:
            check_lite(["train", script.stem, "--config", str(recipe / f"{script.stem}.yaml"), *arguments[1:]])
        elif script.stem == "evaluate":
            check_lite(["evaluate", "--config", str(recipe / "stage2.yaml"), *arguments[1:]])
        else:
            assert script.stem in ("setup", "test")
    elif program == "python" and arguments[0] != "-m":
        assert (ROOT / arguments[0]).exists()
    elif program == "python":
        of_ours = ROOT / f"{arguments[1].replace('.', '/')}.py"
        assert arguments[1] in ("pytest", "spacy") or of_ours.exists()
        assert all((ROOT / argument).exists() for argument in arguments if argument.startswith("tests/"))
    else:
        assert program in OTHERS, f"no test knows {program}"
    if "--override" in arguments:
        assert (ROOT / arguments[arguments.index("--override") + 1]).exists()
    if program == "pip" or arguments[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.search(r"\[(.*)\]", command)[1].split(",")) <= extras.keys()


@pytest.mark.parametrize(("document", "command"), commands())
def test_commands_are_understood(document: str, command: str, only_parse: None) -> None:
    check(command)


@pytest.mark.parametrize(
    "command",
    [
        "lite index ~/papers --embeding x", "lite ask", "lite train stage1 --max_stepz 3", "lite nothing",
        "PROFILE=qwen9 bash recipes/stage1.sh", "bash recipes/stage9.sh", "bash recipes/evaluate.sh --splt dev",
        "ACCELERATE=nothing bash recipes/stage1.sh", "python benchmarks/nothing.py",
        "pip install 'mmrag-lite[nothing]'", "lyte index x",
    ],
)  # fmt: skip
def test_a_wrong_command_is_seen(command: str, only_parse: None, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises((AssertionError, LiteError, SystemExit, pytest.fail.Exception)):
        check(command)


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 8192


def anchors(path: Path) -> set[str]:
    """What GitHub names the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_document_is_linked_from_the_readme() -> None:
    linked = re.findall(r"\]\((docs/[^)]+)\)", (ROOT / "README.md").read_text())
    assert {ROOT / link for link in linked} == {*DOCUMENTS} - {ROOT / "README.md"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_named_files_exist(path: Path) -> None:
    ours = re.compile(r"(lite|recipes|benchmarks|tests|tools|docs)/[\w./-]*[\w/]")
    for span in spans(path.read_text()):
        if ours.fullmatch(span):
            assert (ROOT / span).exists(), span


def test_named_functions_are_where_the_documents_say() -> None:
    found = 0
    for path in DOCUMENTS:
        for names, place in re.findall(
            r"((?:`\w+`(?:, | and )?)+)(?: in | of | \()`(lite/[\w/]+\.py)`", path.read_text()
        ):
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"^ *(def|class) {name}\b|\b{name}\b.*=", (ROOT / place).read_text(), re.MULTILINE), (
                    name
                )
                found += 1
    assert found >= 15


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_are_those_of_the_committed_results(name: str) -> None:
    assert readme.read_section(name) == SECTIONS[name]


def test_every_section_has_a_source() -> None:
    marked = {name for path in DOCUMENTS for name in re.findall(r"<!-- (?!/)(.+?) -->", path.read_text())}
    assert marked == SECTIONS.keys()


def test_committed_estimates_are_those_of_the_recipes() -> None:
    for profile, by_stage in readme.result("memory").items():
        for stage, peak in by_stage.items():
            recipe = ROOT / "recipes" / profile / f"stage{stage}.yaml"
            assert memory.peak(recipe, int(stage)) == pytest.approx(peak, abs=0.01)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_messages_name_documents_that_exist() -> None:
    files = [*ROOT.glob("lite/**/*.py"), *ROOT.glob("recipes/**/*.*"), *ROOT.glob("benchmarks/*.py")]
    files = [file for file in files if file.is_file()]
    named = {name for file in files for name in re.findall(r"docs/\w+\.md", file.read_text(errors="replace"))}
    assert named
    assert all((ROOT / name).exists() for name in named)


def test_model_families_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\|[^|]+\|((?: `\w+`)+) \| (yes|no) \| (yes|no) \|$", (ROOT / "docs/training.md").read_text(), re.M
    )
    told = {name: (shared, limited) for names, shared, limited in rows for name in re.findall(r"\w+", names)}
    words = {True: "yes", False: "no"}
    assert told == {
        name: (words[family.positions is not None], words[family.limit_pixels is not None])
        for family in FAMILIES
        for name in family.model_types
    }


def test_pictures_are_not_too_large() -> None:
    for path in DOCUMENTS:
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", path.read_text()):
            assert (path.parent / link).stat().st_size < 300_000, link


def test_a_section_is_written_where_its_marks_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("a\n<!-- one -->\nold\n<!-- /one -->\nb\n")
    (tmp_path / "docs" / "more.md").write_text("<!-- two -->\n<!-- /two -->\n")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "sections", lambda: {"one": r"new \1", "two": "| t |"})
    readme.write_sections()
    assert (tmp_path / "README.md").read_text() == "a\n<!-- one -->\nnew \\1\n<!-- /one -->\nb\n"
    assert readme.read_section("two") == "| t |"
    assert capsys.readouterr().out.count("-->") == 4
    readme.write_sections()
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit, match="stands in 0"):
        readme.home("three")


@pytest.mark.parametrize("program", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
@pytest.mark.slow
def test_programs_of_results_still_start(program: Path) -> None:
    """The package's names change; nobody runs these programs for months."""
    code = f"import sys; sys.path.insert(0, {str(program.parent)!r}); import {program.stem}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
