"""Tiny random models of many families, with the real processor classes and nothing downloaded.

`FAMILIES[name](folder)` writes one. Chat templates are those that TRL ships; those of InternVL and LLaVA-OneVision
are written from their public templates. To test a new family, add a function to `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
import trl
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForImageTextToText, PretrainedConfig, PreTrainedTokenizerFast, ProcessorMixin

from lite.stages.prompts import NO, STAGE1_INSTRUCTION, STAGE2_INSTRUCTION, YES

CORPUS = [f"{STAGE1_INSTRUCTION}\n{STAGE2_INSTRUCTION}\nuser assistant {YES} {NO} system model\n\n"] * 20
WORDS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
VOCABULARY = 704
TURNS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IMAGES_FIRST = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def template(name: str) -> str:
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def tokenizer(
    special: Sequence[str], eos: str, pad: str, bos: str | None = None, adds_bos: bool = False, **named: str
) -> PreTrainedTokenizerFast:
    """Byte-level BPE. `named`: attributes of the tokenizer that hold special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=640, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    if adds_bos:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bpe.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=eos, pad_token=pad, bos_token=bos, extra_special_tokens=named,
        model_max_length=8192,
    )  # fmt: skip


def text(words: PreTrainedTokenizerFast, **more: object) -> dict:
    return {
        "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 8192,
        "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
        "tie_word_embeddings": True,
    } | more  # fmt: skip


SIGLIP = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def save(folder: Path, config: PretrainedConfig, processor: ProcessorMixin, ends: int | list[int]) -> None:
    """Weights are larger than initialised, or the logits would hardly depend on the context."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "norm" not in name and "conv" not in name:
                weight.mul_(2.5)
    model.generation_config.eos_token_id = ends
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.generation_config.bos_token_id = processor.tokenizer.bos_token_id
    model.float().save_pretrained(folder)
    processor.save_pretrained(folder)


# ---- Qwen ------------------------------------------------------------------------------------------------------------

QWEN = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
M_ROPE = {"rope_type": "default", "rope_theta": 5e5}


def qwen(
    folder: Path,
    config_class: type,
    processor_class: type,
    chat: str,
    patch: int,
    vision: dict,
    text_more: dict,
    video: type = transformers.Qwen3VLVideoProcessor,
) -> None:
    words = tokenizer(QWEN, "<|im_end|>", "<|endoftext|>", image_token="<|image_pad|>", video_token="<|video_pad|>")
    number = words.convert_tokens_to_ids
    config = config_class(
        tie_word_embeddings=True,
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        text_config=text(words, **text_more),
        vision_config={"patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2} | vision,
    )
    geometry = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    token = (2 * patch) ** 2
    processor = processor_class(
        image_processor=transformers.Qwen2VLImageProcessor(
            size={"shortest_edge": 2 * token, "longest_edge": 12 * token}, **geometry
        ),
        tokenizer=words,
        video_processor=video(**geometry),
        chat_template=template(chat),
    )
    save(folder, config, processor, words.eos_token_id)


TOWER = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64}
qwen3_vl = partial(
    qwen, config_class=transformers.Qwen3VLConfig, processor_class=transformers.Qwen3VLProcessor, chat="qwen3_vl",
    patch=16, vision=TOWER | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
    text_more={"rope_parameters": M_ROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True}},
)  # fmt: skip
qwen2_5_vl = partial(
    qwen, config_class=transformers.Qwen2_5_VLConfig, processor_class=transformers.Qwen2_5_VLProcessor,
    chat="qwen2_5_vl", patch=14, vision=TOWER | {"fullatt_block_indexes": [1], "window_size": 112},
    text_more={"rope_parameters": M_ROPE | {"mrope_section": [2, 3, 3]}}, video=transformers.Qwen2VLVideoProcessor,
)  # fmt: skip
qwen2_vl = partial(
    qwen, config_class=transformers.Qwen2VLConfig, processor_class=transformers.Qwen2VLProcessor, chat="qwen2_5_vl",
    patch=14, vision={"depth": 2, "embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 4},
    text_more={"rope_parameters": M_ROPE | {"mrope_section": [2, 3, 3]}}, video=transformers.Qwen2VLVideoProcessor,
)  # fmt: skip
QWEN3_5 = {
    "num_hidden_layers": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"], "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "rope_parameters": M_ROPE
    | {"mrope_section": [1, 1, 0], "mrope_interleaved": True, "partial_rotary_factor": 0.25},
}  # fmt: skip
qwen3_5 = partial(
    qwen, config_class=transformers.Qwen3_5Config, processor_class=transformers.Qwen3VLProcessor,
    chat="qwen3_5_nothink", patch=16, vision=TOWER | {"num_position_embeddings": 64}, text_more=QWEN3_5,
)  # fmt: skip
qwen3_5_think = partial(qwen3_5, chat="qwen3_5_think")


# ---- others ----------------------------------------------------------------------------------------------------------

SMOL = ["<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>", "<video>"]
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
LLAMA = {"model_type": "llama", "tie_word_embeddings": False}


def smolvlm(folder: Path) -> None:
    words = tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *SMOL, *TILES], "<end_of_utterance>", "<|im_end|>",
        bos="<|im_start|>", image_token="<image>", fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>", end_of_utterance_token="<end_of_utterance>",
    )  # fmt: skip
    sizes = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**sizes), words, transformers.SmolVLMVideoProcessor(**sizes),
        image_seq_len=4, chat_template=template("idefics3").replace("<|begin_of_text|>", "<|im_start|>"),
    )  # fmt: skip
    config = transformers.SmolVLMConfig(
        image_token_id=words.convert_tokens_to_ids("<image>"), tie_word_embeddings=False, scale_factor=2,
        pad_token_id=words.pad_token_id, text_config=text(words, **LLAMA),
        vision_config=SIGLIP | {"image_size": 64, "patch_size": 16},
    )  # fmt: skip
    save(folder, config, processor, words.eos_token_id)


def idefics3(folder: Path) -> None:
    words = tokenizer(
        ["<|begin_of_text|>", "<|end_of_text|>", *SMOL, *TILES], "<end_of_utterance>", "<|end_of_text|>",
        bos="<|begin_of_text|>", adds_bos=True,
    )  # fmt: skip
    processor = transformers.Idefics3Processor(
        transformers.Idefics3ImageProcessor(size={"longest_edge": 128}, max_image_size={"longest_edge": 64}), words,
        image_seq_len=4, chat_template=template("idefics3"),
    )  # fmt: skip
    config = transformers.Idefics3Config(
        image_token_id=processor.tokenizer.convert_tokens_to_ids("<image>"), scale_factor=2,
        tie_word_embeddings=False, pad_token_id=words.pad_token_id, text_config=text(words, **LLAMA),
        vision_config=SIGLIP | {"image_size": 64, "patch_size": 16},
    )  # fmt: skip
    save(folder, config, processor, words.eos_token_id)


def internvl(folder: Path) -> None:
    words = tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<IMG_CONTEXT>", "<img>", "</img>", "<video>"], "<|im_end|>",
        "<|endoftext|>", start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )  # fmt: skip
    size = {"height": 64, "width": 64}
    processor = transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4), words,
        transformers.InternVLVideoProcessor(size=size), image_seq_length=4, chat_template=TURNS,
    )  # fmt: skip
    config = transformers.InternVLConfig(
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4, downsample_ratio=0.5,
        text_config=text(words, model_type="qwen3"),
        vision_config=SIGLIP | {"image_size": [64, 64], "patch_size": [16, 16]},
    )  # fmt: skip
    save(folder, config, processor, words.eos_token_id)


def gemma3(folder: Path) -> None:
    special = [
        "<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
        "<image_soft_token>",
    ]  # fmt: skip
    words = tokenizer(
        special, "<eos>", "<pad>", bos="<bos>", adds_bos=True, image_token="<image_soft_token>",
        boi_token="<start_of_image>", eoi_token="<end_of_image>",
    )  # fmt: skip
    number = words.convert_tokens_to_ids
    processor = transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessor(size={"height": 64, "width": 64}, do_pan_and_scan=False), words,
        chat_template=template("gemma3"), image_seq_length=4,
    )  # fmt: skip
    config = transformers.Gemma3Config(
        mm_tokens_per_image=4, boi_token_index=number("<start_of_image>"), eoi_token_index=number("<end_of_image>"),
        image_token_index=number("<image_soft_token>"),
        text_config=text(
            words, num_hidden_layers=3, layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            sliding_window=32, query_pre_attn_scalar=16,
        ),
        vision_config=SIGLIP | {"image_size": 64, "patch_size": 16, "vision_use_head": False},
    )  # fmt: skip
    save(folder, config, processor, [words.eos_token_id, number("<end_of_turn>")])


def gemma4(folder: Path) -> None:
    special = [
        "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|image>",
        "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>", "<|tool_call>", "<tool_call|>", "<|video|>",
    ]  # fmt: skip
    words = tokenizer(
        special, "<eos>", "<pad>", bos="<bos>", adds_bos=True, image_token="<|image|>", boi_token="<|image>",
        eoi_token="<image|>", audio_token="<|audio|>", boa_token="<|audio>", eoa_token="<audio|>",
    )  # fmt: skip
    number = words.convert_tokens_to_ids
    image_processor = transformers.Gemma4ImageProcessor(patch_size=16, max_soft_tokens=140, pooling_kernel_size=2)
    processor = transformers.Gemma4Processor(
        transformers.Gemma4AudioFeatureExtractor(), image_processor, words, transformers.Gemma4VideoProcessor(),
        chat_template=template("gemma4"), image_seq_length=140,
    )  # fmt: skip
    config = transformers.Gemma4Config(
        boi_token_id=number("<|image>"), eoi_token_id=number("<image|>"), image_token_id=number("<|image|>"),
        video_token_id=number("<|video|>"), audio_token_id=number("<|audio|>"), boa_token_id=number("<|audio>"),
        eoa_token_index=number("<audio|>"), audio_config=None,
        text_config=text(
            words, num_hidden_layers=6, layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
            sliding_window=32, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=64,
            num_kv_shared_layers=3, use_double_wide_mlp=True, global_head_dim=32, final_logit_softcapping=30.0,
        ),
        vision_config=SIGLIP | {
            "num_key_value_heads": 4, "head_dim": 16, "patch_size": 16, "pooling_kernel_size": 2,
            "position_embedding_size": 256,
        },
    )  # fmt: skip
    save(folder, config, processor, [words.eos_token_id, number("<turn|>")])


def lfm2_vl(folder: Path) -> None:
    special = [
        "<|pad|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<image>", "<|image_start|>",
        "<|image_end|>", "<|img_thumbnail|>", *(f"<|img_{tile[1:-1]}|>" for tile in TILES),
    ]  # fmt: skip
    words = tokenizer(
        special, "<|im_end|>", "<|pad|>", bos="<|startoftext|>", adds_bos=True, image_token="<image>",
        image_start_token="<|image_start|>", image_end_token="<|image_end|>", image_thumbnail="<|img_thumbnail|>",
    )  # fmt: skip
    image_processor = transformers.Lfm2VlImageProcessor(
        tile_size=64, size={"height": 64, "width": 64}, min_image_tokens=2, max_image_tokens=4, min_tiles=2,
        max_tiles=4, encoder_patch_size=16, downsample_factor=2,
    )  # fmt: skip
    processor = transformers.Lfm2VlProcessor(image_processor, words, chat_template=template("lfm2_2_5_vl"))
    config = transformers.Lfm2VlConfig(
        image_token_id=words.convert_tokens_to_ids("<image>"), projector_hidden_size=64, downsample_factor=2,
        text_config=text(
            words, model_type="lfm2", num_hidden_layers=3, layer_types=["conv", "conv", "full_attention"],
            block_multiple_of=64, block_ff_dim=128, block_auto_adjust_ff_dim=False,
        ),
        vision_config=SIGLIP
        | {"model_type": "siglip2_vision_model", "patch_size": 16, "num_patches": 16, "vision_use_head": False},
    )  # fmt: skip
    save(folder, config, processor, words.eos_token_id)


def llava_onevision(folder: Path) -> None:
    words = tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"], "<|im_end|>", "<|endoftext|>",
        image_token="<image>", video_token="<video>",
    )  # fmt: skip
    size, pins = {"height": 64, "width": 64}, [[64, 64], [64, 128], [128, 64], [128, 128]]
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pins), words,
        transformers.LlavaOnevisionVideoProcessor(size=size), num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=IMAGES_FIRST,
    )  # fmt: skip
    config = transformers.LlavaOnevisionConfig(
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"), image_grid_pinpoints=pins, tie_word_embeddings=True,
        text_config=text(words, model_type="qwen2"),
        vision_config=SIGLIP
        | {"model_type": "siglip_vision_model", "image_size": 64, "patch_size": 16, "vision_use_head": False},
    )  # fmt: skip
    save(folder, config, processor, words.eos_token_id)


FAMILIES = {
    "qwen3_vl": qwen3_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen2_vl": qwen2_vl,
    "qwen3_5": qwen3_5,
    "qwen3_5_think": qwen3_5_think,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "internvl": internvl,
    "gemma3": gemma3,
    "gemma4": gemma4,
    "lfm2_vl": lfm2_vl,
}
REFUSED = {"llava_onevision": llava_onevision}
