"""Compares our sm_90a products with cuBLAS (through PyTorch): correctness against float64, bursts, sustained load.

    python3 benches/cublas.py [check] [burst] [sustained]       on a Hopper card with PyTorch; needs no Rust

Both run alternately in one process, on normal random data, with enough sets of buffers to keep L2 cold. Burst: graphs of 3
launches (24 if there are few rows) after a pause; median of twelve. Sustained: the products of a step (Mistral-7B, 32 layers,
forward and dX) for ten seconds, without the first second; power and clock from nvidia-smi.
"""

import ctypes
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "kernels"))
import build  # noqa: E402

cuda = ctypes.CDLL("libcuda.so.1")
# name: (columns, cluster, stages); as in src/device/cuda/sm_90a/gemm.rs
SHAPES = {"256x2": (256, 2, 4), "256": (256, 1, 4), "192": (192, 1, 4), "128": (128, 1, 6)}
TYPES = {torch.bfloat16: ("bf16", 9), torch.float16: ("f16", 6)}


class F32OrElem(ctypes.Structure):
    _fields_ = [("at", ctypes.c_uint64), ("ld", ctypes.c_int64), ("wide", ctypes.c_int32)]


class Rows(ctypes.Structure):
    _fields_ = [("live", ctypes.c_uint64), ("times", ctypes.c_int32), ("start", ctypes.c_int32), ("most", ctypes.c_int32)]


def good(status):
    if status != 0:
        raise SystemExit(f"driver error {status}")


class TensorMap:
    def __init__(self, kind, at, dims, strides, box):
        self.memory = ctypes.create_string_buffer(128 + 64)
        self.at = (ctypes.addressof(self.memory) + 63) & ~63
        n = len(dims)
        good(cuda.cuTensorMapEncodeTiled(
            ctypes.c_void_p(self.at), kind, n, ctypes.c_void_p(at), (ctypes.c_uint64 * n)(*dims),
            (ctypes.c_uint64 * n)(*[2 * s for s in strides]), (ctypes.c_uint32 * n)(*box), (ctypes.c_uint32 * n)(*[1] * n), 0, 3, 3, 0))


class Kernels:
    """The checked-in machine code."""

    def __init__(self):
        torch.zeros(1, device="cuda")
        self.modules, self.functions = {}, {}
        for dtype, (kind, _) in TYPES.items():
            image = build.unpack((ROOT / f"compiled/sm_90a/{kind}/gemm.bin").read_bytes())[1]["sm_90a"]
            self.modules[dtype] = ctypes.c_void_p()
            good(cuda.cuModuleLoadData(ctypes.byref(self.modules[dtype]), image))

    def launch(self, form, a, b, out, shape, plus=None, live=None, offsets=None, scale=1.0, capacity=None):
        """A function that launches out = plus + scale * product; b has three dimensions, the first is that of groups."""
        cols, cluster, stages = SHAPES[shape]
        key = a.dtype, form, shape
        if key not in self.functions:
            function = ctypes.c_void_p()
            good(cuda.cuModuleGetFunction(ctypes.byref(function), self.modules[a.dtype], f"gemm_{form}_{shape}".encode()))
            shared = 1024 + stages * ((128 + cols) * 128 + 16) + 4 * 64 * 128
            good(cuda.cuFuncSetAttribute(function, 8, shared))
            self.functions[key] = function, shared
        function, shared = self.functions[key]
        kind = TYPES[a.dtype][1]
        m, k, n, groups = a.shape[0], a.shape[1], out.shape[1], b.shape[0]
        map_a = TensorMap(kind, a.data_ptr(), [k, m], [a.stride(0)], [64, 128])
        box = [64, cols // 2, 1] if form == "nt" else [64, 64, 1]
        map_b = TensorMap(kind, b.data_ptr(), [b.shape[2], b.shape[1], groups], [b.stride(1), b.stride(0)], box)
        wide = int(out.dtype == torch.float32)
        boxes = int(not wide and plus is None and out.stride(0) % 8 == 0)
        map_out = TensorMap(kind, out.data_ptr(), [n, m], [out.stride(0)], [64, 64]) if boxes else map_a
        either = lambda t: F32OrElem(0, 0, 0) if t is None else F32OrElem(t.data_ptr(), t.stride(0), int(t.dtype == torch.float32))
        rows = Rows(0, 0, 0, m) if live is None else Rows(live.data_ptr(), 1, 0, m)
        values = [ctypes.c_int(boxes), either(out), either(plus), rows, ctypes.c_int(n), ctypes.c_int(k), ctypes.c_float(scale),
                  ctypes.c_uint64(0 if offsets is None else offsets.data_ptr()), ctypes.c_int(groups)]
        pointers = [map_a.at, map_b.at, map_out.at] + [ctypes.addressof(v) for v in values]
        arguments = (ctypes.c_void_p * len(pointers))(*pointers)
        row_tiles = -(-m // 128) + (groups if offsets is not None else 0)
        units = -(-row_tiles // cluster) * -(-n // cols)
        grid = min(units, 132 // cluster) * cluster
        keep = [map_a, map_b, map_out, values, a, b, out, plus]

        def run(keep=keep):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            good(cuda.cuLaunchKernel(function, grid, 1, 1, 384, 1, 1, shared, stream, arguments, None))

        return run


def normal(*shape, dtype=torch.bfloat16, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(dtype)


def check(kernels):
    """Every kernel against float64: outputs are NaN before, rows beyond the live ones are NaN and stay untouched."""
    worst, count, same = 0.0, 0, 0
    for dtype in TYPES:
        for form in ["nt", "nn"]:
            for live, n, k in [(1, 128, 128), (77, 136, 72), (129, 200, 200), (300, 328, 64), (512, 1032, 192), (1725, 4096, 136), (2100, 3000, 520)]:
                capacity = live + 70
                a = torch.full((capacity, k), float("nan"), device="cuda", dtype=dtype)
                a[:live] = normal(live, k, dtype=dtype)
                w = normal(*((n, k) if form == "nt" else (k, n)), dtype=dtype, scale=k**-0.5)
                b = w.t() if form == "nt" else w
                plus = normal(capacity, n, dtype=dtype)
                exact = a[:live].double() @ b.double()
                number = torch.tensor([live], device="cuda", dtype=torch.int32)
                results = []
                for shape in SHAPES:
                    for added, wide in [(False, False), (True, False), (False, True)]:
                        out = torch.full((capacity, n), float("nan"), device="cuda", dtype=torch.float32 if wide else dtype)
                        kernels.launch(form, a, w.unsqueeze(0), out, shape, plus if added else None, number)()
                        torch.cuda.synchronize()
                        wanted = exact + plus[:live].double() if added else exact
                        error = ((out[:live].double() - wanted).norm() / wanted.norm()).item()
                        limit = 2e-5 if wide else 2.5e-3 if dtype == torch.bfloat16 else 4e-4
                        if not error < limit or not out[live:].isnan().all():
                            print(f"FAIL {dtype} {form} {shape} live {live} n {n} k {k} plus {added} f32 {wide}: error {error:.1e}, rows beyond {'untouched' if out[live:].isnan().all() else 'WRITTEN'}")
                        worst, count = max(worst, error / limit), count + 1
                        results.append(((added, wide), out[:live]))
                for kind, out in results:
                    if not torch.equal(out, next(o for other, o in results if other == kind)):
                        print(f"FAIL different bits: {dtype} {form} live {live} n {n} k {k} {kind}")
                same += torch.equal(results[0][1], a[:live] @ b)
            # Groups of uneven length, one of them empty; their weights' neighbors are infinite.
            for n, k in [(328, 200), (1032, 136)]:
                offsets = torch.tensor([0, 5, 5, 300, 1000, 1024, 1100], device="cuda", dtype=torch.int32)
                a = normal(1100, k, dtype=dtype)
                w = normal(6, *((n, k) if form == "nt" else (k, n)), dtype=dtype, scale=k**-0.5)
                w[1] = float("inf")
                for shape in ["256", "192", "128"]:
                    out = torch.full((1100, n), float("nan"), device="cuda", dtype=dtype)
                    kernels.launch(form, a, w, out, shape, offsets=offsets)()
                    bounds = offsets.tolist()
                    exact = torch.cat([a[i:j].double() @ (x.t() if form == "nt" else x).double() for i, j, x in zip(bounds, bounds[1:], w)])
                    error = ((out.double() - exact).norm() / exact.norm()).item()
                    limit = 2.5e-3 if dtype == torch.bfloat16 else 4e-4
                    if not error < limit:
                        print(f"FAIL groups {dtype} {form} {shape} n {n} k {k}: error {error:.1e}")
                    worst, count = max(worst, error / limit), count + 1
    print(f"check: {count} products, worst error {worst:.2f} of its limit; {same} of 28 shapes have cuBLAS's bits")


LAYER = [("q|k|v", 6144, 4096), ("o", 4096, 4096), ("gate|up", 28672, 4096), ("down", 4096, 14336)]


def width(m, n):
    """Chooses the tile as `Tile::of` in src/device/cuda/sm_90a/gemm.rs does."""
    wide = "256x2" if m >= 1024 else "256"
    waves = lambda s: -(-(-(-m // 128) * -(-n // SHAPES[s][0])) // 132) * (SHAPES[s][0] + 21)
    return min([wide, "192", "128"], key=waves)


def sets(m, out_cols, in_cols, form, kernels, dtype=torch.bfloat16):
    """Pairs of functions (ours, cuBLAS) for one product on enough sets of buffers."""
    one = 2 * (m * in_cols + m * out_cols + in_cols * out_cols)
    pairs = []
    for _ in range(max(2, min(16, -(-(300 << 20) // one)))):
        a, out = normal(m, in_cols, dtype=dtype), torch.empty(m, out_cols, device="cuda", dtype=dtype)
        w = normal(*((out_cols, in_cols) if form == "nt" else (in_cols, out_cols)), dtype=dtype)
        ours = kernels.launch(form, a, w.unsqueeze(0), out, width(m, out_cols))
        library = lambda a=a, w=w, out=out: torch.matmul(a, w.t() if form == "nt" else w, out=out)
        pairs.append((ours, library))
    return pairs


def graph(functions):
    made = torch.cuda.CUDAGraph()
    with torch.cuda.graph(made):
        for function in functions:
            function()
    return made


def timed(choices, launches, pause):
    """Median microseconds of a launch for each of the lists of functions, which take turns; one function a set of buffers."""
    graphs, times = [], [[] for _ in choices]
    for functions in choices:
        functions[0]()
        turns = [[functions[(first + i) % len(functions)] for i in range(launches)] for first in range(0, len(functions), 2)]
        graphs.append([graph(turn) for turn in turns])
    for repetition in range(12):
        for which in sorted(range(len(choices)), reverse=repetition % 2 == 1):
            time.sleep(pause)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graphs[which][repetition % len(graphs[which])].replay()
            end.record()
            end.synchronize()
            times[which].append(start.elapsed_time(end) / launches * 1e3)
    return [statistics.median(t) for t in times]


BATCHES = [(8192, torch.bfloat16), (8192, torch.float16), (2048, torch.bfloat16), (512, torch.bfloat16)]


def burst(kernels, batches=BATCHES):
    print(f"{'burst':42} {'us':>8} {'TFLOP/s':>8}   {'cuBLAS us':>9} {'TFLOP/s':>8}   share")
    for m, dtype in batches:
        sums = [0.0, 0.0]
        for name, n, k in LAYER:
            for form, to, of in [("nt", n, k), ("nn", k, n)]:
                pairs = sets(m, to, of, form, kernels, dtype)
                us = timed(list(zip(*pairs)), 3 if m > 4096 else 24, 0.15 if m > 4096 else 0.02)
                sums = [s + u for s, u in zip(sums, us)]
                rate = [2e-6 * m * n * k / u for u in us]
                label = f"{m} rows {str(dtype)[6:]} {form} {name} {to}x{of}"
                print(f"{label:42} {us[0]:8.1f} {rate[0]:8.1f}   {us[1]:9.1f} {rate[1]:8.1f}   {us[1] / us[0] * 100:5.1f} %", flush=True)
                del pairs
        print(f"{m} rows {str(dtype)[6:]}, all: {sums[0]:.0f} us, cuBLAS {sums[1]:.0f}: {sums[1] / sums[0] * 100:.1f} %")


def sustained(kernels, seconds=10):
    products = [sets(8192, *((n, k) if form == "nt" else (k, n)), form, kernels) for _, n, k in LAYER for form in ("nt", "nn")]
    flops = sum(2 * 8192 * n * k for _, n, k in LAYER for _ in range(2))
    for name, which in [("ours", 0), ("cuBLAS", 1)] * 3:
        time.sleep(1)
        layers, marks, until = 0, [], time.time() + seconds
        while time.time() < until:
            for _ in range(8):
                for pairs in products:
                    pairs[layers % len(pairs)][which]()
                layers += 1
            torch.cuda.synchronize()
            marks.append((time.time(), layers))
        smi = subprocess.run(["nvidia-smi", "--query-gpu=power.draw,clocks.sm", "--format=csv,noheader"], capture_output=True, text=True).stdout
        first = next(mark for mark in marks if mark[0] > marks[0][0] + 1)
        rate = (marks[-1][1] - first[1]) / (marks[-1][0] - first[0])
        print(f"sustained {name:7} {32e3 / rate:7.1f} ms a step, {flops * rate / 1e12:6.1f} TFLOP/s, {smi.strip()}", flush=True)


def main(wanted):
    torch.manual_seed(1)
    print(torch.cuda.get_device_name(), torch.__version__)
    kernels = Kernels()
    for stage in (check, burst, sustained):
        if not wanted or stage.__name__ in wanted:
            stage(kernels)


if __name__ == "__main__":
    main(sys.argv[1:])
