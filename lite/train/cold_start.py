"""What may come before stage 2's GRPO: supervised steps on chains composed from the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel
from rich.console import Console
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from lite.config.launch import for_processes, is_main, processes
from lite.config.runs import Stage2Config
from lite.evaluate.scores import progress_bar
from lite.models.adapters import active, load_weights, save_adapter
from lite.models.inputs import opened_tag
from lite.runs import STAGE2
from lite.schema import LiteError
from lite.stages.answer import complete
from lite.stages.prompts import caption_prompt
from lite.train.callbacks import MetricsFile, ProgressLine, train_to_the_end
from lite.train.stage2_rows import Row, prompt_dataset
from lite.train.trl_fixes import adjust, learning, release

CAPTION_TOKENS = 60  # of a reply to `cold_start_caption`, at most


def cold_start(
    model: PeftModel, processor: ProcessorMixin, rows: Sequence[Row], config: Stage2Config, card: dict, console: Console
) -> None:
    """Teach stage 2's adapter the grammar by imitation of composed chains, once per run folder.

    GRPO sharpens what a model sometimes does; a small model never opens the right tags by chance. The adapter after the
    cold start is kept in `cold_start/`, so that its share in the result can be told from GRPO's.
    """
    folder = Path(config.output_dir) / "cold_start"
    if (folder / "lite.json").exists():
        load_weights(model, folder, STAGE2)
        return
    check_imitable(processor)
    console.print(f"Cold start: {config.cold_start_steps} supervised steps on composed chains.", highlight=False)
    captions = caption(model, processor, rows, config, console) if config.cold_start_caption else {}
    share = max(1, config.cold_start_batch_size // processes())
    settings = SFTConfig(
        output_dir=str(folder),
        max_steps=config.cold_start_steps,
        per_device_train_batch_size=min(share, config.per_device_train_batch_size),
        gradient_accumulation_steps=max(1, share // config.per_device_train_batch_size),
        learning_rate=config.cold_start_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(10, config.cold_start_steps // 5),
        max_length=None,
        bf16=config.bf16,
        use_cpu=config.use_cpu,
        gradient_checkpointing=config.gradient_checkpointing,
        optim=config.optim,
        seed=config.seed,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=config.dataloader_pin_memory,
    )
    exact = learning(model)
    trainer = SFTTrainer(
        model=model,
        args=for_processes(settings),
        train_dataset=prompt_dataset(rows, config, captions),
        processing_class=processor,
        callbacks=[MetricsFile(folder / "metrics.jsonl", "loss"), ProgressLine(console, "cold start", "loss")],
    )
    adjust(trainer, exact)
    train_to_the_end(trainer)
    release(trainer)
    if is_main():
        save_adapter(model, STAGE2, folder, card | {"stage": "cold start"})


def check_imitable(processor: ProcessorMixin) -> None:
    """Refuse a chat template whose finished answer does not begin with what opens it.

    Raises:
        LiteError: What is trained would not be what is generated.
    """
    chain = "<think>x</think>\n<rank>none</rank>\n<answer>x</answer>"
    turns = [
        {"role": who, "content": [{"type": "text", "text": text}]}
        for who, text in (("user", "x"), ("assistant", chain))
    ]
    arguments = {"tokenize": False, "processor_kwargs": {"padding": False}}
    opening = processor.apply_chat_template(turns[:1], add_generation_prompt=True, **arguments)
    wanted = opening + chain.removeprefix(opened_tag(processor))
    if not processor.apply_chat_template(turns, **arguments).startswith(wanted):
        raise LiteError(
            "This model's chat template writes a finished answer otherwise than it opens one (as thinking models do), "
            "so a cold start would teach another form than the one that is generated. Set cold_start_steps: 0."
        )


def caption(
    model: PeftModel, processor: ProcessorMixin, rows: Sequence[Row], config: Stage2Config, console: Console
) -> dict[str, str]:
    """What the bare base sees on each relevant image that has no text of its own, by document id."""
    relevant = [d for row in rows for d in row.listing.documents if d.id in row.example.relevant]
    images = list({d.id: d for d in relevant if d.image is not None and not d.text}.values())
    prompts = [caption_prompt(config.cold_start_caption)] * len(images)
    with active(model, []), progress_bar(console) as bar:
        task = bar.add_task("captions", total=len(images))
        said = complete(
            model, processor, prompts, [[image] for image in images], CAPTION_TOKENS,
            config.per_device_eval_batch_size, lambda places, _: bar.advance(task, len(places)), thinking=False,
        )  # fmt: skip
    return {image.id: text.strip(" .\n") for image, text in zip(images, said, strict=True) if text.strip(" .\n")}
