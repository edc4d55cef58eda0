"""`lite data …`."""

import json

import pytest
from official_files import (
    BLUE,
    GREEN,
    RED,
    image_fact,
    multimodalqa_question,
    picture,
    text_fact,
    webqa_record,
    write_multimodalqa,
    write_webqa,
)
from PIL import Image

from lite.cli.main import main
from lite.data import webqa
from lite.data.sources import load_examples


def status(*arguments):
    """The exit status, returned or raised."""
    try:
        return main(["data", *map(str, arguments)])
    except SystemExit as end:
        return end.code


def records(train=12, val=4):
    text = {"Qcate": "text", "img_posFacts": [], "txt_posFacts": [text_fact("gold_1"), text_fact("gold_2")]}
    return [
        webqa_record(f"q{n}", "train" if n < train else "val", **(text if n % 4 == 0 else {}))
        for n in range(train + val)
    ]


def test_inspect_counts_everything(tmp_path, capsys):
    assert status("inspect", f"webqa:{write_webqa(tmp_path, records())}", "--samples", 2) == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.count("│") == 4}
    assert [cell.strip() for cell in rows["questions"].split("│")[2:4]] == ["12", "4"]
    assert "p50 5" in rows["candidates per question"]
    assert "max 2" in rows["relevant per question"]
    assert "p95" in rows["prompt tokens"]
    for part in ("image 3", "color 9", "text 3", "Nothing is broken.", "What color is house q0?", "+ [text] Delft"):
        assert part in out
    assert out.count("What color") == 2


def test_inspect_goes_on_past_what_is_broken_and_names_it(tmp_path, capsys):
    broken = [webqa_record("bad", A=[]), webqa_record("far", img_negFacts=[image_fact(30_000_400)])]
    assert status("inspect", f"webqa:{write_webqa(tmp_path, records() + broken)}") == 0
    out = capsys.readouterr().out
    assert "1 × empty question or answer" in out
    assert "1 × missing image" in out
    assert out.count("Guid bad") == 1  # both splits read the same file


def test_inspect_tells_of_gold_outside_the_pool(tmp_path, capsys):
    folder = write_multimodalqa(tmp_path, [multimodalqa_question("q", [("i3", "image")])])
    assert status("inspect", f"multimodalqa:{folder}") == 0
    assert "Note: 1 × gold document outside its pool, added." in capsys.readouterr().out


def test_inspect_the_bundled_data(capsys):
    assert status("inspect", "flags", "--split", "test", "--samples", 0) == 0
    assert "239" in capsys.readouterr().out


def test_validate_is_silent_about_good_data_and_fails_on_bad(tmp_path, capsys):
    folder = write_webqa(tmp_path, records())
    assert status("validate", f"webqa:{folder}") == 0
    assert "images opened: 3" in capsys.readouterr().out
    webqa.open_archive.cache_clear()
    images = {RED: picture(), BLUE: b"no image", GREEN: picture()}
    write_webqa(tmp_path, [*records(), webqa_record("bad", Q="")], images)
    assert status("validate", f"webqa:{folder}", "--limit", 20) == 1
    out = capsys.readouterr().out
    assert f"image {BLUE} cannot be read" in out
    assert "Guid bad" in out
    assert "1 × broken image" in out


def test_validate_a_users_own_data(tmp_path, capsys):
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": "d", "kind": "text", "text": "x"}\n{"question": "?", "relevant": ["d"]}\n')
    assert status("validate", f"jsonl:{path}") == 0
    path.write_text(path.read_text() + '{"question": "?", "relevant": ["e"]}\n')
    assert status("validate", f"jsonl:{path}") == 1
    assert "own.jsonl, line 3: there is no document with the id 'e'" in capsys.readouterr().out


def test_validate_takes_thin_images_as_training_does(tmp_path, capsys):
    Image.new("RGB", (2000, 4), "black").save(tmp_path / "rule.png")
    path = tmp_path / "own.jsonl"
    path.write_text(
        '{"id": "d", "kind": "image", "title": "Rule", "image": "rule.png"}\n{"question": "?", "relevant": ["d"]}\n'
    )
    assert status("validate", f"jsonl:{path}") == 0
    assert "images opened: 1" in capsys.readouterr().out
    (example,) = load_examples(f"jsonl:{path}", "train") or load_examples(f"jsonl:{path}", "test")
    (document,) = example.documents
    assert document.load_image().size == (2000, 20)  # Qwen's processor refuses 500:1


def own(tmp_path, count, **more):
    documents = [{"id": f"d{n}", "kind": "text", "text": f"Fact {n}."} for n in range(count)]
    questions = [{"question": f"Which is fact {n}?", "relevant": [f"d{n}"], **more} for n in range(count)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*documents, *questions]))
    return path


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_few_questions_are_warned_of_with_numbers(tmp_path, capsys, command):
    assert status(command, own(tmp_path, 40)) == 0
    out = capsys.readouterr().out
    assert "4 test questions: the report's figures are ± 49 points." in out
    assert "4 dev questions, fewer than 30: no threshold is tuned on them" in out
    assert status(command, own(tmp_path, 2000)) == 0
    assert "Note:" not in capsys.readouterr().out
    assert status(command, own(tmp_path, 1)) == 0
    assert "No question of the split dev: training needs all three splits." in capsys.readouterr().out


def test_questions_on_documents_of_other_splits_are_told(tmp_path, capsys):
    path = own(tmp_path, 9)
    rows = [{"question": f"And {n}?", "relevant": [f"d{n}"], "split": "test"} for n in range(2)]
    path.write_text(path.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    assert status("inspect", path) == 0
    assert "2 of 2 test questions rest on a document that train questions rest on" in capsys.readouterr().out


def test_the_same_mistake_is_counted_once_and_listed_three_times(tmp_path, capsys):
    path = own(tmp_path, 9)
    path.write_text(path.read_text() + '{"question": "?", "relevent": ["d1"]}\n' * 20)
    assert status("inspect", path) == 0
    out = capsys.readouterr().out
    assert "Broken: 20 × unknown field 'relevent'." in out
    assert out.count("did you mean 'relevant'?") == 3
    assert "… and 17 more of the kind: unknown field 'relevent'" in out


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("squad", "Unknown data set 'squad'. Available: flags (bundled), webqa:DIR"),
        ("webqa", "needs a path: webqa:DIR"),
        ("jsonl:", "needs a path: jsonl:FILE"),
        ("webqa:/no/such", "/no/such is no folder"),
        ("jsonl:/no/such", "/no/such is no file"),
        ("flags:x", "takes no path"),
        ("own.jsonl", "own.jsonl is no file"),
        ("flag", "Did you mean flags?"),
        ("web:here", "Did you mean webqa?"),
        ("/", "Did you mean webqa:/ or multimodalqa:/?"),
        (__file__, f"write jsonl:{__file__}"),
        ("n" * 10_000, "Unknown data set"),
        ("jsonl:" + "n" * 10_000, "is no file"),
    ],
)
def test_what_is_no_data_set_is_named(spec, message, capsys):
    assert status("inspect", spec) == 1
    assert message in capsys.readouterr().err


def test_unknown_splits_limits_and_empty_folders_are_named(tmp_path, capsys):
    assert status("inspect", "flags", "--split", "tset") == 1
    assert "Unknown split 'tset'" in capsys.readouterr().err
    assert status("validate", "flags", "--limit", 0) == 1
    assert "The limit is 0" in capsys.readouterr().err
    assert status("inspect", f"webqa:{tmp_path}") == 1
    assert "holds no question" in capsys.readouterr().err


def test_subset_is_a_small_webqa_with_the_images_that_it_needs(tmp_path, capsys):
    extra = 30_000_009
    images = {
        number: picture(color) for number, color in ((RED, "red"), (BLUE, "blue"), (GREEN, "green"), (extra, "pink"))
    }
    whole = [*records(20, 10), webqa_record("pink", img_posFacts=[image_fact(extra)])]
    folder = write_webqa(tmp_path / "all", whole, images)
    out = tmp_path / "mini"
    assert status("subset", f"webqa:{folder}", "--questions", 6, "--out", out, "--seed", 1) == 0
    chosen = json.loads((out / "WebQA_train_val.json").read_text())
    assert len(chosen) == 6
    assert all(chosen[guid] == next(r for r in whole if r["Guid"] == guid) for guid in chosen)
    if "pink" not in chosen:
        assert webqa.Archive(out).missing(extra) == "the archive is a subset without this image"
        assert len((out / "imgs.tsv").read_bytes().splitlines()) == 3
    assert len((out / "imgs.lineidx").read_text().split()) == len((folder / "imgs.lineidx").read_text().split())
    originals = {e.id: e for split in ("train", "dev") for e in load_examples(f"webqa:{folder}", split)}
    examples = [e for split in ("train", "dev") for e in load_examples(f"webqa:{out}", split)]
    assert len(examples) == 6
    for example in examples:
        for document, original in zip(example.documents, originals[example.id].documents, strict=True):
            assert document.id == original.id
            if document.kind == "image":
                assert document.load_image().tobytes() == original.load_image().tobytes()
    assert f"webqa:{out}" in capsys.readouterr().out


def test_the_same_seed_draws_the_same_questions(tmp_path):
    spec = f"webqa:{write_webqa(tmp_path / 'all', records(40, 10))}"
    drawn = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert status("subset", spec, "--questions", 10, "--out", tmp_path / name, "--seed", seed) == 0
        drawn.append((tmp_path / name / "WebQA_train_val.json").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_subset_refuses_what_it_cannot_do(tmp_path, capsys):
    folder = write_webqa(tmp_path / "all", records())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for arguments, message in (
        (["flags", "--questions", 1, "--out", tmp_path / "o"], "webqa:DIR alone"),
        ([f"webqa:{folder}", "--questions", 99, "--out", tmp_path / "o"], "holds 16 labelled questions"),
        ([f"webqa:{folder}", "--questions", 0, "--out", tmp_path / "o"], "at least 1"),
        ([f"webqa:{folder}", "--questions", 1, "--out", tmp_path / "full"], "is not empty"),
    ):
        assert status("subset", *arguments) == 1
        assert message in capsys.readouterr().err


def test_subset_with_a_missing_image_stops_or_counts(tmp_path, capsys):
    folder = write_webqa(tmp_path / "all", [webqa_record("q", img_negFacts=[image_fact(30_000_400)])])
    spec = f"webqa:{folder}"
    assert status("subset", spec, "--questions", 1, "--out", tmp_path / "a") == 1
    assert "image 30000400" in capsys.readouterr().err
    assert status("subset", spec, "--questions", 1, "--out", tmp_path / "b", "--skip_broken") == 0
    assert "1 × missing image" in capsys.readouterr().out


def test_usage(capsys):
    assert status() == 2
    assert status("--help") == 0
    assert "subset" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "metrics" in capsys.readouterr().out
