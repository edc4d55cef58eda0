"""How long WebQA's train split takes to load, and how much memory: on a generated archive of the real one's shape.

    python benchmarks/webqa_loading.py            writes benchmarks/results/webqa-loading.json; needs 1.5 GB of disk

The archive has 36,766 train questions of 16 image and 16 text facts each, and 389,750 images. Only the pictures are
smaller than the real ones; no line of them is read before it is asked for. What is measured runs in its own process.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

QUESTIONS, IMAGES = 36_766, 389_750
FIRST_IMAGE = 30_000_000
RESULT = Path(__file__).parent / "results" / "webqa-loading.json"


def generate(folder: Path, questions: int) -> None:
    """Write the official files, filled with random words and one small picture."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(5000)]

    def words(count: int) -> str:
        return " ".join(rng.choices(vocabulary, k=count))

    picture = io.BytesIO()
    Image.new("RGB", (160, 120), "teal").save(picture, "JPEG")
    encoded = base64.b64encode(picture.getvalue())
    offset, offsets = 0, []
    with open(folder / "imgs.tsv", "wb") as file:
        for i in range(IMAGES):
            offsets.append(offset)
            offset += file.write(b"%d\t%s\n" % (FIRST_IMAGE + i, encoded))
    (folder / "imgs.lineidx").write_text("".join(f"{offset}\n" for offset in offsets))

    def image_fact(i: int) -> dict:
        title = words(6)
        address = f"https://example.org/{words(12).replace(' ', '_')}"
        return {"image_id": FIRST_IMAGE + i, "title": title, "caption": f"{title} {words(10)}",
                "url": address, "imgUrl": address + ".jpg"}  # fmt: skip

    def text_fact(guid: str, i: int) -> dict:
        return {"snippet_id": f"{guid}_{i}", "title": words(3), "fact": words(40), "url": f"https://{words(1)}.org"}

    with open(folder / "WebQA_train_val.json", "w") as file:
        for number in range(questions):
            guid = f"{number:032x}"
            images = [image_fact(rng.randrange(IMAGES)) for _ in range(16)]
            texts = [text_fact(guid, i) for i in range(16)]
            record = {"A": [f'"{words(12)}"'], "Guid": guid, "Keywords_A": "TBD", "Q": f'"{words(15)}?"',
                      "Qcate": "Others", "split": "train", "topic": "x",
                      "img_posFacts": images[:1], "img_negFacts": images[1:], "txt_posFacts": [],
                      "txt_negFacts": texts}  # fmt: skip
            file.write(("{" if number == 0 else ", ") + f'"{guid}": ' + json.dumps(record))
        file.write("}")


def measure(folder: Path) -> dict:
    """Load the train split, make training pairs of it, read 500 images at random."""
    from lite.data.problems import Problems
    from lite.data.sources import load_examples, load_training_pairs

    spec = f"webqa:{folder}"
    start, cpu = time.perf_counter(), time.process_time()
    examples = load_examples(spec, "train")
    loading, loading_cpu = time.perf_counter() - start, time.process_time() - cpu
    peak_loading = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = [d for example in examples for d in example.documents if d.kind == "image"]
    start = time.perf_counter()
    for document in random.Random(1).sample(images, 500):
        document.load_image()
    reading = (time.perf_counter() - start) / 500
    figures = {
        "questions": len(examples),
        "documents": sum(len(example.documents) for example in examples),
        "distinct_images": len({document.id for document in images}),
        "load_seconds": round(loading, 1),
        "load_cpu_seconds": round(loading_cpu, 1),
        "load_peak_gib": round(peak_loading / 2**20, 2),
        "read_image_ms": round(1000 * reading, 2),
    }
    del examples, images
    start, cpu = time.perf_counter(), time.process_time()
    pairs = load_training_pairs(spec, None, None, 0.6, 0, Problems())
    return figures | {
        "pairs": len(pairs),
        "pairs_seconds": round(time.perf_counter() - start, 1),
        "pairs_cpu_seconds": round(time.process_time() - cpu, 1),
        "pairs_peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), arguments.questions)
        sizes = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
        output = subprocess.run([sys.executable, __file__, "--measure", folder], check=True, stdout=subprocess.PIPE)
    figures = json.loads(output.stdout) | {"bytes": sizes}
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
