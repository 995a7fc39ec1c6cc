// Pointwise operations: sum, dropout, noise, cast, zero.
//
//   add        out = a + b
//   dropout    out = plus + x·keep/(1 − p), keep = philox(seed, site, row·cols + col) ≥ p
//   noise      out = x + magnitude·u(seed, site, row·cols + col), u uniform in (−1, 1)
//   cast       copies each of `parts` equal slabs of x, times scale, to (row, col) of its slab of out; the rest of out becomes zero
//   zero       out = 0
//
// add, dropout, noise: one pack of 8 elements per thread; in place is allowed. cast: one element per thread; it only copies
// adapters (a few MB). zero writes bytes, whatever the type. Bound by memory.

#include "common.cuh"

extern "C" __global__ void add(Rows rows, int cols, Mat<const elem> a, Mat<const elem> b, Mat<elem> out) {
    u32 packs = cols / PACK, item = global_thread();
    u32 row = item / packs, i = item % packs * PACK;
    if (row >= rows.count()) return;
    Pack x = load(a.row(row) + i), y = load(b.row(row) + i);
#pragma unroll
    for (int j = 0; j < PACK; j++) x.v[j] += y.v[j];
    store(out.row(row) + i, x);
}

// Random words for the pack of 8 elements that starts at `element` of a matrix: one Philox call for every four elements.
struct Random {
    uint4 word[2];
    __device__ Random(u64 element, u32 site, const u32* seed) {
        u64 group = element / 4;
        uint2 key = make_uint2(seed[0], seed[1]);
#pragma unroll
        for (int i = 0; i < 2; i++) word[i] = philox(make_uint4(u32(group + i), u32((group + i) >> 32), site, 0), key);
    }
    __device__ u32 operator[](int j) const { return (&word[0].x)[j]; }
};

// threshold: p · 2³², compared with 32 random bits. scale: 1/(1 − p).
extern "C" __global__ void dropout(Rows rows, int cols, const u32* seed, u32 site, u64 threshold, float scale,
                                   Mat<const elem> x, Mat<const elem> plus, Mat<elem> out) {
    u32 packs = cols / PACK, item = global_thread();
    u32 row = item / packs, i = item % packs * PACK;
    if (row >= rows.count()) return;
    Random random(u64(row) * cols + i, site, seed);
    Pack a = load(x.row(row) + i), to = {};
    if (plus.at) to = load(plus.row(row) + i);
#pragma unroll
    for (int j = 0; j < PACK; j++) {
        if (random[j] >= threshold) to.v[j] += a.v[j] * scale;
    }
    store(out.row(row) + i, to);
}

// A magnitude of 0 copies x bit for bit.
extern "C" __global__ void noise(Rows rows, int cols, const u32* seed, u32 site, const float* magnitude, Mat<const elem> x,
                                 Mat<elem> out) {
    u32 packs = cols / PACK, item = global_thread();
    u32 row = item / packs, i = item % packs * PACK;
    if (row >= rows.count()) return;
    Random random(u64(row) * cols + i, site, seed);
    float size = *magnitude;
    Pack a = load(x.row(row) + i);
#pragma unroll
    for (int j = 0; j < PACK; j++) {
        // The midpoint of one of 2²³ equal intervals, exact in f32.
        float unit = (float(random[j] >> 9) + 0.5f) * 0x1p-22f - 1.0f;
        if (size != 0.0f) a.v[j] = add(a.v[j], mul(size, unit));
    }
    store(out.row(row) + i, a);
}

// A part is from_rows × from_cols in x and to_rows × to_cols in out. If there is only one part, rows.count() follows the live
// tokens.
extern "C" __global__ void cast(Rows rows, int from_rows, int from_cols, int to_rows, int to_cols, int row, int col, float scale,
                                F32OrElem x, F32OrElem out) {
    i64 item = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    i64 i = item / to_cols, j = item % to_cols;
    if (i >= rows.count()) return;
    i64 part = i / to_rows, r = i % to_rows - row, c = j - col;
    bool inside = r >= 0 && r < from_rows && c >= 0 && c < from_cols;
    store(out, i, j, inside ? scale * load(x, part * from_rows + r, c) : 0.0f);
}

// width: bytes per row. wide: whether rows start at, and width is, a multiple of 16 bytes.
extern "C" __global__ void zero(Rows rows, i64 width, int wide, Mat<unsigned char> out) {
    i64 each = wide ? sizeof(uint4) : 1, units = width / each;
    i64 item = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    i64 row = item / units;
    if (row >= rows.count()) return;
    unsigned char* at = out.row(row) + item % units * each;
    if (wide) *reinterpret_cast<uint4*>(at) = make_uint4(0, 0, 0, 0);
    else *at = 0;
}
