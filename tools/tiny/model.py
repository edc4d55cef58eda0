"""The architecture, tokenizer and initialisation of the embedded model: a Qwen3-VL of 1.3 million parameters."""

from __future__ import annotations

import random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lite.stages.prompts import NO, TAGS, YES, stage1_prompt, stage2_prompt
from lite.train.chains import compose_chain
from tools.tiny.drawing import SYMBOLS
from tools.tiny.world import NameMaker, train_documents, train_examples

VOCABULARY = 1536
HIDDEN = 128  # every quantised layer needs a multiple of 64 inputs: the block of NF4
HEAD_DIM = 32
QUERY_HEADS, KEY_HEADS = 4, 2
LAYERS = 5
VISION_HIDDEN = 64
PATCH, MERGE = 8, 2
PIXELS = 64 * 48  # a 4:3 flag becomes 64x48 pixels, 8x6 patches, 12 tokens

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

# The turns of Qwen3-VL's own template, without its tools and system prompt.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_corpus() -> list[str]:
    """Train documents and questions, made-up names, and the fixed words of every prompt often enough to be tokens."""
    rng = random.Random(0)
    names = NameMaker()
    documents = train_documents().values()
    corpus = [f" {document.title}\n{document.text}" for document in documents]
    corpus += [f" {example.question}" for example in train_examples()]
    corpus += [f" {names.name(rng)}" for _ in range(6000)]
    example, image = train_examples()[0], next(d for d in documents if d.kind == "image")
    turns = [*stage1_prompt(example.question, image), *stage2_prompt(example.question, [image])]
    fixed = [part["text"] for turn in turns for part in turn["content"] if part["type"] == "text"]
    shown = [image, *(d for d in documents if d.id in example.relevant)]
    fixed += [compose_chain(example, shown, 140), compose_chain(example, [image], 140)]
    fixed += [f"user\n{YES}", f"assistant\n{NO}", "user\nDescribe the flag.", "\nRepeat the title of [1].", "\nAnswer."]
    fixed += [" plain: horizontal: vertical: red, white, blue, green, yellow, black, orange yes no"]
    fixed += ["; ".join(["", *SYMBOLS]), " ".join(["", *SYMBOLS.values()])]
    return corpus + fixed * 200


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's control tokens.

    Digits stay apart, so that numbers are made of few tokens, and so do stage 2's tags. What follows an opening tag is
    read as if a space stood before it: a name has the same tokens there as within a sentence, or it could not be
    copied. Decoding takes the space away again.
    """
    bpe = Tokenizer(models.BPE())
    tag = f"</?(?:{'|'.join(TAGS)})>"
    words = rf"{tag}| ?\p{{L}}+| ?\p{{N}}| ?(?:(?!{tag})[^\s\p{{L}}\p{{N}}])+|\s+(?!\S)|\s+"
    bpe.normalizer = normalizers.Sequence([normalizers.Replace(f"<{tag}>", f"<{tag}> ") for tag in TAGS])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Fuse(), *(decoders.Replace(f"<{tag}> ", f"<{tag}>") for tag in TAGS)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(tokenizer_corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS[1:],
        model_max_length=2048,
    )
    tokenizer.padding_side = "left"
    tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    return tokenizer


def build_processor() -> Qwen3VLProcessor:
    """Tokenizer, image processor with a fixed pixel budget, and chat template."""
    geometry = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 1}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size={"shortest_edge": PIXELS, "longest_edge": PIXELS}, **geometry),
        tokenizer=build_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(**geometry),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: Qwen3VLProcessor, seed: int) -> Qwen3VLForConditionalGeneration:
    """The untrained model in float32, with its attention heads set up for matching and copying."""
    tokenizer = processor.tokenizer
    token = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        tie_word_embeddings=True,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 3 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": QUERY_HEADS,
            "num_key_value_heads": KEY_HEADS,
            "head_dim": HEAD_DIM,
            "max_position_embeddings": 2048,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500_000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": 2 * VISION_HIDDEN,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 1,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = None
    with torch.no_grad():
        _set_up_matching(model)
        _set_up_copying(model, torch.Generator().manual_seed(seed))
        _amplify_vision(model)
    return model


def _set_up_matching(model: Qwen3VLForConditionalGeneration) -> None:
    """Key head 0 of every layer but the first starts as a same-token head: it looks where its own token stood before.

    Large embeddings let a token's identity dominate the residual stream; equal query and key projections make a
    token attend to its equals.
    """
    language = model.model.language_model
    torch.nn.init.normal_(language.embed_tokens.weight, std=0.1)
    for layer in language.layers[1:]:
        attention = layer.self_attn
        attention.q_proj.weight[:HEAD_DIM] = attention.k_proj.weight[:HEAD_DIM]
        attention.q_norm.weight.fill_(1.8)


def _set_up_copying(model: Qwen3VLForConditionalGeneration, generator: torch.Generator) -> None:
    """Key head 1 starts as an induction circuit (Olsson et al. 2022): find the last token again, copy what followed.

    In layer 0 it looks at the previous token and stores its identity in a subspace of its own. In layers 1 and 2 it
    looks for the place whose stored previous token is the present one, and writes that place's token into the
    residual stream, which the tied output layer turns into a prediction. Without this start copying never formed
    within an affordable number of steps.
    """
    language = model.model.language_model
    theta = model.config.text_config.rope_parameters["rope_theta"]
    group = QUERY_HEADS // KEY_HEADS
    keys = slice(HEAD_DIM, 2 * HEAD_DIM)
    first_query = slice(group * HEAD_DIM, (group + 1) * HEAD_DIM)
    half = HEAD_DIM // 2

    def orthonormal(rows: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(HIDDEN, rows, generator=generator))[0].T

    # A direction that every embedding holds, so that a head can act whatever the token. Being constant, it does not
    # change the softmax over the tied embeddings.
    basis = orthonormal(2 * HEAD_DIM + 1)
    constant, store = basis[-1], basis[:HEAD_DIM]
    embeddings = language.embed_tokens.weight
    embeddings -= (embeddings @ constant)[:, None] * constant
    embeddings += embeddings.norm(dim=1).mean() * constant

    # Layer 0: on the three fastest rotary pairs, query and key agree best at a distance of one token.
    key_pattern, query_pattern = torch.zeros(HEAD_DIM), torch.zeros(HEAD_DIM)
    for pair in range(3):
        angle = torch.tensor(theta ** (-2 * pair / HEAD_DIM))
        key_pattern[pair] = 1.0
        query_pattern[pair], query_pattern[pair + half] = torch.cos(-angle), torch.sin(-angle)
    identity = torch.randn(HEAD_DIM, HIDDEN, generator=generator)
    identity -= (identity @ constant)[:, None] * constant
    identity /= identity.norm(dim=1, keepdim=True)
    previous = language.layers[0].self_attn
    previous.k_proj.weight[keys] = key_pattern[:, None] * constant
    previous.v_proj.weight[keys] = identity
    previous.o_proj.weight[:, group * HEAD_DIM :] = 0
    previous.o_proj.weight[:, first_query] = store.T * 0.35
    for head in range(group, QUERY_HEADS):
        previous.q_proj.weight[head * HEAD_DIM : (head + 1) * HEAD_DIM] = query_pattern[:, None] * constant
    previous.q_norm.weight.fill_(1.6)

    # Layers 1 and 2: compare identities on the slow rotary pairs only, where distance does not matter.
    slow = torch.ones(HEAD_DIM, 1)
    slow[:6], slow[half : half + 6] = 0, 0
    for layer in language.layers[1:3]:
        induction = layer.self_attn
        induction.q_proj.weight[first_query] = slow * identity
        induction.k_proj.weight[keys] = slow * store * 3
        copied = orthonormal(HEAD_DIM)
        induction.v_proj.weight[keys] = copied
        induction.o_proj.weight[:, first_query] = copied.T * 0.7
        induction.q_norm.weight.fill_(2.2)


def _amplify_vision(model: Qwen3VLForConditionalGeneration) -> None:
    """Image tokens start as loud as words: at the default scale the language model does not hear them for long."""
    visual = model.model.visual
    for merger in [visual.merger, *visual.deepstack_merger_list]:
        merger.linear_fc2.weight.mul_(6)
