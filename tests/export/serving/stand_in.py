"""A small server of a model repository: the v2 inference protocol over HTTP (with binary tensors)
and gRPC, answered by ONNX Runtime from what ``config.pbtxt`` says, and by nothing else.

It is strict where a server is: names, types, dims and batch of a request and of a model's answer
are those of the configuration, or the request fails.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

Arrays = dict[str, np.ndarray]
_HEADER = "Inference-Header-Content-Length"


class RefusedError(Exception):
    """What a server says no with."""


class ServedModel:
    """One model folder of a repository."""

    def __init__(self, folder: Path, server: Repository) -> None:
        self.folder, self.server = folder, server
        text = (folder / "config.pbtxt").read_text("utf-8")
        self.config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert self.config.name == folder.name
        numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        assert numbers, f"{folder} has no version"
        self.versions = numbers[-self.config.version_policy.latest.num_versions :]

    @cached_property
    def sessions(self) -> dict[int, onnxruntime.InferenceSession]:
        assert self.config.backend == "onnxruntime"
        return {
            number: onnxruntime.InferenceSession(
                self.folder / str(number) / "model.onnx", providers=["CPUExecutionProvider"]
            )
            for number in self.versions
        }

    def infer(self, inputs: Arrays, version: int) -> Arrays:
        number = self.versions[-1] if version == -1 else version
        if number not in self.versions:
            raise RefusedError(f"version {number} of {self.folder.name} is not served")
        self._check(inputs, self.config.input)
        if self.config.platform == "ensemble":
            found = self._call_steps(inputs)
        else:
            found = self._run(inputs, self.sessions[number])
        self._check(found, self.config.output)
        return found

    def warm_up(self) -> None:
        """As a server does with the samples of the configuration."""
        for sample in self.config.model_warmup:
            inputs = {}
            for name, value in sample.inputs.items():
                kind = triton_to_np_dtype(self._type(value))
                shape = (sample.batch_size, *value.dims)
                inputs[name] = np.zeros(shape, kind)
                if value.random_data:
                    inputs[name] = np.random.default_rng(0).integers(0, 255, shape).astype(kind)
            self.infer(inputs, -1)

    def _run(self, inputs: Arrays, session: onnxruntime.InferenceSession) -> Arrays:
        names = [item.name for item in session.get_outputs()]
        found = dict(zip(names, session.run(names, inputs), strict=True))
        batch = len(next(iter(inputs.values())))
        for item in self.config.output:
            if item.HasField("reshape"):
                assert found[item.name].shape == (batch, *item.reshape.shape)
                found[item.name] = found[item.name].reshape(batch, *item.dims)
        return found

    def _call_steps(self, inputs: Arrays) -> Arrays:
        tensors = dict(inputs)
        for step in self.config.ensemble_scheduling.step:
            model = self.server.model(step.model_name)
            given = {name: tensors[outer] for name, outer in step.input_map.items()}
            found = model.infer(given, step.model_version)
            tensors |= {outer: found[name] for name, outer in step.output_map.items()}
        return {item.name: tensors[item.name] for item in self.config.output}

    def _check(self, arrays: Arrays, expected: Any) -> None:
        if set(arrays) != {item.name for item in expected}:
            raise RefusedError(f"{self.folder.name} has no tensors {sorted(arrays)}")
        for item in expected:
            array = arrays[item.name]
            is_right = (
                np_to_triton_dtype(array.dtype) == self._type(item)
                and tuple(array.shape[1:]) == tuple(item.dims)
                and 1 <= array.shape[0] <= self.config.max_batch_size
            )
            if not is_right:
                raise RefusedError(
                    f"unexpected shape for {item.name}: {array.dtype} {list(array.shape)}, not "
                    f"{self._type(item)} [-1,{','.join(map(str, item.dims))}]"
                )

    @staticmethod
    def _type(item: Any) -> str:
        name: str = model_config_pb2.DataType.Name(item.data_type)
        return name.removeprefix("TYPE_")


class Repository:
    """Models of a folder, as they were when they were first asked for; ``load`` looks again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, int]] = []
        self.load()

    def load(self) -> None:
        folders = [path for path in self.folder.iterdir() if path.is_dir()]
        self.models = {path.name: ServedModel(path, self) for path in folders}

    def model(self, name: str) -> ServedModel:
        if name not in self.models:
            raise RefusedError(f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    def infer(self, name: str, version: int, inputs: Arrays) -> Arrays:
        self.asked.append((name, version))
        return self.model(name).infer(inputs, version)


@contextmanager
def http_server(repository: Repository) -> Iterator[str]:
    """The address of a server over HTTP, while it runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = re.fullmatch("/v2/models/([^/]+)/config", self.path)
            try:
                assert found, self.path
                config = repository.model(found[1]).config
            except RefusedError as error:
                self._refuse(error)
                return
            document = json_format.MessageToDict(config, preserving_proto_field_name=True)
            self._answer(200, json.dumps(document).encode())

        def do_POST(self) -> None:
            found = re.fullmatch(r"/v2/models/([^/]+)(?:/versions/(\d+))?/infer", self.path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                assert found, self.path
                inputs = _read_tensors(body, int(self.headers[_HEADER]))
                outputs = repository.infer(found[1], int(found[2] or -1), inputs)
            except RefusedError as error:
                self._refuse(error)
                return
            header, content = _write_tensors(found[1], outputs)
            self._answer(200, header + content, {_HEADER: str(len(header))})

        def _refuse(self, error: RefusedError) -> None:
            self._answer(400, json.dumps({"error": str(error)}).encode())

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _read_tensors(body: bytes, header_bytes: int) -> Arrays:
    arrays, start = {}, header_bytes
    for item in json.loads(body[:header_bytes])["inputs"]:
        size = item["parameters"]["binary_data_size"]
        kind = np.dtype(triton_to_np_dtype(item["datatype"]))
        raw = np.frombuffer(body[start : start + size], kind)
        arrays[item["name"]], start = raw.reshape(item["shape"]), start + size
    return arrays


def _write_tensors(name: str, arrays: Arrays) -> tuple[bytes, bytes]:
    items = [
        {
            "name": tensor,
            "datatype": np_to_triton_dtype(array.dtype),
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for tensor, array in arrays.items()
    ]
    header = json.dumps({"model_name": name, "model_version": "1", "outputs": items}).encode()
    return header, b"".join(array.tobytes() for array in arrays.values())


class _Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def ModelConfig(self, request: Any, context: Any) -> Any:
        try:
            config = self.repository.model(request.name).config
        except RefusedError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return service_pb2.ModelConfigResponse(config=config)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        inputs = {}
        for item, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            kind = np.dtype(triton_to_np_dtype(item.datatype))
            inputs[item.name] = np.frombuffer(raw, kind).reshape(tuple(item.shape))
        try:
            version = int(request.model_version or -1)
            arrays = self.repository.infer(request.model_name, version, inputs)
        except RefusedError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, array in arrays.items():
            kind = np_to_triton_dtype(array.dtype)
            answer.outputs.add(name=name, datatype=kind, shape=list(array.shape))
            answer.raw_output_contents.append(array.tobytes())
        return answer


@contextmanager
def grpc_server(repository: Repository) -> Iterator[str]:
    """The address of a server over gRPC, while it runs."""
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Service(repository), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
