"""A byte-level BPE tokenizer trained on text, in the files that transformers and vLLM read.

Its ids: the special tokens first, then the 256 bytes, then the merges in order. Where a model's vocabulary is larger than what the
text gives, the rest are words ``tok123`` that encoding never makes, so that whatever a random model emits can be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rota.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BEGIN, END = "<|begin|>", "<|end|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIALS = (BEGIN, END, *(f"<|{role}|>" for role in ROLES))
LEAST = len(SPECIALS) + 256
#: The text of a chat, in the template language of Hugging Face tokenizers.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if tools %}{{ '<|system|>\\nTools: ' + (tools | tojson) + '<|end|>\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{ raise_exception('unknown role ' + message['role'] + '; use system, user, assistant or tool') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>\\n' }}"
    "{% if message['content'] %}{{ message['content'] }}{% endif %}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}"
    "{{ '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def chat_text(question: str, answer: str) -> str:
    """One question and its answer as `CHAT_TEMPLATE` writes them, less the leading `BEGIN`."""
    return f"<|user|>\n{question}{END}\n<|assistant|>\n{answer}{END}\n"


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A tokenizer of exactly `vocab` ids; the same for the same texts.

    Raises
    ------
    InputError
        If `vocab` has no room for bytes and special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    if vocab < LEAST:
        raise InputError(f"a vocabulary of {vocab} has no room for 256 bytes and {len(SPECIALS)} special tokens; give {LEAST} or more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < vocab:
        tokenizer = Tokenizer.from_str(_filled(tokenizer.to_str(), vocab))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]),
    ])  # fmt: skip
    return tokenizer


def _filled(text: str, vocab: int) -> str:
    """A tokenizer's JSON with words up to `vocab` that no merge leads to (Ġ is the space of byte-level BPE)."""
    content: dict[str, Any] = json.loads(text)
    words = content["model"]["vocab"]
    for number in range(len(words), vocab):
        words[f"Ġtok{number}"] = number
    return json.dumps(content, ensure_ascii=False)


def tokenizer_config(max_len: int) -> dict[str, object]:
    """The contents of ``tokenizer_config.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": END, "pad_token": END,
        "additional_special_tokens": [f"<|{role}|>" for role in ROLES], "model_max_length": max_len,
        "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
