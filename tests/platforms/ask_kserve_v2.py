"""Runs where KServe is installed: `URL NAME`, a JSON of texts and tokens on stdin.

Asks a server over REST with KServe's own V2 client; prints what it got as JSON.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest.v2_datamodels import (
    InferenceResponse,
    ModelMetadataResponse,
    ServerMetadataResponse,
)

url, name = sys.argv[1:]
given = json.load(sys.stdin)


def request(inputs: dict, dtype: str, numpy_dtype: type, **more: object) -> InferRequest:
    tensors = []
    for key, values in inputs.items():
        array = np.array(values, numpy_dtype)
        tensor = InferInput(key, list(array.shape), dtype)
        tensor.set_data_from_numpy(array, binary_data=False)
        tensors.append(tensor)
    return InferRequest(model_name=name, infer_inputs=tensors, **more)


async def main() -> dict:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    texts = request(given["texts"], "BYTES", object, request_id="7")
    found = await client.infer(url, texts, model_name=name)
    tokens = await client.infer(url, request(
        given["tokens"], "INT32", np.int32, parameters={"signature_name": "tokens"},
        request_outputs=[RequestedOutput(given["output"])]), model_name=name)
    refused = ""
    try:
        await client.infer(url, request(given["texts"], "BYTES", object), model_name="unknown")
    except httpx.HTTPStatusError as error:
        refused = f"{error.response.status_code} {error}"
    async with httpx.AsyncClient() as plain:
        # KServe's own schemas read what its client has no method for.
        ServerMetadataResponse.model_validate((await plain.get(f"{url}/v2")).json())
        model = ModelMetadataResponse.model_validate(
            (await plain.get(f"{url}/v2/models/{name}")).json())
        raw = await plain.post(f"{url}/v2/models/{name}/infer", json=texts.to_rest()[0])
        InferenceResponse.model_validate(raw.json())
    return {"live": await client.is_server_live(url), "ready": await client.is_server_ready(url),
            "model ready": await client.is_model_ready(url, name),
            "unknown ready": await client.is_model_ready(url, "unknown"), "refused": refused,
            "id": found.id, "model": found.model_name,
            "inputs": [tensor.model_dump() for tensor in model.inputs],
            "texts": {o.name: o.as_numpy().tolist() for o in found.outputs},
            "tokens": {o.name: o.as_numpy().tolist() for o in tokens.outputs}}


print(json.dumps(asyncio.run(main()),
                 default=lambda value: value.decode() if isinstance(value, bytes) else str(value)))
