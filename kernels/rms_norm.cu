// RMSNorm (Zhang & Sennrich 2019), rounded twice like HF's LlamaRMSNorm. Each part of D columns is normalized on its own: the
// whole row, or one head of it.
//
//   forward    rstd = 1/√(mean(x²) + eps)        out = round(x·rstd) · weight
//   backward   g = dout·weight                   dx = plus + rstd·(g − x·rstd²·mean(g·x))
//
// x, out, dout, plus, dx [T,n·D]; weight [1,D] (frozen: it has no gradient); rstd F32 [T,n].
// One block per part; a thread takes every 256th pack of 8. The second pass over the part hits L1.
// Bytes per part: forward 2·D·size, backward 4·D·size with `plus`; 5 to 8 FLOPs per element. Bound by memory.

#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) rms_norm(Rows rows, int parts, int cols, float eps, Mat<const elem> x,
                                                           const elem* weight, Mat<elem> out, Mat<float> rstd) {
    u32 row = blockIdx.x / parts, part = blockIdx.x % parts;
    if (row >= rows.count()) return;
    const elem* from = x.row(row) + part * cols;
    elem* to = out.row(row) + part * cols;
    int stride = blockDim.x * PACK, first = threadIdx.x * PACK;

    float squares = 0;
    for (int i = first; i < cols; i += stride) {
        Pack a = load(from + i);
#pragma unroll
        for (int j = 0; j < PACK; j++) squares += a.v[j] * a.v[j];
    }
    float r = 1.0f / sqrtf(block_reduce<Sum>(squares) / cols + eps);
    if (threadIdx.x == 0) rstd.row(row)[part] = r;

    for (int i = first; i < cols; i += stride) {
        Pack a = load(from + i), w = load(weight + i);
#pragma unroll
        for (int j = 0; j < PACK; j++) a.v[j] = rounded(a.v[j] * r) * w.v[j];
        store(to + i, a);
    }
}

// `plus` may be null, and may alias `dx`: a thread reads each element before it writes it.
extern "C" __global__ void __launch_bounds__(256) rms_norm_bwd(Rows rows, int parts, int cols, Mat<const elem> dout,
                                                               Mat<const elem> x, const elem* weight, Mat<const float> rstd,
                                                               Mat<const elem> plus, Mat<elem> dx) {
    u32 row = blockIdx.x / parts, part = blockIdx.x % parts, column = part * cols;
    if (row >= rows.count()) return;
    const elem *d_row = dout.row(row) + column, *x_row = x.row(row) + column;
    int stride = blockDim.x * PACK, first = threadIdx.x * PACK;

    float dot = 0;  // Σ g·x
    for (int i = first; i < cols; i += stride) {
        Pack d = load(d_row + i), w = load(weight + i), a = load(x_row + i);
#pragma unroll
        for (int j = 0; j < PACK; j++) dot += d.v[j] * w.v[j] * a.v[j];
    }
    float r = rstd.row(row)[part];
    float along = r * r * block_reduce<Sum>(dot) / cols;

    for (int i = first; i < cols; i += stride) {
        Pack d = load(d_row + i), w = load(weight + i), a = load(x_row + i), p = {};
        if (plus.at) p = load(plus.row(row) + column + i);
#pragma unroll
        for (int j = 0; j < PACK; j++) p.v[j] += r * (d.v[j] * w.v[j] - a.v[j] * along);
        store(dx.row(row) + column + i, p);
    }
}
