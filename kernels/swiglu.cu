// SwiGLU (Shazeer 2020), σ(x) = 1/(1 + e⁻ˣ).
//
//   forward    out = gate·σ(gate) · up
//   backward   dgate = dout·up·σ·(1 + gate·(1 − σ))      dup = dout·gate·σ
//
// All operands are [n,F]; gate and up are usually the halves of one product. One pack of 8 per thread. Outputs may overwrite
// inputs in place: a thread reads before it writes. Bytes per element: forward 3·size, backward 5·size. Bound by memory.

#include "common.cuh"

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

extern "C" __global__ void swiglu(Rows rows, int cols, Mat<const elem> gate, Mat<const elem> up, Mat<elem> out) {
    u32 packs = cols / PACK, item = global_thread();
    u32 row = item / packs, i = item % packs * PACK;
    if (row >= rows.count()) return;
    Pack g = load(gate.row(row) + i), u = load(up.row(row) + i);
#pragma unroll
    for (int j = 0; j < PACK; j++) g.v[j] = g.v[j] * sigmoid(g.v[j]) * u.v[j];
    store(out.row(row) + i, g);
}

extern "C" __global__ void swiglu_bwd(Rows rows, int cols, Mat<const elem> dout, Mat<const elem> gate, Mat<const elem> up,
                                      Mat<elem> dgate, Mat<elem> dup) {
    u32 packs = cols / PACK, item = global_thread();
    u32 row = item / packs, i = item % packs * PACK;
    if (row >= rows.count()) return;
    Pack d = load(dout.row(row) + i), g = load(gate.row(row) + i), u = load(up.row(row) + i);
#pragma unroll
    for (int j = 0; j < PACK; j++) {
        float s = sigmoid(g.v[j]);
        float to_gate = d.v[j] * u.v[j] * s * (1.0f + g.v[j] * (1.0f - s));
        u.v[j] = d.v[j] * g.v[j] * s;
        g.v[j] = to_gate;
    }
    store(dgate.row(row) + i, g);
    store(dup.row(row) + i, u);
}
