"""Where a backbone comes from: each source gives a config, a tokenizer and weights.

`minilm`, `tiny`, a folder (Hugging Face layout or a run), `hf:<repository>`, `keras:<preset>`,
`new:vocab=<file>`.
"""

import dataclasses
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .backbone import BertConfig, build, get_weights, set_weights
from .config import BACKBONES
from .errors import UserError
from .text import CASE_MARKS, SPECIAL_TOKENS, TextEncoder

log = logging.getLogger(__name__)

_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
          "vocab.txt"]


@dataclass(frozen=True)
class Checkpoint:
    """A backbone at rest. `weights` is None for new random ones, but for `positions`."""

    source: str
    config: BertConfig
    encoder: TextEncoder
    weights: dict[str, np.ndarray] | None
    positions: np.ndarray | None = None  # of a new one: (positions, hidden)

    def build(self) -> Any:
        """Build the keras.Model with these weights."""
        backbone = build(self.config)
        if self.positions is not None:
            backbone.get_layer("embeddings").position.embeddings.assign(self.positions)
        if self.weights is not None and (new := set_weights(backbone, self.weights)):
            log.warning("%s has no pooler: %s start from random weights. Tasks with --pooling can "
                        "read the mean of all tokens instead.", self.source, " and ".join(new))
        return backbone

    def mark_case(self) -> "Checkpoint":
        """Let the tokenizer tell of capitals that it folds (`TextEncoder.mark_case`).

        The two marks take rows that the vocabulary keeps unused, else new rows at its end.
        """
        encoder = self.encoder
        if encoder.marks_case:
            return self
        if not encoder.lower_case or not encoder.is_wordpiece:
            raise UserError(f"--mark-case is for a WordPiece tokenizer that folds capitals; the "
                            f"one of {self.source} keeps them. Leave it out.")
        vocabulary = encoder.vocabulary
        rows = [i for i, piece in enumerate(vocabulary) if re.fullmatch(r"\[unused\d+\]", piece)]
        lacking = max(len(CASE_MARKS) - len(rows), 0)
        rows = [*rows, *range(self.config.vocab_size, self.config.vocab_size + lacking)]
        config, weights = self.config, self.weights
        if lacking:
            config = dataclasses.replace(config, vocab_size=config.vocab_size + lacking)
        if lacking and weights is not None:
            table = weights["embeddings.word_embeddings.weight"]
            weights = {**weights, "embeddings.word_embeddings.weight": np.concatenate(
                [table, np.repeat(table.mean(0, keepdims=True), lacking, 0)])}
        return dataclasses.replace(self, config=config, weights=weights,
                                   encoder=encoder.mark_case(rows[:len(CASE_MARKS)]))


def load(source: str, cased: bool | None = None) -> Checkpoint:
    """Read a checkpoint from any source; `cased` overrides what its own files say."""
    scheme, colon, rest = source.partition(":")
    folder = Path(source)
    if source == "minilm":
        from .fetch import minilm

        checkpoint = from_folder(minilm(), cased, source)
    elif source == "tiny":
        checkpoint = _tiny()
    elif colon and scheme == "hf":
        checkpoint = from_folder(_download(rest), cased, source)
    elif colon and scheme == "keras":
        checkpoint = _keras_hub(rest)
    elif colon and scheme == "new":
        from . import scratch

        checkpoint = scratch.load(rest, cased)
    elif (folder / "run.json").exists():
        checkpoint = _run(folder)
    elif folder.is_dir():
        checkpoint = from_folder(folder, cased, source)
    else:
        raise UserError(f"Unknown backbone {source!r}: no such folder. Choose one of: "
                        f"{', '.join(BACKBONES)}.")
    if cased is None or checkpoint.encoder.lower_case is not cased:
        return checkpoint
    return dataclasses.replace(checkpoint, encoder=checkpoint.encoder.recase(cased))


def from_folder(folder: Path, cased: bool | None = None, source: str | None = None) -> Checkpoint:
    """Read a Hugging Face layout folder."""
    if (folder / "metadata.json").exists() and not (folder / "model.safetensors").exists():
        return _keras_hub(str(folder))
    config_file = folder / "config.json"
    if not config_file.exists():
        found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise UserError(f"{folder} holds no config.json (found: {found}). A backbone folder holds "
                        "config.json, model.safetensors and tokenizer.json or vocab.txt.")
    config = BertConfig.from_json(config_file.read_text("utf-8"), str(config_file))
    encoder = _read_tokenizer(folder, config, cased)
    if len(encoder.vocabulary) > config.vocab_size:
        raise UserError(f"{folder}: the tokenizer has {len(encoder.vocabulary)} pieces, but "
                        "config.json says vocab_size "
                        f"{config.vocab_size}. The two files do not belong together.")
    return Checkpoint(source or str(folder), config, encoder, _read_safetensors(folder))


def _read_tokenizer(folder: Path, config: BertConfig, cased: bool | None) -> TextEncoder:
    limit, pad = config.max_position_embeddings, config.pad_token_id
    if (folder / "tokenizer.json").exists():
        return TextEncoder.load(folder / "tokenizer.json", limit, pad)
    vocabulary = folder / "vocab.txt"
    if not vocabulary.exists():
        raise UserError(f"{folder} holds neither tokenizer.json nor vocab.txt. Copy one of them "
                        "from the checkpoint's source.")
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text("utf-8")) if settings_file.exists() else {}
    if cased is None and "do_lower_case" not in settings:
        raise UserError(f"{folder} has vocab.txt but no tokenizer_config.json with do_lower_case, "
                        "so its casing is unknown. Pass --cased or --uncased.")
    lowercase = settings["do_lower_case"] if cased is None else not cased
    pieces = vocabulary.read_text("utf-8").splitlines()
    return wordpiece(pieces, lowercase, settings.get("strip_accents"), limit)


def wordpiece(pieces: list[str], lowercase: bool, strip_accents: bool | None,
              max_len: int) -> TextEncoder:
    """Make BERT's own tokenizer from a vocabulary (line i is id i)."""
    from tokenizers.implementations import BertWordPieceTokenizer

    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    lacking = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if t not in vocabulary]
    if lacking:
        raise UserError(f"The vocabulary of {len(pieces)} pieces lacks {', '.join(lacking)}. "
                        "A BERT vocabulary holds all four.")
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=lowercase,
                                       strip_accents=strip_accents)
    return TextEncoder(tokenizer.to_str(), max_len, vocabulary["[PAD]"])


def _read_safetensors(folder: Path) -> dict[str, np.ndarray]:
    """Read all weights as float32 under BertModel's names, whatever head they were saved with."""
    path = folder / "model.safetensors"
    if not path.exists():
        other = next((p.name for p in folder.glob("pytorch_model*.bin")), None)
        hint = "Copy the file there."
        if other:
            hint = (f"It has {other}: load it with transformers and save_pretrained(folder, "
                    "safe_serialization=True).")
        elif (folder / "manifest.json").exists():
            hint = "It is an artifact, whose files only answer. Name the run that it was made of."
        raise UserError(f"{folder} holds no model.safetensors. {hint}")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} ({path.stat().st_size:,} bytes) cannot be read: {error}. The file "
                        "is cut short or damaged; copy it again.") from None
    names = {"gamma": "weight", "beta": "bias"}  # names of checkpoints from before 2019
    weights = {}
    for name, array in tensors.items():
        stem, _, last = name.removeprefix("bert.").rpartition(".")
        weights[f"{stem}.{names.get(last, last)}"] = array.astype(np.float32, copy=False)
    return weights


def _download(repository: str) -> Path:
    name, _, revision = repository.partition("@")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"hf:{repository} could not be fetched from the Hugging Face hub "
                        f"({reason}). Check the name and the network, or download the repository "
                        "elsewhere and pass its folder.") from None


def _run(folder: Path) -> Checkpoint:
    from .run import Run
    from .task import Pretrained

    run = Run.load(folder)
    head = run.task.head_weights(run.model) if isinstance(run.task, Pretrained) else {}
    return Checkpoint(str(folder), run.config, run.encoder, {**get_weights(run.backbone), **head})


def _keras_hub(preset: str) -> Checkpoint:
    # keras_hub chooses its own protobuf log level and is slow to import: only those who ask pay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras_hub

    try:
        backbone = keras_hub.models.BertBackbone.from_preset(preset)
        tokenizer = keras_hub.models.BertTokenizer.from_preset(preset)
    except (ValueError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"keras:{preset} could not be loaded by KerasHub ({reason}). Check the "
                        "name and the network, or pass the folder of a preset.") from None
    return Checkpoint(f"keras:{preset}", *_from_keras_hub(backbone, tokenizer))


def _from_keras_hub(backbone: Any, tokenizer: Any) -> tuple[BertConfig, TextEncoder, Any]:
    config = BertConfig(
        vocab_size=backbone.vocabulary_size, hidden_size=backbone.hidden_dim,
        num_hidden_layers=backbone.num_layers, num_attention_heads=backbone.num_heads,
        intermediate_size=backbone.intermediate_dim, hidden_act="gelu_pytorch_tanh",
        max_position_embeddings=backbone.max_sequence_length,
        type_vocab_size=backbone.num_segments,
        hidden_dropout_prob=backbone.dropout, attention_probs_dropout_prob=backbone.dropout)
    # KerasHub folds capitals but keeps accents; the ids that it was trained on are the truth.
    encoder = wordpiece(tokenizer.get_vocabulary(), tokenizer.lowercase, False,
                        config.max_position_embeddings)
    arrays = {}

    def put(name: str, layer: Any, rows: int | None = None) -> None:
        kernel, *bias = [np.asarray(w) for w in layer.get_weights()]
        arrays[f"{name}.weight"] = kernel if rows is None else kernel.reshape(rows, -1).T
        for array in bias:
            arrays[f"{name}.bias"] = array.reshape(-1)

    hidden, inner = config.hidden_size, config.intermediate_size
    put("embeddings.word_embeddings", backbone.get_layer("token_embedding"))
    put("embeddings.position_embeddings", backbone.get_layer("position_embedding"))
    put("embeddings.token_type_embeddings", backbone.get_layer("segment_embedding"))
    put("embeddings.LayerNorm", backbone.get_layer("embeddings_layer_norm"))
    for index in range(config.num_hidden_layers):
        layer, prefix = backbone.get_layer(f"transformer_layer_{index}"), f"encoder.layer.{index}"
        attention = layer._self_attention_layer
        for part in ("query", "key", "value"):
            put(f"{prefix}.attention.self.{part}", getattr(attention, f"_{part}_dense"), hidden)
        put(f"{prefix}.attention.output.dense", attention._output_dense, hidden)
        put(f"{prefix}.attention.output.LayerNorm", layer._self_attention_layer_norm)
        put(f"{prefix}.intermediate.dense", layer._feedforward_intermediate_dense, hidden)
        put(f"{prefix}.output.dense", layer._feedforward_output_dense, inner)
        put(f"{prefix}.output.LayerNorm", layer._feedforward_layer_norm)
    put("pooler.dense", backbone.get_layer("pooled_dense"), hidden)
    return config, encoder, arrays


def _tiny() -> Checkpoint:
    """Every printable ASCII character as a piece: any English text has ids, none needs a file."""
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = [*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters if c.isalnum())]
    config = BertConfig(vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=64)
    return Checkpoint("tiny", config, wordpiece(pieces, True, None, 512), None)
