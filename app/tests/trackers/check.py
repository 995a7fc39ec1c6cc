"""Reads what a run wrote for its trackers with the trackers' own programs, and compares it with its metrics.jsonl.

    halfbyte quickstart --set report_to=all
    pip install -r requirements.txt
    python check.py ../../quickstart/run

TensorBoard: `EventAccumulator` must find every curve. W&B: `wandb sync` uploads the run to a server on this machine that
answers just enough of its protocol; what arrives there must be the same history, summary and configuration.
"""

import glob
import gzip
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def curves(records):
    """By tag, as HF's integrations name them: (step, value)."""
    found = {}
    for record in records:
        # The results have no step of their own: they are those of the last.
        step = record.get("step", record.get("steps"))
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                if name.startswith("system."):
                    tag = "system/" + name[len("system."):]
                elif name.startswith("eval_"):
                    tag = "eval/" + name[len("eval_"):]
                else:
                    tag = "train/" + name
                found.setdefault(tag, []).append((step, value))
    return found


def check_tensorboard(run, expected):
    (folder,) = glob.glob(os.path.join(run, "runs", "*"))
    board = EventAccumulator(folder, size_guidance={"scalars": 0})
    board.Reload()
    assert sorted(board.Tags()["scalars"]) == sorted(expected), board.Tags()
    for tag, points in expected.items():
        read = [(scalar.step, scalar.value) for scalar in board.Scalars(tag)]
        assert read == [(step, float(np.float32(value))) for step, value in points], tag
    text = board.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    with open(os.path.join(run, "recipe.toml")) as recipe:
        assert recipe.read().strip() in text
    print(f"TensorBoard: {len(expected)} curves, {sum(map(len, expected.values()))} points, the recipe")


class Server(http.server.BaseHTTPRequestHandler):
    """The part of W&B's server that an upload needs."""

    protocol_version = "HTTP/1.1"
    history, uploads = [], {}

    def log_message(self, *_):
        pass

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self):
        self.uploads[os.path.basename(self.path)] = self.body()
        self.answer({})

    def do_POST(self):
        body = json.loads(self.body())
        if self.path.endswith("/file_stream"):
            lines = body.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.history.extend(json.loads(line) for line in lines)
            return self.answer({})
        query, variables = body["query"], body.get("variables") or {}
        data = {}
        if "upsertBucket" in query:
            project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "r", "name": variables.get("name"), "displayName": variables.get("displayName"),
                      "config": "{}", "historyLineCount": 0, "project": project}
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        elif "createRunFiles" in query:
            host = "http://%s:%d/" % self.server.server_address
            files = [{"name": name, "uploadUrl": host + name} for name in variables["files"]]
            data = {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        elif "model" in query:
            data = {"model": {"bucket": None}}
        self.answer({"data": data})


def check_wandb(run, expected, results):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        # The client marks what it has uploaded.
        (source,) = glob.glob(os.path.join(run, "wandb", "offline-run-*"))
        copy = shutil.copytree(source, os.path.join(folder, os.path.basename(source)))
        client = os.path.join(os.path.dirname(sys.executable), "wandb")
        settings = {"WANDB_BASE_URL": "http://%s:%d" % server.server_address, "WANDB_API_KEY": "0" * 40,
                    "WANDB_ERROR_REPORTING": "false", "HOME": folder}
        subprocess.run([client, "sync", copy], check=True, env={**os.environ, **settings}, timeout=300)
    for tag, points in expected.items():
        if not tag.startswith("system/"):
            rows = [(row["train/global_step"], row[tag]) for row in Server.history if tag in row]
            assert rows == points, tag
    summary = json.loads(Server.uploads["wandb-summary.json"])
    for name, value in results.items():
        assert summary[name] == value, name
    assert "learning_rate:" in Server.uploads["config.yaml"].decode()
    assert [row["_step"] for row in Server.history] == list(range(len(Server.history)))
    print(f"W&B: {len(Server.history)} rows of history, {len(results)} results in the summary, the configuration")


if __name__ == "__main__":
    folder = sys.argv[1]
    with open(os.path.join(folder, "metrics.jsonl")) as lines:
        *records, results = [json.loads(line) for line in lines]
    check_tensorboard(folder, curves([*records, results]))
    # W&B has the results in its summary, not in the history.
    check_wandb(folder, curves(records), results)
