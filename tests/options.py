"""Every option of frontends and encoders by name: the rows of docs/encoder/13_table_of_options.md."""

from __future__ import annotations

from typing import Any

Changes = dict[str, Any]

FAR = {"window": 3}
ROWS: dict[str, dict[str, Changes]] = {
    "Embeddings": {
        "learned table": {},
        "factorised table": {"frontend": {"width": 12}},
        "hashed": {"frontend": {"embedding": "hashed", "hash_rows": 16, "hashes": 3, "hash_weights": 20}},
        "characters, n-grams": {
            "frontend": {"embedding": "characters", "ngram_lengths": [1, 3], "ngram_rows": 64},
        },
        "characters, convolution": {
            "frontend": {
                "embedding": "characters",
                "character_model": "convolution",
                "character_kernels": [1, 3],
                "character_filters": 16,
            },
        },
        "static vectors, tuned": {"frontend": {"embedding": "static", "vectors": {"path": "vectors.txt", "rows": 20}}},
        "static vectors, frozen": {
            "frontend": {
                "embedding": "static",
                "vectors": {"path": "vectors.txt", "rows": 20, "tune": False},
                "width": 12,
            },
        },
    },
    "Positions": {
        "none": {"positions": "none"},
        "learned": {"positions": "learned"},
        "random, fixed": {"positions": "random"},
        "sinusoidal": {"positions": "sinusoidal"},
        "rotary": {"positions": "rotary"},
        "rotary, stretched": {"rotary_stretch": 4.0},
        "rotary, in part": {"rotary_share": 0.5},
        "rotary, other base for local blocks": {
            "pattern": "window",
            **FAR,
            "global_every": 2,
            "rotary_base_local": 100.0,
        },
        "ALiBi": {"positions": "alibi"},
        "relative buckets (T5)": {"positions": "relative", "relative_buckets": 8, "relative_reach": 9},
        "disentangled (DeBERTa)": {"positions": "disentangled", "relative_buckets": 4, "relative_reach": 12},
        "random start offsets": {"positions": "learned", "position_shift": 5},
    },
    "Norms and residuals": {
        "LayerNorm": {"norm": "layernorm"},
        "RMSNorm": {"norm": "rmsnorm"},
        "BatchNorm over real positions": {"norm": "batchnorm"},
        "norms before": {"norm_place": "pre"},
        "norms after": {"norm_place": "post"},
        "norms at both ends": {"norm_place": "both"},
        "scaled residuals": {"residual_scale": 1.5, "norm_place": "post"},
        "LayerScale": {"layer_scale": 0.1},
        "stochastic depth": {"depth_drop_rate": 0.2},
        "QK-norm": {"qk_norm": True},
        "no QK-norm": {"qk_norm": False},
        "no biases": {"bias": False},
    },
    "Feed-forward": {
        "ReLU": {"activation": "relu"},
        "GELU": {"activation": "gelu"},
        "GELU, tanh": {"activation": "gelu_tanh"},
        "SiLU": {"activation": "silu"},
        "GeGLU": {"activation": "geglu"},
        "SwiGLU": {"activation": "swiglu"},
        "convolution": {"mlp_kernel": 3},
        "experts": {"experts": 3},
    },
    "Attention": {
        "own widths of keys and values": {"head_width": 6, "value_width": 10},
        "multi-query": {"kv_heads": 1},
        "grouped queries": {"kv_heads": 2},
        "additive scores": {"score": "additive", "positions": "none"},
        "causal": {"pattern": "causal"},
        "window": {"pattern": "window", **FAR},
        "dilated": {"pattern": "dilated", "window": 2, "dilation": 3},
        "global tokens": {"pattern": "window", "window": 1, "global_tokens": 2},
        "block": {"pattern": "block", "block": 4},
        "random blocks (BigBird)": {"pattern": "random", "window": 1, "block": 4, "random_blocks": 1},
        "local and far blocks in turn": {"pattern": "window", **FAR, "global_every": 2},
    },
    "Depth": {
        "shared blocks (ALBERT)": {"distinct_blocks": 1, "depth": 3},
        "halving (Funnel)": {"halve_after": [1], "depth": 3},
    },
    "Recurrent": {
        "RNN": {"kind": "recurrent", "cell": "rnn"},
        "LSTM": {"kind": "recurrent", "cell": "lstm"},
        "GRU": {"kind": "recurrent", "cell": "gru"},
        "one direction": {"kind": "recurrent", "directions": "forward"},
        "projected states": {"kind": "recurrent", "hidden_width": 20},
    },
    "Hierarchical": {
        "HAN": {"kind": "hierarchical", "style": "han", "segment": 4},
        "HAN, recurrent": {
            "kind": "hierarchical",
            "style": "han",
            "segment": 5,
            "words": "recurrent",
            "segments": "recurrent",
        },
        "HAT": {"kind": "hierarchical", "segment": 4, "cross_every": 1},
        "HAT, whole sentences": {"kind": "hierarchical", "segment": 6, "cross_every": 1, "segment_at": "sentences"},
    },
    "Knowledge": {
        "entities fused into mentions (ERNIE)": {"fusion": {"entities": 12, "width": 24, "after": [1, 2]}},
    },
}
NAMED: dict[str, Changes] = {f"{group}: {name}": row for group, rows in ROWS.items() for name, row in rows.items()}
