"""A vision-language model of random weights: Qwen2-VL's code, 0.2 million parameters, nothing downloaded.

    python tiny_model.py FOLDER

It takes pictures and words as a real one does and answers with letters drawn at random, for ever (it has no end token).
What it says means nothing; that it is asked, streams, is cut off and is cancelled is what the test looks at.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]

# Qwen2-VL's own turns; each picture is a run of <|image_pad|> that the processor lengthens to its number of patches.
CHAT = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] in ['image', 'image_url'] %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate([*alphabet, *SPECIAL])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=SPECIAL[0], eos_token=SPECIAL[2], extra_special_tokens=named)
    wrapped.add_special_tokens({"additional_special_tokens": SPECIAL})
    return wrapped


def build(folder: Path) -> None:
    torch.manual_seed(0)
    words = tokenizer()
    token = words.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32768,
            "bos_token_id": None, "eos_token_id": None, "pad_token_id": token(SPECIAL[0]),
            # 64 / 4 = 16 numbers a head: 8 pairs, shared out to time, rows and columns.
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2,
                       "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    # Printable bytes only: half characters would make the stream hold back words.
    with torch.no_grad():
        printable = [at for at in range(256) if chr(at).isascii() and chr(at).isalpha()]
        silent = torch.ones(len(words), dtype=torch.bool)
        silent[[token(chr(at)) for at in printable]] = False
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, eos_token_id=None, pad_token_id=token(SPECIAL[0]), max_new_tokens=64,
        suppress_tokens=silent.nonzero().flatten().tolist())
    model.save_pretrained(folder)
    # Pictures of any size are taken; a large one is scaled to at most 256 patches of 28 pixels.
    limits = {"shortest_edge": 28 * 28, "longest_edge": 256 * 28 * 28}
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=limits),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(size=limits),
        chat_template=CHAT,
    ).save_pretrained(folder)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{folder}: {parameters / 1e6:.2f} million parameters, {len(words)} tokens")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
