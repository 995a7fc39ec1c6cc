"""Compares our sm_90a attention with cuDNN (through PyTorch): correctness against float64, bursts, sustained load.

    python3 benches/cudnn.py [check] [burst] [sustained]        on a Hopper card with PyTorch; needs no Rust

Both run alternately in one process, on normal random data. TFLOP/s count 4 D operations forward and 10 D backward for each
visible pair; our backward pass computes 14 D, and its time includes delta. Burst: six launches after a pause; median of ten.
Sustained: forward and backward for ten seconds, without the first second; power and clock from nvidia-smi.
"""

import ctypes
import statistics
import subprocess
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from cublas import ROOT, TYPES, Rows, TensorMap, build, cuda, good, normal

BLOCKS = torch.cuda.get_device_properties(0).multi_processor_count
# Documents, window, heads, key heads, size of a head. A negative length: tokens that see nothing and are not seen.
CHECKED = [
    ([1], None, 2, 1, 128), ([77], None, 4, 2, 64), ([1, 1, 60, 1, 100], None, 4, 1, 64), ([150, 50], 33, 2, 2, 128),
    ([64, 64, 3], 40, 4, 4, 128), ([256, 256], None, 4, 1, 64), ([5, 300, 129, 1, 513], None, 8, 2, 128),
    ([700, 333], 200, 8, 2, 64), ([1500], None, 32, 8, 128), ([300, -400, 200, -130], None, 4, 1, 128), ([-600], None, 4, 2, 128),
    ([-1, 5, -300, 77, -128, 128, -256, 300], 64, 4, 2, 64), ([300, -2000, 1500, -1300, 50], None, 8, 2, 128),
]
TIMED = [([2048] * 4, 128), ([8192] * 4, 128), ([512] * 16, 128), ([2048], 128), ([2048] * 4, 64)]


class Mat(ctypes.Structure):
    _fields_ = [("at", ctypes.c_uint64), ("ld", ctypes.c_int64)]

    def __init__(self, tensor):
        super().__init__(tensor.data_ptr(), tensor.stride(0))


class Kernels:
    """The checked-in machine code."""

    def __init__(self):
        self.functions = {}

    def find(self, dtype, path, gpu, name, shared):
        key = dtype, name
        if key not in self.functions:
            image = build.unpack((ROOT / f"compiled/{path}/{TYPES[dtype][0]}/attention.bin").read_bytes())[1][gpu]
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            good(cuda.cuModuleLoadData(ctypes.byref(module), image))
            good(cuda.cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
            good(cuda.cuFuncSetAttribute(function, 8, shared))
            self.functions[key] = function
        return self.functions[key]


class Problem:
    """Operands of both passes. Rows beyond the live ones are NaN; outputs are -77 before."""

    def __init__(self, kernels, documents, window, heads, kv_heads, d, dtype=torch.bfloat16, beyond=0):
        self.kernels, self.heads, self.kv_heads, self.d, self.dtype = kernels, heads, kv_heads, d, dtype
        live = self.live = sum(map(abs, documents))
        rows, self.scale = live + beyond, d**-0.5
        filled = lambda cols, value, kind=dtype: torch.full((rows, cols), value, device="cuda", dtype=kind)
        all_, self.dout = filled((heads + 2 * kv_heads) * d, float("nan")), filled(heads * d, float("nan"))
        all_[:live], self.dout[:live] = normal(live, all_.shape[1], dtype=dtype), normal(live, heads * d, dtype=dtype)
        self.q, self.k, self.v = all_.split([heads * d, kv_heads * d, kv_heads * d], 1)
        self.out, self.dq = filled(heads * d, -77.0), filled(heads * d, -77.0)
        self.dk, self.dv = filled(kv_heads * d, -77.0), filled(kv_heads * d, -77.0)
        self.lse, self.delta = filled(heads, -77.0, torch.float32), filled(heads, float("nan"), torch.float32)
        ranges, start = [], 0
        for n in documents:
            for i in range(start, start + abs(n)):
                far = window or live
                ranges.append((max(i + 1 - far, start), i + 1, i, min(i + far, start + n)) if n > 0 else (i, i, i, i))
            start += abs(n)
        ranges += [(0, 0, 0, 0)] * beyond
        self.lo, self.hi, self.qlo, self.qhi = torch.tensor(ranges, dtype=torch.int32, device="cuda").t().contiguous()
        self.number = torch.tensor([live], dtype=torch.int32, device="cuda")
        self.rows = Rows(self.number.data_ptr(), 1, 0, rows)
        maps = [TensorMap(TYPES[dtype][1], t.data_ptr(), [t.shape[1], rows], [t.stride(0)], [64, 64])
                for t in (self.q, self.k, self.v, self.dout)]
        sizes = [ctypes.c_int(heads), ctypes.c_int(kv_heads), ctypes.c_float(self.scale)]
        lo, hi, qlo, qhi = [ctypes.c_uint64(t.data_ptr()) for t in (self.lo, self.hi, self.qlo, self.qhi)]
        jobs, key_jobs = -(-rows // 128) * heads, -(-rows // 128) * kv_heads
        mats = {name: Mat(getattr(self, name)) for name in ("out", "lse", "delta", "dout", "dq", "dk", "dv")}
        launch = lambda *a: (self.kernels.find(dtype, *a[:4]), *a[4:])
        self.launches = {
            "forward": launch("sm_90a", "sm_90a", f"attention_{d}", 1792 * d, 384, min(BLOCKS, jobs), 1792 * d,
                              [mats["out"], mats["lse"], *maps[:3], lo, hi, self.rows, *sizes]),
            "delta": launch("sm_80", "sm_90", f"attention_delta_{d}", 0, 128, -(-rows * heads // 8), 0,
                            [mats["delta"], mats["out"], mats["dout"], self.rows, sizes[0]]),
            "gradients": launch("sm_90a", "sm_90a", f"attention_bwd_{d}", 1792 * d, 384, min(BLOCKS, jobs + key_jobs), 1792 * d,
                                [mats["dq"], mats["dk"], mats["dv"], *maps, mats["lse"], mats["delta"], lo, hi, qlo, qhi,
                                 self.rows, self.rows, *sizes]),
        }

    def run(self, name):
        function, threads, blocks, shared, values = self.launches[name]
        at = [v.at if isinstance(v, TensorMap) else ctypes.addressof(v) for v in values]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        good(cuda.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, (ctypes.c_void_p * len(at))(*at), None))

    def forward(self):
        self.run("forward")

    def backward(self):
        self.run("delta")
        self.run("gradients")

    def exact(self):
        """In float64."""
        n, d, shared = self.live, self.d, self.heads // self.kv_heads
        wide = lambda t: t[:n].double().view(n, -1, d).transpose(0, 1)
        q, dout = wide(self.q), wide(self.dout)
        k, v = [wide(t).repeat_interleave(shared, 0) for t in (self.k, self.v)]
        j = torch.arange(n, device="cuda")
        hidden = (j < self.lo[:n, None]) | (j >= self.hi[:n, None])
        s = (q @ k.transpose(1, 2) * self.scale).masked_fill(hidden, float("-inf"))
        lse = torch.logsumexp(s, -1)
        p = torch.exp(s - lse[..., None]).nan_to_num()
        out = p @ v
        ds = p * (dout @ v.transpose(1, 2) - (out * dout).sum(-1, keepdim=True))
        flat = lambda t: t.transpose(0, 1).reshape(n, -1)
        of_keys = lambda t: flat(t.view(self.kv_heads, shared, n, d).sum(1))
        return {"out": flat(out), "lse": lse.t(), "dq": flat(ds @ k) * self.scale,
                "dk": of_keys(ds.transpose(1, 2) @ q) * self.scale, "dv": of_keys(p.transpose(1, 2) @ dout)}


def check(kernels):
    """Against float64, rows beyond the live ones untouched; then the same bits a thousand times."""
    worst = dict.fromkeys(("out", "lse", "dq", "dk", "dv"), 0.0)
    for dtype in TYPES:
        for case in CHECKED:
            problem = Problem(kernels, *case, dtype=dtype, beyond=200)
            problem.forward()
            problem.backward()
            for name, exact in problem.exact().items():
                result = getattr(problem, name)
                difference = (result[: problem.live].double() - exact).nan_to_num(9.0, 9.0, 9.0)
                both_infinite = torch.isinf(result[: problem.live]) & torch.isinf(exact)
                difference[both_infinite] = 0.0
                # If a token is alone, its gradients of q and k are zero except for rounding.
                norm = max(exact[exact.isfinite()].norm().item(), 1e-2)
                error = difference.abs().max().item() if name == "lse" else difference.norm().item() / norm
                limit = {"out": 4e-3, "lse": 4e-4}.get(name, 1e-2) / (4 if dtype == torch.float16 or name == "lse" else 1)
                if not error <= limit or not (result[problem.live :] == -77.0).all():
                    print(f"FAIL {dtype} {case} {name}: error {error:.1e} or rows beyond the live ones written")
                if dtype == torch.bfloat16:
                    worst[name] = max(worst[name], error)
    print("check: worst errors, bf16:", ", ".join(f"{name} {error:.1e}" for name, error in worst.items()))
    for case in [([5, 300, 129, 1, 513], None, 8, 2, 128), ([700, 333], 200, 8, 2, 64), ([2048, 2048], None, 8, 2, 128), ([90] * 20, None, 8, 2, 128)]:
        problem = Problem(kernels, *case)
        wanted, other = None, torch.zeros(1, dtype=torch.int64, device="cuda")
        for _ in range(1000):
            for name in worst:
                getattr(problem, name).fill_(-77.0)
            problem.forward()
            problem.backward()
            wanted = wanted or {name: getattr(problem, name).clone() for name in worst}
            for name in worst:
                other += (getattr(problem, name) != wanted[name]).sum()
        print(f"check: 1000 times {case}: {other.item()} elements with different bits")


class Library:
    """cuDNN on the same shapes; documents are rows of a batch."""

    def __init__(self, documents, d, heads=32, kv_heads=8):
        shape = lambda h: normal(len(documents), documents[0], h, d).transpose(1, 2)
        self.inputs = [shape(h).requires_grad_() for h in (heads, kv_heads, kv_heads)]
        self.dout = shape(heads)
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            self.out = self.attention()

    def attention(self):
        return torch.nn.functional.scaled_dot_product_attention(*self.inputs, is_causal=True, enable_gqa=True)

    def forward(self):
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION), torch.no_grad():
            self.attention()

    def backward(self):
        torch.autograd.grad(self.out, self.inputs, self.dout, retain_graph=True)


def median_ms(function, launches):
    times = []
    for _ in range(10):
        time.sleep(0.05)
        function()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(launches):
            function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / launches)
    return statistics.median(times)


def burst(kernels):
    print(f"{'burst':26} {'us':>8} {'TFLOP/s':>8}   {'cuDNN us':>9} {'TFLOP/s':>8}")
    for documents, d in TIMED:
        problem, library = Problem(kernels, documents, None, 32, 8, d), Library(documents, d)
        pairs = sum(n * (n + 1) / 2 for n in documents) * 32
        for name, products in [("forward", 4), ("backward", 10)]:
            launches = 2 if sum(documents) > 8192 else 6
            # Twice in turn: the faster median of each.
            both = [[median_ms(getattr(x, name), launches) for x in (problem, library)] for _ in range(2)]
            ms = [min(x) for x in zip(*both)]
            rate = [pairs * products * d / t / 1e9 for t in ms]
            label = f"{len(documents)}x{documents[0]} D={d} {name}"
            print(f"{label:26} {ms[0] * 1e3:8.1f} {rate[0]:8.1f}   {ms[1] * 1e3:9.1f} {rate[1]:8.1f}", flush=True)


def sustained(kernels, seconds=10):
    documents = [2048] * 4
    problem, library = Problem(kernels, documents, None, 32, 8, 128), Library(documents, 128)
    for name, which in [("ours", problem), ("cuDNN", library)] * 2:
        time.sleep(1)
        count, marks, until = 0, [], time.time() + seconds
        while time.time() < until:
            for _ in range(100):
                which.forward()
                which.backward()
            count += 100
            torch.cuda.synchronize()
            marks.append((time.time(), count))
        smi = subprocess.run(["nvidia-smi", "--query-gpu=power.draw,clocks.sm", "--format=csv,noheader"], capture_output=True, text=True).stdout
        first = next(mark for mark in marks if mark[0] > marks[0][0] + 1)
        ms = (marks[-1][0] - first[0]) / (marks[-1][1] - first[1]) * 1e3
        print(f"sustained {name:6} {ms:7.3f} ms forward and backward, {32 * ms:5.1f} ms in 32 layers, {smi.strip()}", flush=True)


def main(wanted):
    torch.manual_seed(1)
    print(torch.cuda.get_device_name(), torch.__version__, "cuDNN", torch.backends.cudnn.version())
    kernels = Kernels()
    for stage in (check, burst, sustained):
        if not wanted or stage.__name__ in wanted:
            stage(kernels)


if __name__ == "__main__":
    main(sys.argv[1:])
