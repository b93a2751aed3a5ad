import base64
import json
import math

import numpy as np
import pytest

from serving.bodies import parse_json, show
from serving.tf_serving import (
    Signature,
    Tensor,
    metadata,
    not_found,
    read_predict,
    round_floats,
    status,
    write_predict,
)
from tf_pipeline.errors import UserError

TOKENS = {name: Tensor("DT_INT32", (-1, -1), f"tokens_{name}:0")
          for name in ("input_ids", "attention_mask", "token_type_ids")}
SIGNATURES = {
    "serving_default": Signature(
        {"text": Tensor("DT_STRING", (-1,), "serving_default_text:0")},
        {"probabilities": Tensor("DT_FLOAT", (-1, 2), "a:0"), "label": Tensor("DT_STRING", (-1,))}),
    "tokens": Signature(TOKENS, {"logits": Tensor("DT_FLOAT", None)}),
}
ROW = {"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "token_type_ids": [0, 0, 0]}


def read(document):
    return read_predict(document, SIGNATURES)


def b64(text: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(text).decode()}


@pytest.mark.parametrize(("document", "by_row"), [
    ({"instances": ["a", "b"]}, True),
    ({"instances": [{"text": "a"}, {"text": "b"}]}, True),
    ({"instances": [b64(b"a"), "b"]}, True),
    ({"instances": [{"text": b64(b"a")}, {"text": "b"}]}, True),
    ({"inputs": ["a", "b"]}, False),
    ({"inputs": {"text": ["a", "b"]}}, False),
    ({"inputs": {"text": ["a", b64(b"b")]}, "signature_name": ""}, False),
    ({"instances": ["a", "b"], "signature_name": "serving_default"}, True),
])
def test_every_form_of_the_same_texts(document, by_row):
    request = read(document)
    assert request.inputs == {"text": ["a", "b"]}
    assert (request.signature, request.by_row) == ("serving_default", by_row)


def test_base64_holds_any_text_and_may_lack_its_padding():
    text = "né 🎬 \u202eעברית"
    packed = base64.b64encode(text.encode()).decode().rstrip("=")
    assert read({"instances": [{"b64": packed}]}).inputs == {"text": [text]}


def test_token_rows_in_both_forms():
    columns = {name: [values, values] for name, values in ROW.items()}
    by_row = read({"signature_name": "tokens", "instances": [ROW, ROW]})
    by_column = read({"signature_name": "tokens", "inputs": columns})
    assert by_row.inputs == by_column.inputs == columns


@pytest.mark.parametrize(("document", "message"), [
    ({}, "Missing 'inputs' or 'instances' key"),
    ({"instances": ["a"], "inputs": ["a"]}, "only one of 'inputs' or 'instances' keys"),
    ({"instances": ["a"], "instance": ["a"]}, 'Unknown key "instance".*Known: signature_name, '),
    ({"instances": "a"}, "'instances' is \"a\"; expecting it to be a list/array"),
    ({"instances": None}, "'instances' is null"),
    ({"instances": []}, "No values in 'instances' array"),
    ({"inputs": []}, "inputs is an array of 0; at least 1"),
    ({"inputs": {"text": []}}, "inputs.text is an array of 0"),
    ({"inputs": "a"}, 'inputs is "a"; expected an array of strings'),
    ({"inputs": {}}, "Missing named input: text.*an empty object"),
    ({"inputs": {"text": ["a"], "txt": ["b"]}}, 'Unknown key "txt".*Known: text'),
    ({"instances": ["a", 5]}, r"instances\[1\] is 5; expected a string"),
    ({"instances": ["a", True]}, r"instances\[1\] is true; expected a string"),
    ({"instances": ["a", None]}, r"instances\[1\] is null; expected a string"),
    ({"instances": [["a"]]}, r"instances\[0\] is an array of 1; expected a string"),
    ({"instances": [{"text": 1.5}]}, r"instances\[0\].text is 1.5; expected a string"),
    ({"inputs": {"text": ["a", 7]}}, r"inputs.text\[1\] is 7; expected a string"),
    ({"instances": [{"txt": "a"}]}, r'instances\[0\] is an object with the keys "txt"; its keys '
                                    "must be equal to: text"),
    ({"instances": [{"text": "a"}, "b"]}, r'instances\[1\] is "b".*must be objects, or all'),
    ({"instances": ["a", {"text": "b"}]}, r"instances\[1\] is an object.*must be objects, or all"),
    ({"instances": [{"b64": "%%"}]}, r'instances\[0\] is {"b64": "%%"}; expected the base64'),
    ({"instances": [b64(b"\xff\xfe")]}, r"instances\[0\].*base64 form of a text in UTF-8"),
    ({"instances": ["a\ud83d"]}, r"instances\[0\] holds half a surrogate pair.*at character 1"),
    ({"instances": ["a"], "signature_name": 3}, "'signature_name' is 3; it must be a string"),
    ({"instances": ["a"], "signature_name": "x"},
     'Serving signature name: "x" not found in signature def. Known: serving_default, tokens'),
])
def test_bad_text_requests(document, message):
    with pytest.raises(UserError, match=message):
        read(document)


@pytest.mark.parametrize(("body", "message"), [
    ({"instances": [[2, 3]]}, r"instances\[0\] is an array of 2; expecting objects with the keys "
                              "input_ids, attention_mask, token_type_ids"),
    ({"inputs": [[2, 3]]}, "'inputs' is an array of 1; expecting an object with the keys inp"),
    ({"instances": [ROW, {**ROW, "input_ids": [2, 3]}]},
     "'input_ids' of instances: row 1 has 2 values, and row 0 has 3. Pad"),
    ({"inputs": {**{n: [[1, 1]] for n in ROW}, "input_ids": [[2, 3], [2]]}},
     "inputs.input_ids: row 1 has 1 values, and row 0 has 2"),
    ({"inputs": {**{n: [[1]] for n in ROW}, "input_ids": [[2], [2]]}},
     "different numbers of rows: input_ids 2, attention_mask 1"),
    ({"instances": [{**ROW, "input_ids": [2, 5.0, 3]}]},
     r"instances\[0\].input_ids\[1\] is 5.0; expected a 32-bit integer"),
    ({"instances": [{**ROW, "input_ids": [2, True, 3]}]}, r"input_ids\[1\] is true; expected a 32"),
    ({"instances": [{**ROW, "input_ids": [2, 1 << 31, 3]}]}, r"\[1\] is 2147483648; expected a 32"),
    ({"instances": [{**ROW, "input_ids": "2 5 3"}]}, 'is "2 5 3"; expected an array of 32-bit int'),
    ({"inputs": {n: [1, 2] for n in ROW}}, r"inputs.input_ids\[0\] is 1; expected an array of 32"),
    ({"inputs": {"input_ids": [[2]]}}, "Missing named input: attention_mask, token_type_ids"),
    ({"instances": [{"input_ids": [2]}]}, "keys must be equal to: input_ids, attention_mask"),
])
def test_bad_token_requests(body, message):
    with pytest.raises(UserError, match=message):
        read({"signature_name": "tokens", **body})


@pytest.mark.parametrize(("body", "message"), [
    (b"", "JSON Parse error"),
    (b"{", "JSON Parse error.*char 1"),
    (b"{'instances': ['a']}", "JSON Parse error"),
    (b"[1]", "an array of 1 is not an object"),
    (b'"a"', '"a" is not an object'),
    (b'{"instances": ["\xe9"]}', "not UTF-8: byte 0xe9 at offset 16"),
    (b'{"instances": ["a"], "instances": ["b"]}', 'key "instances" stands twice'),
    (b'{"instances": ' + b"[" * 200_000, "nested too deep"),
    (b'{"a":' * 100_000, "nested too deep"),
    (b'{"instances": [' + b"1" * 5_000 + b"]}", "JSON Parse error: Exceeds the limit"),
])
def test_bad_json(body, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_json(body)
    assert len(str(caught.value)) < 300


def test_byte_order_mark_is_no_part_of_the_text():
    assert parse_json(b'\xef\xbb\xbf{"inputs": ["a"]}') == {"inputs": ["a"]}


def test_values_in_errors_are_short_and_can_be_sent():
    assert show("x" * 10_000).endswith('xxx... (10002 characters)')
    assert len(show({"k" * 1_000: 1})) < 100
    show("\ud83d").encode("utf-8")


def test_row_and_column_form():
    outputs = {"probabilities": [[0.25, 0.75], [1.0, 0.0]], "label": ["b", "a"]}
    assert write_predict(outputs, by_row=True) == {"predictions": [
        {"probabilities": [0.25, 0.75], "label": "b"}, {"probabilities": [1.0, 0.0], "label": "a"}]}
    assert write_predict(outputs, by_row=False) == {"outputs": outputs}


def test_a_single_output_stands_without_its_name():
    outputs = {"sentence_embedding": [[0.5, 0.25]]}
    assert write_predict(outputs, by_row=True) == {"predictions": [[0.5, 0.25]]}
    assert write_predict(outputs, by_row=False) == {"outputs": [[0.5, 0.25]]}


@pytest.mark.parametrize(("value", "text"), [
    (0.1, "0.1"), (1.0, "1.0"), (0.0, "0.0"), (3e-05, "3e-05"),
    # Nine digits, not the shortest form 0.87654324: that is what TF Serving writes.
    (0.87654321, "0.876543224"), (1 / 3, "0.333333343"),
])
def test_float32_without_the_noise_of_a_double(value, text):
    noisy = float(np.float32(value))
    assert json.dumps(round_floats(noisy)) == text


def test_floats_keep_every_bit():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 5_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = np.append(values[np.isfinite(values)], np.finfo(np.float32).max)
    written = json.loads(json.dumps(round_floats(values.tolist())))
    assert (np.array(written, np.float32) == values).all()
    assert math.isnan(round_floats(math.nan))


def test_status_and_metadata():
    fine = {"error_code": "OK", "error_message": ""}
    wrong = {"error_code": "UNKNOWN", "error_message": "damaged"}
    assert status([(4, "END", "damaged"), (3, "AVAILABLE", "")]) == {"model_version_status": [
        {"version": "4", "state": "END", "status": wrong},
        {"version": "3", "state": "AVAILABLE", "status": fine}]}
    body = metadata("reviews", 3, SIGNATURES)
    assert body["model_spec"] == {"name": "reviews", "signature_name": "", "version": "3"}
    listed = body["metadata"]["signature_def"]["signature_def"]
    assert listed["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert listed["serving_default"]["inputs"]["text"] == {
        "dtype": "DT_STRING", "name": "serving_default_text:0",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}}
    assert listed["tokens"]["outputs"]["logits"]["tensor_shape"] == {
        "dim": [], "unknown_rank": True}


def test_signature_from_a_manifest():
    signature = Signature.from_manifest({
        "inputs": {"text": {"dtype": "DT_STRING", "shape": [-1], "name": "serving_default_text:0"}},
        "outputs": {"label": {"dtype": "DT_STRING", "shape": None, "name": "x:0"}}})
    assert signature.inputs == SIGNATURES["serving_default"].inputs
    assert signature.outputs["label"].shape is None


def test_unknown_models_are_called_as_tf_serving_calls_them():
    assert not_found("x", None) == "Servable not found for request: Latest(x)"
    assert not_found("x", "2") == "Servable not found for request: Specific(x, 2)"
