"""The exam that a base must pass before it is written: real flags and texts of dev, countries it has never seen."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, ProcessorMixin

from lite.data.flags import country, load_corpus, load_examples
from lite.schema import Document, Example
from lite.stages.prompts import NO, YES, parse_stage2
from tools.tiny.answering import answer_row
from tools.tiny.drawing import BANDS
from tools.tiny.skills import Batcher, Row, copy_prompt, describe_prompt, read_prompt, relevance_row

UNSEEN = ("dev",)
BATCH = 48
COPIES = 200
DOCUMENTS = 5  # in a stage 2 prompt of the probe


@dataclass(frozen=True)
class Figure:
    """What one skill of the probe came to.

    Args:
        figure: Share of right answers.
        n: Number of answers.
        chance: What guessing would reach.
        required: The least that a base must reach, or None where the figure is only reported.
    """

    skill: str
    figure: float
    n: int
    chance: float
    required: float | None

    @property
    def passed(self) -> bool:
        return self.required is None or self.figure >= self.required


def probe(
    model: PreTrainedModel, processor: ProcessorMixin, splits: Sequence[str] = UNSEEN, every: int = 1
) -> list[Figure]:
    """Examine the model on countries of `splits`, without sampling.

    Args:
        every: Take only each so manieth question, for a quick look.

    Returns:
        name matching: a one-hop question with its document, and with a document of the same kind of another country;
            share of the two that get the higher probability for the right word of Yes and No.
        band colours: the colour of the band that a real question asks about, in the model's description of the flag.
        copying: a title of a numbered list repeated to the letter.
        reading: the answer to a one-hop question on a text, to the letter, from the right document.
        seeing: the answer to a one-hop question on a flag, likewise.
        chains: stage 2 completions that the parser accepts, for every question with its documents and others of its
            pool, `DOCUMENTS` in all.
        answers: the answer in them, to one-hop questions.
    """
    model.eval()
    examiner = _Examiner(model, processor)
    return [
        examiner.name_matching(splits, every),
        examiner.band_colors(splits, every),
        examiner.copying(splits, every),
        examiner.reading(splits, every),
        examiner.seeing(splits, every),
        *examiner.chains(splits, every),
    ]


def print_probe(figures: Sequence[Figure]) -> None:
    """The table that a build prints."""
    print(f"{'skill':<16}{'figure':>8}{'n':>6}{'chance':>8}{'required':>10}")
    for f in figures:
        required = "-" if f.required is None else f"{f.required:.2f}"
        verdict = "" if f.passed else "  FAILED"
        print(f"{f.skill:<16}{f.figure:>8.3f}{f.n:>6}{f.chance:>8.3f}{required:>10}{verdict}")


def write_probe(figures: Sequence[Figure], path: Path, **origin: str | int) -> None:
    """The same as JSON, beside what is to be known of the weights' origin (seed, torch version, checksum)."""
    report = {**origin, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def read_probe(path: Path) -> list[Figure]:
    """The figures that `write_probe` wrote."""
    return [Figure(**row) for row in json.loads(path.read_text(encoding="utf-8"))["figures"]]


class _Examiner:
    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.model = model
        self.tokenizer = processor.tokenizer
        self.batcher = Batcher(processor)

    def name_matching(self, splits: Sequence[str], every: int) -> Figure:
        rng = random.Random(0)
        corpus = load_corpus()
        pairs: list[tuple[str, Document, bool]] = []
        for split in splits:
            examples = [e for e in load_examples(split) if e.category in ("text", "image")]
            codes = sorted({country(i) for e in examples for i in e.relevant})
            for example in examples[::every]:
                [right] = example.relevant
                code = country(right)
                others = [right.replace(f":{code}", f":{other}", 1) for other in codes if other != code]
                pairs.append((example.question, corpus[right], True))
                pairs.append((example.question, corpus[rng.choice([i for i in others if i in corpus])], False))
        scores = self._chance_of_yes([relevance_row(question, document) for question, document, _ in pairs])
        hits = [(score > 0.5) == relevant for score, (_, _, relevant) in zip(scores, pairs, strict=True)]
        return Figure("name matching", _mean(hits), len(hits), 0.5, 0.95)

    def band_colors(self, splits: Sequence[str], every: int) -> Figure:
        asked: dict[tuple[str, str], frozenset[str]] = {}
        for split in splits:
            for example in load_examples(split):
                if example.question.startswith("What color is the "):
                    [flag] = [i for i in example.relevant if i.startswith("img:")]
                    asked[flag, example.question.split()[4]] = frozenset(
                        a.replace("gold", "yellow") for a in example.answers
                    )
        questions = sorted(asked)[::every]
        flags = sorted({flag for flag, _ in questions})
        corpus = load_corpus()
        descriptions = dict(zip(flags, self._say([describe_prompt(corpus[f].load_image) for f in flags]), strict=True))
        hits = [_band_color(descriptions[flag], band) in asked[flag, band] for flag, band in questions]
        commonest = Counter(color for question in questions for color in asked[question]).most_common(1)[0][1]
        return Figure("band colours", _mean(hits), len(hits), commonest / len(questions), 0.9)

    def copying(self, splits: Sequence[str], every: int) -> Figure:
        rng = random.Random(0)
        codes = sorted({country(i) for split in splits for e in load_examples(split) for i in e.relevant})
        titles = sorted(document.title for i, document in load_corpus().items() if country(i) in codes)
        rows = []
        for _ in range(COPIES // every):
            listed = rng.sample(titles, rng.randint(2, 5))
            rows.append(copy_prompt(listed, rng.randrange(len(listed))))
        hits = [said == row.completion for said, row in zip(self._say(rows), rows, strict=True)]
        return Figure("copying", _mean(hits), len(hits), 0.0, 0.8)

    def reading(self, splits: Sequence[str], every: int) -> Figure:
        hits, _ = self._one_document("text", splits, every)
        return Figure("reading", _mean(hits), len(hits), 0.0, None)

    def seeing(self, splits: Sequence[str], every: int) -> Figure:
        hits, commonest = self._one_document("image", splits, every)
        return Figure("seeing", _mean(hits), len(hits), commonest, None)

    def chains(self, splits: Sequence[str], every: int) -> list[Figure]:
        examples = [e for split in splits for e in load_examples(split)][::every]
        shown = [_some_documents(example) for example in examples]
        rows = [answer_row(e, documents) for e, documents in zip(examples, shown, strict=True)]
        parsed = [parse_stage2(said, DOCUMENTS) for said in self._say(rows, 200)]
        formed = [not output.failure for output in parsed]
        one_hop = [(o, e) for o, e in zip(parsed, examples, strict=True) if len(e.relevant) == 1]
        right = [_is_right(output.answer, example) for output, example in one_hop]
        return [
            Figure("chains", _mean(formed), len(formed), 0.0, None),
            Figure("answers", _mean(right), len(right), _commonest([e for _, e in one_hop]), None),
        ]

    def _one_document(self, category: str, splits: Sequence[str], every: int) -> tuple[list[bool], float]:
        examples = [e for split in splits for e in load_examples(split) if e.category == category][::every]
        rows = [read_prompt(load_corpus()[min(e.relevant)], e.question) for e in examples]
        hits = [_is_right(said, example) for said, example in zip(self._say(rows), examples, strict=True)]
        return hits, _commonest(examples)

    @torch.inference_mode()
    def _chance_of_yes(self, rows: Sequence[Row]) -> list[float]:
        yes, no = self.tokenizer.convert_tokens_to_ids([YES, NO])
        scores = []
        for i in range(0, len(rows), BATCH):
            logits = self.model(**self._batch(rows[i : i + BATCH]), logits_to_keep=1).logits[:, -1].float()
            scores += torch.sigmoid(logits[:, yes] - logits[:, no]).tolist()
        return scores

    def _say(self, rows: Sequence[Row], max_new_tokens: int = 40) -> list[str]:
        said = []
        for i in range(0, len(rows), BATCH):
            inputs = self._batch(rows[i : i + BATCH])
            tokens = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            said += self.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return said

    def _batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.model.device) for name, tensor in self.batcher.prompt_batch(rows).items()}


def _band_color(description: str, band: str) -> str:
    """The colour of `band` in `horizontal: red, white; star`; empty if the description does not have that band."""
    orientation, _, rest = description.strip().partition(": ")
    colors = rest.split(";")[0].split(", ")
    bands = BANDS.get((orientation, len(colors)), ())
    return colors[bands.index(band)] if band in bands else ""


def _some_documents(example: Example) -> list[Document]:
    """What an example's answer rests on, among others of its pool, half of which are of the same kind."""
    rng = random.Random(example.id)
    documents = [document for document in example.documents if document.id in example.relevant]
    others = [document for document in example.documents if document.id not in example.relevant]
    rng.shuffle(others)
    same_kind = [document for document in others if document.kind == documents[0].kind]
    picked = dict.fromkeys(same_kind[: (DOCUMENTS - len(documents) + 1) // 2] + others)
    documents += list(picked)[: DOCUMENTS - len(documents)]
    rng.shuffle(documents)
    return documents


def _is_right(said: str, example: Example) -> bool:
    return said.strip() in {*example.answers, *(answer.replace("gold", "yellow") for answer in example.answers)}


def _commonest(examples: Sequence[Example]) -> float:
    """Share of the questions that the most common answer is right for."""
    [(_, count)] = Counter(answer for example in examples for answer in set(example.answers)).most_common(1)
    return round(count / len(examples), 4)


def _mean(hits: Sequence[bool]) -> float:
    return round(sum(hits) / len(hits), 4)
