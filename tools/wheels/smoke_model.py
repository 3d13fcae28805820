"""What the smoke test runs inside the wheel's environment: ``smoke_model.py STEP ARGS...``.

A file of its own, that needs nothing but what the wheel brings: it is run by the
environment's Python, which has nothing of the pipeline.
"""

import contextlib
import importlib
import json
import math
import random
import runpy
import struct
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

VOCABULARY, HIDDEN, INNER, LAYERS, HEAD = 512, 128, 256, 2, 64
END = 2  # the token that ends a text, in MLC LLM's conversation template "LM"
TOKENS = 16


def make(folder: str) -> None:
    """Write a tiny Llama of random weights, as Hugging Face lays one out."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HIDDEN // HEAD,
        "num_key_value_heads": 1, "head_dim": HEAD, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": END, "torch_dtype": "float32",
    }  # fmt: skip
    target = Path(folder)
    target.mkdir()
    for name, value in (
        ("config.json", config),
        ("tokenizer.json", tokenizer()),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        (target / name).write_text(json.dumps(value), encoding="utf-8")
    write_safetensors(target / "model.safetensors", shapes())


def shapes() -> dict[str, tuple[int, ...]]:
    """The parameters of a Llama and their shapes."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        start = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{start}.{name}.weight"] = (HIDDEN,)
        for name, rows in (("q", HIDDEN), ("k", HEAD), ("v", HEAD), ("o", HIDDEN)):
            found[f"{start}.self_attn.{name}_proj.weight"] = (rows, HIDDEN)
        for name in ("gate", "up"):
            found[f"{start}.mlp.{name}_proj.weight"] = (INNER, HIDDEN)
        found[f"{start}.mlp.down_proj.weight"] = (HIDDEN, INNER)
    return found


def write_safetensors(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """Random float32 tensors: the length of a JSON header, the header, the numbers.

    Source: huggingface/safetensors, README, "Format".
    """
    numbers, header, begin = random.Random(0), {}, 0
    for name, shape in tensors.items():
        end = begin + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (begin, end)}
        begin = end
    data = array("f", (numbers.gauss(0, 0.05) for _ in range(begin // 4)))
    if sys.byteorder == "big":
        data.byteswap()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data.tobytes())


def tokenizer() -> dict[str, object]:
    """A byte-level BPE tokenizer of as many tokens as the model has: three special ones,
    every byte, and pairs of letters.

    Source: openai/gpt-2, ``encoder.py``, for the characters that stand for bytes.
    """
    special = ["<unk>", "<s>", "</s>"]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = range(256 - len(printable))
    characters = [chr(byte) for byte in printable] + [chr(256 + n) for n in rest]
    letters = characters[ord("a") - 33 :][:26]
    merges = [(first, second) for first in letters for second in letters]
    del merges[VOCABULARY - len(special) - len(characters) :]
    tokens = [*special, *characters, *map("".join, merges)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": text, "special": True, **flags}
            for number, text in enumerate(special)
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [" ".join(pair) for pair in merges],
        },
    }


def compile_model(*args: str) -> None:
    """``python -m mlc_llm compile ARGS...``."""
    # With TVM's rule for matrix-vector products LLVM takes over ten minutes a kernel on a
    # CPU. A rule that returns None passes: the next one schedules the kernel.
    with contextlib.suppress(ImportError):  # the stand-in has no TVM
        importlib.import_module("tvm.s_tir.dlight.cpu").GEMV.apply = lambda *_: None
    sys.argv = ["mlc_llm", "compile", *args]
    runpy.run_module("mlc_llm", run_name="__main__", alter_sys=True)


def generate(model: str, library: str) -> None:
    """Have the engine generate tokens; fails unless they are as many as were asked for."""
    engine = importlib.import_module("mlc_llm").MLCEngine(
        model=model, model_lib=library, device="cpu", mode="interactive"
    )
    response = engine.chat.completions.create(
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=TOKENS,
        logit_bias={str(END): -100},
    )
    engine.terminate()
    print(response.choices[0].message.content)
    if response.usage.completion_tokens != TOKENS:
        sys.exit(f"{response.usage.completion_tokens} tokens instead of {TOKENS}")


if __name__ == "__main__":
    steps: dict[str, Callable[..., None]] = {
        "make": make, "compile": compile_model, "generate": generate,
    }  # fmt: skip
    steps[sys.argv[1]](*sys.argv[2:])
