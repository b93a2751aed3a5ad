"""TF Serving's gRPC services on a real artifact: a server in a thread, asked over loopback."""

import asyncio
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, descriptor_pb2

from serving.catalogue import Catalogue, Served, Version
from serving.errors import Busy, Late
from serving.options import Limits
from serving.rpc import messages
from serving.rpc.server import Listening, create
from serving.service import Service
from tests.conftest import ROOT
from tests.serving.grpc_client import Client, grpc_server
from tf_pipeline.errors import UserError

LIMITS = Limits(max_body_bytes=150_000, max_texts=8, max_characters=20_000)
TEXTS = ["the garden was lovely", "café — 😀", "", "word " * 300]
IDS = [[2, 5, 3], [2, 7, 3]]
TOKENS = {"input_ids": IDS, "attention_mask": [[1] * 3] * 2, "token_type_ids": [[0] * 3] * 2}
PREDICT = "tensorflow.serving.PredictionService/Predict"
METADATA = "tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "tensorflow.serving.ModelService/HandleReloadConfigRequest"
CHECK = "grpc.health.v1.Health/Check"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def service(predictor) -> Service:
    return Service(predictor, LIMITS)


@pytest.fixture(scope="module")
def name(service) -> str:
    return service.name


@pytest.fixture(scope="module")
def catalogue(service, name) -> Catalogue:
    catalogue = Catalogue.of(service)
    catalogue.label(name, {"now": 1})
    catalogue.put("broken", Version(4, "END", error="It holds no weights."))
    return catalogue


@pytest.fixture(scope="module")
def client(catalogue):
    with grpc_server(catalogue, LIMITS) as port:
        yield Client(port)


def tensor(shape, dtype="DT_STRING", **fields):
    return messages.TensorProto(dtype=dtype, **fields, tensor_shape={
        "dim": [{"size": size} for size in shape]})


def texts(*values: str):
    return tensor([len(values)], string_val=[v.encode() for v in values])


def tokens(**changed):
    return {key: tensor(np.shape(rows), "DT_INT32", int_val=np.ravel(rows).tolist())
            for key, rows in TOKENS.items()} | changed


def ask(client, name, inputs, signature="", **fields):
    return client.call(PREDICT, model_spec={"name": name, "signature_name": signature},
                       inputs=inputs, **fields)


def refused(code: Code, message: str, call, *args, **kwargs) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError, match=message) as caught:
        call(*args, **kwargs)
    assert caught.value.code() == code, caught.value
    return caught.value


def test_predict_gives_the_predictors_answers(client, name, service, predictor):
    found = ask(client, name, {"text": texts(*TEXTS)})
    answers = predictor(TEXTS)
    assert [label.decode() for label in found.outputs["label"].string_val] == [
        answer["label"] for answer in answers]
    spec, given = found.model_spec, found.outputs["probabilities"]
    assert (spec.name, spec.version.value, spec.signature_name) == (name, 1, "serving_default")
    assert [dim.size for dim in given.tensor_shape.dim] == [len(TEXTS), 2]
    assert given.dtype == messages.DataType.values_by_name["DT_FLOAT"].number
    np.testing.assert_allclose(
        np.reshape(given.float_val, (-1, 2)).max(-1), [a["score"] for a in answers], atol=1e-5)
    assert set(found.outputs) == set(service.signatures["serving_default"].outputs)


def test_output_filter(client, name):
    found = ask(client, name, {"text": texts("a")}, output_filter=["label"])
    assert list(found.outputs) == ["label"]
    refused(Code.INVALID_ARGUMENT, 'alias not found in signature: "x" .*{label,probabilities}',
            ask, client, name, {"text": texts("a")}, output_filter=["x"])
    refused(Code.INVALID_ARGUMENT, "duplicate output tensor alias", ask, client, name,
            {"text": texts("a")}, output_filter=["label", "label"])


def test_every_way_to_write_the_same_tokens(client, name):
    ways = [tokens(),
            {key: tensor([2, 3], "DT_INT32", tensor_content=np.array(rows, "<i4").tobytes())
             for key, rows in TOKENS.items()},
            # One value stands for all, and none for zeros.
            tokens(attention_mask=tensor([2, 3], "DT_INT32", int_val=[1]),
                   token_type_ids=tensor([2, 3], "DT_INT32")),
            tokens(input_ids=tensor([2, 3], "DT_INT32", int_val=[2, 5, 3, 2, 7, 3]))]
    found = [ask(client, name, way, "tokens").outputs["logits"].float_val for way in ways]
    assert len(found[0]) == 4
    assert found == [found[0]] * len(ways)


def test_every_way_to_write_the_same_texts(client, name):
    packed = bytes([4, 200, 1]) + b"good" + b"x" * 200
    ways = [texts("good", "x" * 200), tensor([2], tensor_content=packed)]
    found = [ask(client, name, {"text": way}).outputs["probabilities"].float_val for way in ways]
    assert found[0] == found[1]
    same = ask(client, name, {"text": tensor([3], string_val=[b"good"])}).outputs["label"]
    assert len(set(same.string_val)) == 1
    assert len(same.string_val) == 3


INT = "DT_INT32"
BAD_TEXTS = [
    (tensor([1], "DT_INT32", int_val=[1]), "inputs.text is DT_INT32; expected DT_STRING"),
    (tensor([1], "DT_INVALID"), "inputs.text is DT_INVALID"),
    (tensor([1], 99), "the type number 99; expected DT_STRING"),
    (tensor([], string_val=[b"a"]), r"has the shape \[\]; expected \[any\]"),
    (tensor([1, 1], string_val=[b"a"]), r"has the shape \[1, 1\]; expected \[any\]"),
    (tensor([-1], string_val=[b"a"]), r"has the shape \[-1\]"),
    (tensor([0]), r"shape \[0\], and so no value; at least 1"),
    (messages.TensorProto(dtype="DT_STRING", tensor_shape={"unknown_rank": True}), "unknown rank"),
    (tensor([1], string_val=[b"a", b"b"]), r"holds 2 values, and its shape \[1\] needs 1"),
    (tensor([1], string_val=[b"ab\xff"]), r"inputs.text\[0\] is not UTF-8: byte 0xff at offset 2"),
    (tensor([1], int64_val=[1]), "DT_STRING and has its values in int64_val; expected string_val"),
    (tensor([2], tensor_content=b"\x01\x05ab"), "4 bytes in tensor_content, which are not 2"),
    (tensor([1], tensor_content=b"\xff" * 20), "20 bytes in tensor_content, which are not 1"),
    (tensor([1 << 62], string_val=[b"a"]), "4611686018427387904 rows; allowed are 8"),
    (texts(*"abcdefghi"), "which is 9 rows; allowed are 8. Send several"),
    (texts("a" * 20_001), "Text 0 has 20,001 characters"),
]


@pytest.mark.parametrize(("given", "message"), BAD_TEXTS, ids=[m for _, m in BAD_TEXTS])
def test_texts_that_are_refused(client, name, given, message):
    refused(Code.INVALID_ARGUMENT, message, ask, client, name, {"text": given})


@pytest.mark.parametrize(("inputs", "message"), [
    ({"text": texts("a")}, r"input size does not match signature: 1!=3 len\({text}\) != .*extra: "
     "{text}. Missing but required: {attention_mask,input_ids,token_type_ids}"),
    (tokens(input_ids=tensor([2, 3], "DT_INT64", int64_val=[1] * 6)),
     "inputs.input_ids is DT_INT64; expected DT_INT32. Cast it"),
    (tokens(input_ids=tensor([6], INT, int_val=[1])), r"shape \[6\]; expected \[any, any\]"),
    (tokens(input_ids=tensor([2, 3], INT, tensor_content=b"a" * 9)), "has 9 bytes in tensor_cont"),
    (tokens(input_ids=tensor([2, 3], INT, tensor_content=b"a" * 8)), "holds 2 values, and its"),
    (tokens(input_ids=tensor([3, 3], INT, int_val=[1])), "numbers of rows: input_ids 3|rows: .* 2"),
    (tokens(input_ids=tensor([2, 4], INT, int_val=[1])), "differ in shape"),
    (tokens(input_ids=tensor([8, 10_000], INT, int_val=[1])), "80,000 values; a request may have"),
    (tokens(input_ids=tensor([8, 1 << 61], INT)), "18,446,744,073,709,551,616 values; a request"),
    (tokens(input_ids=tensor([2, 3], INT, int_val=[-1])), "input_ids of row 0 holds -1"),
    (tokens(input_ids=tensor([2, 3], INT, int64_val=[1])), "its values in int64_val"),
])
def test_tokens_that_are_refused(client, name, inputs, message):
    refused(Code.INVALID_ARGUMENT, message, ask, client, name, inputs, "tokens")


def test_models_that_are_not_there(client, name):
    good = {"text": texts("a")}
    refused(Code.NOT_FOUND, r"Servable not found for request: Latest\(x\)", ask, client, "x", good)
    refused(Code.INVALID_ARGUMENT, "has no name specified", ask, client, "", good)
    refused(Code.FAILED_PRECONDITION, 'signature key "x" not found. Known: serving_default, tokens',
            ask, client, name, good, "x")
    for choice, code in (({"version": {"value": 1}}, None), ({"version_label": "now"}, None),
                         ({"version": {"value": 2}}, Code.NOT_FOUND),
                         ({"version": {"value": 0}}, Code.NOT_FOUND),
                         ({"version_label": "x"}, Code.NOT_FOUND)):
        fields = {"model_spec": {"name": name, **choice}, "inputs": good}
        if code is None:
            assert client.call(PREDICT, **fields).model_spec.version.value == 1
        else:
            refused(code, "Servable not found|Unrecognized servable version label: x", client.call,
                    PREDICT, **fields)


def test_metadata(client, name, service):
    found = client.call(METADATA, model_spec={"name": name}, metadata_field=["signature_def"])
    assert (found.model_spec.name, found.model_spec.version.value) == (name, 1)
    packed = any_pb2.Any.FromString(found.metadata["signature_def"].SerializeToString())
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    listed = messages.SignatureDefMap.FromString(packed.value).signature_def
    assert set(listed) == {"serving_default", "tokens"}
    for key, signature in service.signatures.items():
        assert listed[key].method_name == "tensorflow/serving/predict"
        assert set(listed[key].inputs) == set(signature.inputs)
        assert set(listed[key].outputs) == set(signature.outputs)
        for alias, info in listed[key].outputs.items():
            tensor = signature.outputs[alias]
            assert (info.name, info.dtype) == (
                tensor.name, messages.DataType.values_by_name[tensor.dtype].number)
            assert [dim.size for dim in info.tensor_shape.dim] == list(tensor.shape or ())
    refused(Code.INVALID_ARGUMENT, "at least one metadata_field", client.call, METADATA,
            model_spec={"name": name})
    refused(Code.INVALID_ARGUMENT, 'field "x" is not supported', client.call, METADATA,
            model_spec={"name": name}, metadata_field=["x"])


def test_status(client, name):
    for choice in ({}, {"version": {"value": 1}}, {"version_label": "now"}):
        [found] = client.call(STATUS, model_spec={"name": name, **choice}).model_version_status
        assert (found.version, found.state, found.status.error_code) == (1, 30, 0)
        assert found.HasField("status")
    refused(Code.NOT_FOUND, "find any versions of model x", client.call, STATUS,
            model_spec={"name": "x"})
    refused(Code.NOT_FOUND, "find version 7 of model", client.call, STATUS,
            model_spec={"name": name, "version": {"value": 7}})
    refused(Code.INVALID_ARGUMENT, "Missing ModelSpec", client.call, STATUS)
    [found] = client.call(STATUS, model_spec={"name": "broken"}).model_version_status
    assert (found.version, found.state, found.status.error_code, found.status.error_message) == (
        4, 50, 2, "It holds no weights.")
    refused(Code.INVALID_ARGUMENT, "started with one artifact", client.call, RELOAD)


@pytest.mark.parametrize("verb", ["Classify", "Regress"])
def test_other_verbs(client, name, verb):
    path, kind = f"tensorflow.serving.PredictionService/{verb}", verb.lower()
    refused(Code.INVALID_ARGUMENT, f"method_name to be tensorflow/serving/{kind}. Was: "
            "tensorflow/serving/predict", client.call, path, model_spec={"name": name})
    refused(Code.NOT_FOUND, "Servable", client.call, path, model_spec={"name": "x"})
    path = "tensorflow.serving.PredictionService/MultiInference"
    task = {"model_spec": {"name": name}, "method_name": f"tensorflow/serving/{kind}"}
    refused(Code.INVALID_ARGUMENT, f"to be tensorflow/serving/{kind}", client.call, path,
            tasks=[task])
    refused(Code.UNIMPLEMENTED, "Unsupported signature method_name", client.call, path,
            tasks=[{**task, "method_name": "x"}])


def test_health(client, name):
    for service in ("", "tensorflow.serving.PredictionService", name):
        assert client.call(CHECK, service=service).status == 1
    assert client.call(CHECK, service="broken").status == 2
    refused(Code.NOT_FOUND, "any versions of model x", client.call, CHECK, service="x")
    kind, answer = messages.methods("grpc.health.v1.Health")["Watch"]
    watch = client.channel.unary_stream("/grpc.health.v1.Health/Watch",
                                        request_serializer=kind.SerializeToString,
                                        response_deserializer=answer.FromString)
    for service, state in ((name, 1), ("x", 3)):
        states = watch(kind(service=service), timeout=20)
        assert next(states).status == state
        states.cancel()


def test_those_who_watch_its_health_are_told_that_it_ends(catalogue):
    kind, answer = messages.methods("grpc.health.v1.Health")["Watch"]
    with grpc_server(catalogue) as port:
        states = Client(port).channel.unary_stream(
            "/grpc.health.v1.Health/Watch", request_serializer=kind.SerializeToString,
            response_deserializer=answer.FromString)(kind(), timeout=20)
        assert next(states).status == 1
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert [state.status for state in states] == [2]


def test_messages_that_are_too_large_compressed_or_no_message(client, name):
    large = {"text": texts("a" * 100_000_000)}
    refused(Code.RESOURCE_EXHAUSTED, "larger than max", ask, client, name, large)
    raw = client.channel.unary_unary(f"/{PREDICT}")
    refused(Code.INVALID_ARGUMENT, "9 bytes of the request are no tensorflow.serving.PredictReq",
            raw, b"\xff" * 9)
    refused(Code.UNIMPLEMENTED, "gzip", raw, b"\0" * 5_000, compression=grpc.Compression.Gzip)
    refused(Code.UNIMPLEMENTED, "Method not found",
            client.channel.unary_unary("/tensorflow.serving.PredictionService/Explain"), b"")
    assert ask(client, name, {"text": texts("still there")}).outputs


class Slow(Service):
    """Waits before it answers, or raises what it is told to."""

    def __init__(self, predictor, error: Exception | None = None):
        super().__init__(predictor)
        self.error, self.given = error, []
        self.started, self.cancelled = threading.Event(), threading.Event()

    async def predict(self, request, deadline=None):
        self.given.append(None if deadline is None else deadline - time.monotonic())
        if self.error is not None:
            raise self.error
        self.started.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def test_a_deadline_reaches_the_model_and_ends_its_work(predictor, name):
    model = Slow(predictor)
    with grpc_server(Catalogue.of(model)) as port:
        fields = {"model_spec": {"name": name}, "inputs": {"text": texts("a")}}
        start = time.monotonic()
        refused(Code.DEADLINE_EXCEEDED, "Deadline", Client(port).call, PREDICT, 1, **fields)
        assert time.monotonic() - start < 10
        assert model.cancelled.wait(10)
        [left] = model.given
        assert 0 < left <= 1.1


def test_a_client_that_goes_away_ends_the_work(predictor, name):
    model = Slow(predictor)
    with grpc_server(Catalogue.of(model)) as port:
        future = Client(port).future(PREDICT, None, model_spec={"name": name},
                                     inputs={"text": texts("a")})
        assert model.started.wait(10)
        future.cancel()
        assert model.cancelled.wait(10)
        assert model.given == [None]


@pytest.mark.parametrize(("error", "code", "message"), [
    (Busy("7 requests wait.", 2), Code.RESOURCE_EXHAUSTED, "7 requests wait"),
    (Late("Too late."), Code.DEADLINE_EXCEEDED, "Too late"),
    (UserError("é" * 5_000), Code.INVALID_ARGUMENT, "é{500}\\.\\.\\."),
    (RuntimeError("a secret"), Code.INTERNAL, "Internal error. The server's log"),
])
def test_errors_of_the_model(predictor, name, error, code, message, caplog):
    with grpc_server(Catalogue.of(Slow(predictor, error))) as port:
        found = refused(code, message, ask, Client(port), name, {"text": texts("a")})
    pushback = dict(found.trailing_metadata()).get("grpc-retry-pushback-ms")
    assert pushback == ("2000" if isinstance(error, Busy) else None)
    assert "secret" not in str(found)
    assert ("a secret" in caplog.text) == isinstance(error, RuntimeError)


def test_a_taken_port_is_refused(catalogue):
    async def second(port: int) -> None:
        create(Served(catalogue), Listening(f"127.0.0.1:{port}"))

    message = "Cannot listen at 127.0.0.1:[0-9]+ for gRPC: "
    with grpc_server(catalogue) as port, pytest.raises(UserError, match=message):
        asyncio.run(second(port))


def test_a_port_may_be_shared(catalogue):
    async def two() -> None:
        first, port = create(Served(catalogue), Listening("127.0.0.1:0", shared=True))
        second, same = create(Served(catalogue), Listening(f"127.0.0.1:{port}", shared=True))
        assert port == same
        for server in (first, second):
            await server.start()
        for server in (first, second):
            await server.stop(None)

    asyncio.run(two())


def test_a_token(catalogue, name):
    with grpc_server(catalogue, token="a" * 16) as port:
        client = Client(port)
        refused(Code.UNAUTHENTICATED, "needs the server's token", client.call, STATUS,
                model_spec={"name": name})
        assert client.call(CHECK, service=name).status == 1
        kind, _ = messages.methods("tensorflow.serving.ModelService")["GetModelStatus"]
        raw, body = client.channel.unary_unary(f"/{STATUS}"), kind(
            model_spec={"name": name}).SerializeToString()
        assert raw(body, metadata=[("authorization", "Bearer " + "a" * 16)])
        refused(Code.UNAUTHENTICATED, "token", raw, body, metadata=[("authorization", "Bearer b")])


def test_nothing_heavy_is_imported():
    code = ("import sys, serving.rpc.server\n"
            "print([m for m in ('tensorflow', 'keras', 'tensorflow_serving') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout == "[]\n"


def test_the_compiled_messages_are_those_of_the_proto_files(tmp_path):
    folder = messages.COMPILED.parent
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}",
                    f"--descriptor_set_out={tmp_path / 'now'}", "tensorflow.proto",
                    "serving.proto", "health.proto"], check=True)
    now, kept = (descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
                 for path in (tmp_path / "now", messages.COMPILED))
    assert now == kept
