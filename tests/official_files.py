"""Writes small data sets in the official layouts, for the tests of loaders and commands."""

import base64
import gzip
import io
import json
from pathlib import Path

from PIL import Image

SHARED = Path(__file__).parents[2] / "shared" / "data"  # real data, where the repository has it beside it
RED, BLUE, GREEN = 30_000_002, 30_000_005, 13
COLORS = {RED: "red", BLUE: "blue", GREEN: "green"}


def picture(color="red", size=(64, 48), kind="PNG", mode="RGB"):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def image_fact(number, title="A house", caption="A house in Delft"):
    return {
        "image_id": number, "title": title, "caption": caption,
        "url": "https://commons.wikimedia.org/wiki/File:X.jpg", "imgUrl": "https://upload.wikimedia.org/x.jpg",
    }  # fmt: skip


def text_fact(name, fact="Delft is a city."):
    return {"snippet_id": name, "title": "Delft", "fact": fact, "url": "https://en.wikipedia.org/wiki/Delft"}


def webqa_record(guid, split="train", **changes):
    """A record as WebQA writes it, literal quotation marks included."""
    record = {
        "A": ['"The house is red."'], "Guid": guid, "Keywords_A": '"red"', "Q": f'"What color is house {guid}?"',
        "Qcate": "color", "split": split, "topic": "house",
        "img_posFacts": [image_fact(RED)], "img_negFacts": [image_fact(BLUE), image_fact(GREEN)],
        "txt_posFacts": [], "txt_negFacts": [text_fact(f"{guid}_1"), text_fact(f"{guid}_2", "It rains.")],
    }  # fmt: skip
    return record | changes


def write_webqa(folder, records, images=None):
    """The three official files. `images` are id to bytes; line `id % 10_000_000` of the index is theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "WebQA_train_val.json").write_text(json.dumps({record["Guid"]: record for record in records}))
    images = {number: picture(color) for number, color in COLORS.items()} if images is None else images
    offsets = [0] * (max(number % 10_000_000 for number in images) + 1)
    with open(folder / "imgs.tsv", "wb") as file:
        for number, content in images.items():
            offsets[number % 10_000_000] = file.tell()
            file.write(b"%d\t%s\n" % (number, base64.b64encode(content)))
    (folder / "imgs.lineidx").write_text("".join(f"{offset}\n" for offset in offsets))
    return folder


def table(name="Filmography", rows=(("1976", "The Bad News Bears"),), header=("Year", "Title")):
    cells = [[{"text": text, "links": [{"text": text, "wiki_title": text}]} for text in row] for row in rows]
    return {"table_rows": cells, "table_name": name, "header": [{"column_name": n, "metadata": {}} for n in header]}


def multimodalqa_question(qid, gold=(("t1", "text"),), answers=("1976",), kind="TextQ", **pool):
    metadata = {
        "type": kind, "modalities": ["text"], "text_doc_ids": ["t1", "t2"], "image_doc_ids": ["i1", "i2"],
        "table_id": "b1", "intermediate_answers": [],
    }  # fmt: skip
    return {
        "qid": qid,
        "question": f"When was film {qid} released?",
        "answers": [{"answer": a, "type": "string", "modality": "text"} for a in answers],
        "metadata": metadata | pool,
        "supporting_context": [{"doc_id": i, "doc_part": part} for i, part in gold],
    }


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def write_multimodalqa(folder, questions, split="dev"):
    """Questions, two texts, a table, two images and one image outside every pool."""
    write_lines(folder / f"MMQA_{split}.jsonl.gz", questions)
    texts = [{"id": i, "title": f"Film {i}", "url": "u", "text": f"{i} was released in 1976."} for i in ("t1", "t2")]
    write_lines(folder / "MMQA_texts.jsonl.gz", texts)
    write_lines(folder / "MMQA_tables.jsonl.gz", [{"id": "b1", "title": "Ben Piazza", "url": "u", "table": table()}])
    images = [{"id": f"i{n}", "title": f"Poster {n}", "url": "u", "path": f"i{n}.{e}"} for n, e in enumerate(
        ("PNG", "gif", "tiff"), start=1)]  # fmt: skip
    write_lines(folder / "MMQA_images.jsonl.gz", images)
    pictures = folder / "final_dataset_images"
    pictures.mkdir(exist_ok=True)
    for row, kind, mode in zip(images, ("PNG", "GIF", "TIFF"), ("RGBA", "P", "L"), strict=True):
        (pictures / row["path"]).write_bytes(picture("white", kind=kind, mode=mode))
    return folder
