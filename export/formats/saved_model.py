"""SavedModel for TF Serving: a text signature (serving_default) and a token signature."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tf_pipeline.artifact import Graph
from tf_pipeline.errors import UserError
from tf_pipeline.text import CASE_MARKS, TextEncoder

from .. import warmup
from ..options import ConvertOptions
from ..twin import Twin

log = logging.getLogger(__name__)

# A word of over 100 characters is one [UNK] for BERT; tf-text counts bytes and so gets room for
# any alphabet. Such words are hashes and base64 in practice; a class of all letters needs a regex
# of 59,000 states.
_LONG_WORD = r"[A-Za-z0-9]{101,}"
_UNKNOWN = "\ue000"  # private use: cleaned from any text, in no vocabulary


def convert(twin: Twin, staging: Path, options: ConvertOptions) -> Iterator[Graph]:
    """Write `saved_model/VERSION`, each weight once."""
    import tensorflow as tf

    relative = f"saved_model/{options.version}"
    module = tf.Module()
    module.weights = [variable.value for variable in twin.model.variables]
    tokens = tf.function(twin.function(twin.task.OUTPUTS["tokens"]),
                         input_signature=twin.specs(None, None, "int32"))
    signatures = {"tokens": tokens.get_concrete_function()}
    if twin.answers_text(options.signatures):
        # Not a signature: parity and the curious load it to see the ids that the server makes.
        module.tokenize = text_tokenizer(twin.encoder, twin.run.max_len, twin.task.text_fields)
        module.serve_text = _text_function(twin, module.tokenize)
        signatures["serving_default"] = module.serve_text.get_concrete_function()
    else:
        signatures["serving_default"] = signatures["tokens"]
    folder = staging / relative
    tf.saved_model.save(module, str(folder), signatures=signatures)
    assert options.out is not None
    warmup.write(folder, twin, options.out.name,
                 {name: tuple(s["inputs"]) for name, s in signatures_of(folder).items()})
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    yield Graph(relative, "saved_model", "float32", twin.task.OUTPUTS["tokens"], size,
                required_ops=foreign_ops(folder))


def _text_function(twin: Twin, tokenize: Any) -> Any:
    import tensorflow as tf

    wanted = twin.task.OUTPUTS["text"]
    tensors = [name for name in wanted if name != "label"]
    run = twin.function(tensors)
    labels = tf.constant(twin.task.labels)

    @tf.function(input_signature=_strings(twin.task.text_fields))
    def serve(*texts: Any) -> dict[str, Any]:
        ids, mask, types = tokenize(*texts)
        outputs = run(ids, mask, types)
        for name, values in outputs.items():
            if values.shape.rank == 3:  # what a model gives for padding means nothing
                outputs[name] = values * tf.cast(mask, values.dtype)[..., None]
        if "label" in wanted:
            outputs["label"] = tf.gather(labels, tf.argmax(outputs["probabilities"], -1))
        return outputs

    return serve


def check_tokenizer(encoder: TextEncoder) -> None:
    """Raise UserError where no text signature can be made."""
    if not encoder.is_wordpiece:
        raise UserError("This checkpoint's tokenizer is no WordPiece, and the SavedModel's text "
                        "signature knows only that. Pass --signatures tokens.")


def _strings(fields: Sequence[str]) -> list[Any]:
    import tensorflow as tf

    return [tf.TensorSpec([None], tf.string, name=field) for field in fields]


def text_tokenizer(encoder: TextEncoder, max_len: int, fields: Sequence[str] = ("text",)) -> Any:
    """Build a tf.function: strings (batch) -> input_ids, attention_mask, token_type_ids.

    It takes one argument for each of `fields`, a text or the two texts of a pair.

    BERT's own normalizer, step by step in the order of Hugging Face `tokenizers`, then tf-text's
    WordPiece. (tf-text's FastBertTokenizer does both in one, but maps more: `…` becomes `...`.)
    """
    import tensorflow as tf
    import tensorflow_text as tf_text

    check_tokenizer(encoder)
    vocabulary = encoder.vocabulary
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    wordpiece = tf_text.FastWordpieceTokenizer(vocabulary, max_bytes_per_word=4 * 100,
                                               token_out_type=tf.int32, unknown_token="[UNK]")
    steps = encoder.lower_case, encoder.strip_accents, encoder.marks_case

    @tf.function(input_signature=_strings(fields))
    def tokenize(*texts: Any) -> tuple[Any, Any, Any]:
        parts = [wordpiece.tokenize(normalize(text, *steps)) for text in texts]
        parts = _cut(parts, max_len - 1 - len(parts))
        start = tf.fill([tf.shape(texts[0])[0], 1], ids["[CLS]"])
        end = tf.fill([tf.shape(texts[0])[0], 1], ids["[SEP]"])
        rows = tf.concat([start, *(piece for part in parts for piece in (part, end))], 1)
        input_ids = rows.to_tensor(encoder.pad_id)
        mask = tf.sequence_mask(rows.row_lengths(), tf.shape(input_ids)[1], tf.int32)
        first = tf.sequence_mask(parts[0].row_lengths() + 2, tf.shape(input_ids)[1], tf.int32)
        return input_ids, mask, mask * (1 - first)

    return tokenize


def _cut(parts: list[Any], room: int) -> list[Any]:
    """Shorten a text, or the longer text of a pair, as `tokenizers` does (longest first)."""
    import tensorflow as tf

    if len(parts) == 1:
        return [parts[0][:, :room]]
    lengths = [part.row_lengths() for part in parts]
    shorter = tf.minimum(*lengths)
    longer = tf.maximum(shorter, room - shorter)
    both = shorter + longer > room  # then each gets a half, and the longer one what is over
    half = tf.constant(room // 2, tf.int64)
    shorter, longer = tf.where(both, half, shorter), tf.where(both, room - half, longer)
    first_longer = lengths[0] > lengths[1]
    limits = tf.where(first_longer, longer, shorter), tf.where(first_longer, shorter, longer)
    return [tf.ragged.boolean_mask(part, tf.ragged.range(length) < limit[:, None])
            for part, length, limit in zip(parts, lengths, limits, strict=True)]


def normalize(text: Any, lower: bool, strip_accents: bool, marks_case: bool = False) -> Any:
    """Clean, strip accents, mark and fold capitals: the normalizer's steps."""
    import tensorflow as tf
    import tensorflow_text as tf_text

    replace = tf.strings.regex_replace
    text = replace(text, r"[\t\n\r\p{Z}]", " ")
    text = replace(text, r"[\p{C}\x{fffd}]", "")
    if strip_accents:
        text = replace(tf_text.normalize_utf8(text, "NFD"), r"\p{Mn}", "")
    if marks_case:
        one, several = CASE_MARKS
        text = replace(text, r"\b([A-Z])([^A-Z]|$)", rf"{one}\1\2")
        text = replace(text, r"\b([A-Z][A-Z])", rf"{several}\1")
    if lower:
        # A capital sigma becomes σ wherever it stands; Unicode's own rule makes ς at a word's end.
        text = tf.strings.lower(replace(text, "Σ", "σ"), encoding="utf-8")
    return replace(text, _LONG_WORD, _UNKNOWN)


def foreign_ops(folder: Path) -> tuple[str, ...]:
    """Name the operations that are not TensorFlow's own: the server must have them linked in."""
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = list(graph.node) + [n for f in graph.library.function for n in f.node_def]
    core = set(dir(tf.raw_ops))
    functions = {f.signature.name for f in graph.library.function}
    return tuple(sorted({n.op for n in nodes} - core - functions - {"Placeholder", "NoOp"}))


def signatures_of(folder: Path) -> dict[str, Any]:
    """Read inputs and outputs of each signature, as TF Serving's metadata shows them."""
    from tensorflow.core.framework.types_pb2 import DataType
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())

    def tensors(infos: Any) -> dict[str, Any]:
        return {key: {"dtype": DataType.Name(info.dtype), "name": info.name,
                      "shape": [d.size for d in info.tensor_shape.dim]}
                for key, info in sorted(infos.items())}

    return {key: {"inputs": tensors(d.inputs), "outputs": tensors(d.outputs)}
            for key, d in sorted(saved.meta_graphs[0].signature_def.items())
            if not key.startswith("__")}
