"""What the Keras encoder does not have is refused by name; read here without Keras."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest

from encodery.encoders.options import TransformerConfig
from encodery.errors import MissingExtra, WeightsError
from encodery.frontends.options import OWN_OPTIONS, TextConfig
from encodery.heads.options import ReadoutConfig
from encodery.interop.keras_encoder.options import KNOWN, REFUSED, read_config
from encodery.interop.keras_encoder.options import READOUTS as WITH_KERAS

READOUTS = [
    config for config in get_args(get_args(ReadoutConfig)[0]) if config.model_fields["kind"].default in WITH_KERAS
]
SECTIONS = {"frontend": [TextConfig], "encoder": [TransformerConfig], "readout": READOUTS}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_is_followed_or_refused(section: str) -> None:
    """A new option needs code in keras_encoder_*.py and its name in KNOWN, or a reason in REFUSED."""
    fields = {name for config in SECTIONS[section] for name in config.model_fields}
    refused = {key.split("=")[0].removeprefix(f"{section}.") for key in REFUSED if key.startswith(f"{section}.")}
    # Options of an embedding or a readout that is refused as a whole.
    refused |= {name for kind, names in OWN_OPTIONS.items() if kind != "static" for name in names}
    assert not fields - KNOWN[section] - refused
    assert KNOWN[section] <= fields, "KNOWN names an option that is gone"


def model(**changes: Any) -> dict[str, Any]:
    return {
        "frontend": {"vocab_size": 40},
        "encoder": {"width": 16, "heads": 2},
        "readout": {"kind": "word"},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"encoder": {"kind": "recurrent"}}, "encoder.kind is 'recurrent'"),
        ({"encoder": {"kind": "hierarchical"}}, "encoder.kind is 'hierarchical'"),
        ({"frontend": {"kind": "vision"}}, "frontend.kind is 'vision'"),
        ({"encoder": {"positions": "grid"}}, "encoder.positions is 'grid'"),
        ({"encoder": {"positions": "rotary_grid"}}, "encoder.positions is 'rotary_grid'"),
        ({"encoder": {"fusion": {"entities": 3}}}, "encoder.fusion is "),
        ({"frontend": {"vocab_size": 40, "embedding": "hashed"}}, "frontend.embedding is 'hashed'"),
        ({"frontend": {"vocab_size": 40, "embedding": "characters"}}, "frontend.embedding is 'characters'"),
        (
            {"frontend": {"vocab_size": 40, "embedding": "static", "vectors": {"path": "a.txt", "tune": False}}},
            "frontend.vectors.tune is False",
        ),
        ({"readout": {"kind": "document", "ngrams": 2}}, "readout.ngrams is 2"),
        ({"readout": {"kind": "links"}}, "readout.kind is 'links'"),
        ({"readout": {"kind": "spans"}}, "readout.kind is 'spans'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_that_is_not_there_is_refused_by_name(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(WeightsError) as refused:
        read_config(model(**changes))
    message = str(refused.value)
    assert message.startswith(name) and "the Keras encoder does not have it, since" in message
    assert "encodery.load" in message, "the message says what works"


def test_an_option_newer_than_this_encoder_is_refused_unless_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "encoder", KNOWN["encoder"] - {"residual_scale"})
    read_config(model())
    with pytest.raises(WeightsError, match=r"encoder\.residual_scale is 2\.0.*newer than this encoder"):
        read_config(model(encoder={"residual_scale": 2.0}))


def test_what_cannot_be_is_refused_in_the_words_of_the_recipe() -> None:
    with pytest.raises(WeightsError, match=r"frontend\.vocab_size is not given"):
        read_config(model(frontend={}))
    with pytest.raises(WeightsError, match="not a multiple of heads"):
        read_config(model(encoder={"width": 16, "heads": 3}))
    with pytest.raises(WeightsError, match="did you mean 'heads'"):
        read_config(model(encoder={"width": 16, "head": 2}))


def test_without_keras_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    from encodery.interop import keras_encoder

    with pytest.raises(MissingExtra, match=r"'keras', which is not installed(.|\n)*encodery\[keras,tensorflow\]"):
        keras_encoder.load("runs/mine")


def test_what_it_reads_needs_no_torch() -> None:
    """The files below it, in a process of their own."""
    modules = "encodery.bundle, encodery.data.samples, encodery.data.tokenizers, encodery.data.embedded"
    code = f"import sys, {modules}, encodery.interop.keras_encoder.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
