// Matrix products: out = plus + scale * (product + term), in the three forms that a linear layer needs.
//
//     nt   out[m,n] = a[m,k] * b[n,k]^T                 y  = x * W^T      b is a weight
//     nn   out[m,n] = a[m,k] * b[k,n]                   dx = dy * W       b is a weight
//     tn   out[m,n] = a[rows,m]^T * b[rows,n]           dW = dy^T * x     the sum runs over tokens
//
// The term is a second product of the same form, nt or nn, whose depth is `ranks` (0: no term): that of an adapter,
// t * B^T or dt * A. Its steps follow those of the first product in the same sum.
//
// a and b are elements; out and plus are both elements or both f32. Accumulators are f32, rounded once by the epilogue.
// plus may be null or out itself. Each output is accumulated over k in steps of 16 in ascending order, whatever the tile:
// all tile shapes below give the same bits, so the host chooses among them by speed alone. Only split-K (tn with
// split_k > 0, see gemm_tn_tile) sums in a different order.
//
// Layout   rows of a and b start at multiples of 16 bytes and are read 8 elements at a time: their leading dimensions are
//          multiples of 8, and so are k and ranks in nt and nn. n (nn, tn) and m (tn) may have any value if the columns up to the next
//          multiple of 8 are readable. out and plus may have any width and leading dimension; if these and the addresses
//          allow it, rows are written 8 columns at a time.
// Rows     nt, nn: m = rows.count(); tn: the sum runs over rows.count() rows. Rows beyond are never read.
// Groups   offsets[groups + 1] in device memory, or null for one group. Group e owns the rows offsets[e] .. offsets[e+1] of
//          a and out (nt, nn) or of a and b (tn), and slab e of b (n rows each in nt, k rows each in nn) or of out (m rows).
//          The same holds for the term, with ranks in place of k.
//
// Bound    2mnk operations on mk + nk + mn elements. A layer at 8192 tokens is bound by mma.sync, whose operands pass
//          through shared memory: a 64 x 64 warp tile reads 4 KB per k16 step, which takes 32 of the 49 cycles that its
//          products take on an H200. LoRA's products (one of n, k, m is 16 .. 64) are bound by memory traffic for the one
//          large matrix that they read or write.
//
// A block computes a BM x BN tile, each of its warps WM x WN of it. Blocks are rasterized in bands of 8 tiles along m, so
// that the operands of the blocks in flight fit into L2. The main loop is a pipeline of STAGES stages in shared memory:
// threads copy BK-deep slices of both operands STAGES - 1 slices ahead with cp.async. A warp loads the fragments of one k16
// step while it multiplies those of the step before.
//
// Launch   nt, nn: one-dimensional grid of row tiles * column tiles; there are ceil(rows.capacity / BM) row tiles, plus
//          `groups` if offsets are given, and ceil(n / BN) column tiles.
//          tn: grid (ceil(m / BM) * ceil(n / BN), groups); with split-K, (the same, number of partials).
//          Threads and dynamic shared memory:
//
//          shape      BM   BN  BK  STAGES  WM  WN  threads   bytes   used for
//          large     128  256  64       3  64  64      256  147456   nt, nn: large products, on GPUs with enough shared memory
//          medium    128  128  64       3  64  64      128   98304   nt, nn: others with many tiles; tn: large products
//          small      64   64  64       4  32  32      128   65536   nt, nn: few tiles, n <= 64; tn: m or n <= 64
//          narrow     64   16  64       6  16  16      128   61440   nt, nn: n <= 16 (x * A^T, dy * B)
//          narrow32   64   32  64       6  16  32      128   73728   nt, nn: n <= 32, many rows
//          narrow64   64   64  64       6  16  64      128   98304   nt, nn: n <= 64, many rows
//          shallow    64  128  32       2  32  64      128   24576   nt, nn: k <= 64 (t * B^T, dt * A)
//          flat       16  128  64       3  16  32      128   55296   tn: m <= 16 (dA)
//          flat32     32  128  64       3  32  32      128   61440   tn: m <= 32, large n
//          flat64     64  128  64       3  64  32      128   73728   tn: m <= 64, large n
//          tall      128   16  64       3  32  16      128   55296   tn: n <= 16 (dB)

#include "mma.cuh"

enum Form { NT, NN, TN };

template <int M, int N, int K, int RING, int WARP_M, int WARP_N, int RESIDENT> struct TileShape {
    static constexpr int BM = M, BN = N, BK = K, STAGES = RING, WM = WARP_M, WN = WARP_N;
    static constexpr int THREADS = BM / WM * (BN / WN) * WARP;
    static constexpr int BLOCKS = RESIDENT;  // resident blocks per multiprocessor that the register budget allows
};
using Large = TileShape<128, 256, 64, 3, 64, 64, 1>;
using Medium = TileShape<128, 128, 64, 3, 64, 64, 2>;
using Small = TileShape<64, 64, 64, 4, 32, 32, 3>;
using Narrow = TileShape<64, 16, 64, 6, 16, 16, 3>;
using Narrow32 = TileShape<64, 32, 64, 6, 16, 32, 2>;
using Narrow64 = TileShape<64, 64, 64, 6, 16, 64, 2>;
using Shallow = TileShape<64, 128, 32, 2, 32, 64, 3>;
using Flat = TileShape<16, 128, 64, 3, 16, 32, 4>;
using Flat32 = TileShape<32, 128, 64, 3, 32, 32, 3>;
using Flat64 = TileShape<64, 128, 64, 3, 64, 32, 3>;
using Tall = TileShape<128, 16, 64, 3, 32, 16, 4>;

// ---- Operands -----------------------------------------------------------------------------------------------------------

// A warp's fragments for one k16 step: WM x 16 of a, 16 x WN of b.
template <class S> struct Fragments {
    u32 a[S::WM / 16][4];
    u32 b[S::WN / 16][4];
};

// A slice in shared memory is [BM][BK] or [BN][BK] if k is contiguous in the operand, otherwise [BK][BM] or [BK][BN].
// Returns the lane's ldmatrix offsets (a, b) in a slice for the first fragments of its warp.
template <Form FORM, class S> __device__ inline uint2 ldmatrix_rows(int warp_m, int warp_n) {
    return make_uint2(
        FORM == TN ? ldmatrix_row_a_transposed<S::BM / PACK>(0, warp_m, 0) : ldmatrix_row_a<S::BK / PACK>(0, warp_m, 0),
        FORM == NT ? ldmatrix_row_b_transposed<S::BK / PACK>(0, 0, warp_n) : ldmatrix_row_b<S::BN / PACK>(0, 0, warp_n));
}
template <Form FORM, class S> __device__ inline void load_step(Fragments<S>& part, uint2 lane, int k) {
#pragma unroll
    for (int i = 0; i < S::WM / 16; i++) {
        if constexpr (FORM == TN) load_a_transposed<S::BM / PACK>(part.a[i], lane.x, i * 16, k);
        else load_a<S::BK / PACK>(part.a[i], lane.x, i * 16, k);
    }
#pragma unroll
    for (int j = 0; j < S::WN / 16; j++) {
        if constexpr (FORM == NT) load_b_transposed<S::BK / PACK>(part.b[j], lane.y, k, j * 16);
        else load_b<S::BN / PACK>(part.b[j], lane.y, k, j * 16);
    }
}

// ---- Epilogue -----------------------------------------------------------------------------------------------------------

__device__ inline Pack load(const float* p) {
    float4 low = reinterpret_cast<const float4*>(p)[0], high = reinterpret_cast<const float4*>(p)[1];
    return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}
__device__ inline void store(float* p, const Pack& x) {
    reinterpret_cast<float4*>(p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    reinterpret_cast<float4*>(p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
}
// Whether all packs of the operand are 16-byte aligned. True for an absent operand.
__device__ inline bool aligned(F32OrElem m) { return (u64(m.at) % 16 | u64(m.ld) % PACK) == 0; }

// Prefetches a tile of plus into L2, to arrive during the main loop.
template <class S> __device__ inline void prefetch_tile(F32OrElem plus, i64 row, int col, int rows, int n) {
    if (plus.at == nullptr) return;
    int bytes = plus.is_f32 ? 4 : 2, line = 128 / bytes, lines = (S::BN + line - 1) / line;
    for (int i = threadIdx.x; i < S::BM * lines; i += S::THREADS) {
        int r = i / lines, c = i % lines * line;
        if (r < rows && col + c < n) prefetch_l2(static_cast<const char*>(plus.at) + ((row + r) * plus.ld + col + c) * bytes);
    }
}

// Stores 16 rows of a warp's accumulators, staged at x in shared memory, as plus + scale * x in type T. Each lane stores one
// pack in TIMES rows, STEP rows apart; `rows` is the number of rows from the lane's first one to the end of the output.
template <class T, int PITCH, int STEP, int TIMES>
__device__ inline void store_packs(const float* x, T* out, i64 ldo, const T* plus, i64 ldp, float scale, int rows) {
    // Loads all of plus before the first store. The two may alias, so the compiler could not move the loads up itself.
    Pack add[TIMES] = {};
#pragma unroll
    for (int i = 0; i < TIMES; i++)
        if (plus != nullptr && i * STEP < rows) add[i] = load(plus + i * STEP * ldp);
#pragma unroll
    for (int i = 0; i < TIMES; i++) {
        Pack sum = load(x + i * STEP * PITCH);
#pragma unroll
        for (int q = 0; q < PACK; q++) sum.v[q] = add[i].v[q] + scale * sum.v[q];
        if (i * STEP < rows) store(out + i * STEP * ldo, sum);
    }
}

// Stores a warp's WM x WN accumulators as plus + scale * sum. They are staged in shared memory, 16 rows at a time, so that a
// warp writes whole sectors; in fragment layout, 8 adjacent columns are spread over four lanes. `rows` is the number of rows
// from `row` on, `n` the number of columns of the whole output.
template <class S>
__device__ inline void store_tile(float* staged, const float (&sum)[S::WM / 16][S::WN / 8][4], F32OrElem out, F32OrElem plus,
                                  float scale, i64 row, int col, int rows, int n) {
    // 8 floats of padding put the rows of a fragment into different banks.
    constexpr int PITCH = S::WN + 8, LANES = S::WN / PACK, STEP = WARP / LANES, TIMES = 16 / STEP;
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    int r = lane / LANES, c = lane % LANES * PACK;
    bool packs = aligned(out) && aligned(plus) && c + PACK <= n - col;
    const float* x = staged + r * PITCH + c;
#pragma unroll
    for (int i = 0; i < S::WM / 16; i++) {
#pragma unroll
        for (int j = 0; j < S::WN / 8; j++) {
            *reinterpret_cast<float2*>(staged + g * PITCH + j * 8 + t * 2) = make_float2(sum[i][j][0], sum[i][j][1]);
            *reinterpret_cast<float2*>(staged + (g + 8) * PITCH + j * 8 + t * 2) = make_float2(sum[i][j][2], sum[i][j][3]);
        }
        __syncwarp();
        i64 at = row + i * 16 + r, to = at * out.ld + col + c, from = plus.at == nullptr ? 0 : at * plus.ld + col + c;
        int left = rows - i * 16 - r;
        if (packs && out.is_f32) {
            auto add = static_cast<const float*>(plus.at);
            store_packs<float, PITCH, STEP, TIMES>(x, static_cast<float*>(out.at) + to, out.ld, add ? add + from : add, plus.ld, scale, left);
        } else if (packs) {
            auto add = static_cast<const elem*>(plus.at);
            store_packs<elem, PITCH, STEP, TIMES>(x, static_cast<elem*>(out.at) + to, out.ld, add ? add + from : add, plus.ld, scale, left);
        } else {
            // Rare and small: gradients of adapters whose rank is not a multiple of 8.
#pragma unroll 1
            for (int q = 0; q < 16 / STEP * PACK; q++) {
                int down = q / PACK * STEP, right = c + q % PACK;
                if (down >= left || right >= n - col) continue;
                float add = plus.at == nullptr ? 0.0f : load(plus, at + down, col + right);
                store(out, at + down, col + right, add + scale * x[down * PITCH + q % PACK]);
            }
        }
        __syncwarp();
    }
}

// ---- Main loop ------------------------------------------------------------------------------------------------------------

// Rows and columns that remain from the start of a tile; the tile may extend past them.
struct Extent {
    int m, n;
};

// The operands of a product, from the start of a tile on, and its depth.
struct Factors {
    Mat<const elem> a, b;
    int k;
};

// sum += product and term of one tile.
template <Form FORM, class S>
__device__ inline void multiply(float (&sum)[S::WM / 16][S::WN / 8][4], u32 ring, Factors product, Factors term, Extent live) {
    constexpr int STEPS = S::BK / 16, SLICE_A = S::BM * S::BK * 2, SLICE_B = S::BN * S::BK * 2, SLICE = SLICE_A + SLICE_B;
    static_assert(STEPS % 2 == 0, "the two fragment buffers alternate");
    // Whether k is contiguous in the operand.
    constexpr bool A_ALONG = FORM != TN, B_ALONG = FORM == NT;
    using CopyA = TileCopy<A_ALONG ? S::BM : S::BK, A_ALONG ? S::BK : S::BM, S::THREADS>;
    using CopyB = TileCopy<B_ALONG ? S::BN : S::BK, B_ALONG ? S::BK : S::BN, S::THREADS>;
    CopyA copy_a(product.a);
    CopyB copy_b(product.b);
    int warp = threadIdx.x / WARP, warp_m = warp / (S::BN / S::WN) * S::WM, warp_n = warp % (S::BN / S::WN) * S::WN;
    int before = (product.k + S::BK - 1) / S::BK, slices = before + (FORM == TN ? 0 : (term.k + S::BK - 1) / S::BK);

    // Load
    int k = product.k;  // the depth that remains
    auto copy = [&](int slice) {
        if (FORM != TN && slice == before) copy_a = CopyA(term.a), copy_b = CopyB(term.b), k = term.k;
        if (slice < slices) {
            u32 to = ring + slice % S::STAGES * SLICE;
            A_ALONG ? copy_a.copy(to, live.m, k) : copy_a.copy(to, k, live.m);
            B_ALONG ? copy_b.copy(to + SLICE_A, live.n, k) : copy_b.copy(to + SLICE_A, k, live.n);
            copy_a.from += A_ALONG ? S::BK : S::BK * copy_a.ld;
            copy_b.from += B_ALONG ? S::BK : S::BK * copy_b.ld;
            k -= S::BK;
        }
        // Commits even an empty group, because cp_async_wait counts groups.
        cp_async_commit();
    };
    for (int slice = 0; slice < S::STAGES - 1; slice++) copy(slice);
    cp_async_wait<S::STAGES - 2>();
    __syncthreads();

    // Compute
    Fragments<S> part[2];
    uint2 lane = ldmatrix_rows<FORM, S>(warp_m, warp_n);
    auto load = [&](Fragments<S>& to, u32 slice, int step) {
        load_step<FORM, S>(to, make_uint2(slice + lane.x, slice + SLICE_A + lane.y), step * 16);
    };
    load(part[0], ring, 0);
    for (int slice = 0; slice < slices; slice++) {
        u32 now = ring + slice % S::STAGES * SLICE, next = ring + (slice + 1) % S::STAGES * SLICE;
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            if (step == STEPS - 1) {
                // The next slice has arrived, and all warps have loaded the last fragments of this one.
                cp_async_wait<S::STAGES - 2>();
                __syncthreads();
            }
            load(part[(step + 1) % 2], step == STEPS - 1 ? next : now, (step + 1) % STEPS);
            // Reuses the stage of the previous slice.
            if (step == 0) copy(slice + S::STAGES - 1);
            auto& [fa, fb] = part[step % 2];
#pragma unroll
            for (int i = 0; i < S::WM / 16; i++)
#pragma unroll
                for (int j = 0; j < S::WN / 8; j++) mma_16816(sum[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
    }
    // The epilogue reuses the pipeline's shared memory.
    cp_async_wait<0>();
    __syncthreads();
}

// Rasterization: the tile of this block among rows x cols tiles, in bands of 8 rows of tiles.
__device__ inline int2 tile_of(int block, int rows, int cols) {
    constexpr int BAND = 8;
    int band = block / (BAND * cols), within = block % (BAND * cols);
    int height = min(BAND, rows - band * BAND);
    return make_int2(band * BAND + within % height, within / height);
}

// One output tile of nt and nn.
template <Form FORM, class S>
__device__ inline void gemm_rows_tile(F32OrElem out, F32OrElem plus, Factors product, Factors term, Rows rows, int n, float scale,
                                      const int* offsets, int groups) {
    extern __shared__ __align__(1024) unsigned char shared[];
    int row_tiles = (rows.capacity + S::BM - 1) / S::BM + (offsets == nullptr ? 0 : groups);
    int2 tile = tile_of(blockIdx.x, row_tiles, (n + S::BN - 1) / S::BN);

    // The rows of the tile. A tile never crosses the end of a group.
    int first = tile.x * S::BM, end = offsets == nullptr ? rows.count() : 0, group = 0;
    if (offsets != nullptr) {
        for (int before = 0; group < groups; group++) {
            int begin = offsets[group];
            end = offsets[group + 1];
            int tiles = (end - begin + S::BM - 1) / S::BM;
            first = begin + (tile.x - before) * S::BM;
            if (tile.x < before + tiles) break;
            before += tiles;
        }
        if (group == groups) return;
    }
    if (first >= end) return;

    int col = tile.y * S::BN;
    auto start = [&](Factors& of) {
        of.a.at = of.a.row(first);
        of.b.at = of.b.row(i64(group) * (FORM == NT ? n : of.k)) + (FORM == NT ? col * of.b.ld : col);
    };
    start(product), start(term);
    prefetch_tile<S>(plus, first, col, end - first, n);
    float sum[S::WM / 16][S::WN / 8][4] = {};
    multiply<FORM, S>(sum, shared_address(shared), product, term, {end - first, n - col});

    int warp = threadIdx.x / WARP, warp_m = warp / (S::BN / S::WN) * S::WM, warp_n = warp % (S::BN / S::WN) * S::WN;
    float* staged = reinterpret_cast<float*>(shared) + warp * 16 * (S::WN + 8);
    store_tile<S>(staged, sum, out, plus, scale, i64(first) + warp_m, col + warp_n, end - first - warp_m, n);
}

// One output tile of tn, where k counts rows (tokens).
//
// Split-K: with split_k > 0, the rows of each group are split into pieces of split_k rows. Separate blocks sum the pieces
// into partials out[partial][m][n] (f32, dense; plus null, scale 1), which gemm_tn_sum then adds in ascending order. The host
// derives split_k from m and n alone, so the bits depend neither on the capacity nor on the GPU: 512 rows if m * n <= 2^17,
// 1024 if m * n <= 2^21, otherwise 0 (no split). There are ceil(rows.capacity / split_k) + groups - 1 partials.
template <class S>
__device__ inline void gemm_tn_tile(F32OrElem out, F32OrElem plus, Mat<const elem> a, Mat<const elem> b, Rows rows, int m, int n,
                                    float scale, const int* offsets, int groups, int split_k) {
    extern __shared__ __align__(1024) unsigned char shared[];
    int2 tile = tile_of(blockIdx.x, (m + S::BM - 1) / S::BM, (n + S::BN - 1) / S::BN);
    int row = tile.x * S::BM, col = tile.y * S::BN;

    int group = blockIdx.y, first = 0, end = 0;
    if (split_k > 0) {
        group = 0;
        if (offsets != nullptr)
            while (group + 1 < groups && offsets[group + 1] / split_k + group + 1 <= int(blockIdx.y)) group++;
    }
    if (offsets == nullptr) end = rows.count();
    else first = offsets[group], end = offsets[group + 1];
    if (split_k > 0) {
        // A group's first partial is offset / split_k + group, so no two groups share a partial.
        first += (int(blockIdx.y) - first / split_k - group) * split_k;
        if (first >= end) return;
        end = min(end, first + split_k);
        group = blockIdx.y;  // each partial is a slab of out
    } else if (first == end && plus.at == out.at) {
        return;
    }

    a.at = a.row(first) + row;
    b.at = b.row(first) + col;
    float sum[S::WM / 16][S::WN / 8][4] = {};
    multiply<TN, S>(sum, shared_address(shared), {a, b, end - first}, {}, {m - row, n - col});

    int warp = threadIdx.x / WARP, warp_m = warp / (S::BN / S::WN) * S::WM, warp_n = warp % (S::BN / S::WN) * S::WN;
    float* staged = reinterpret_cast<float*>(shared) + warp * 16 * (S::WN + 8);
    store_tile<S>(staged, sum, out, plus, scale, i64(group) * m + row + warp_m, col + warp_n, m - row - warp_m, n);
}

// ---- Kernels: gemm_<form>_<shape> -------------------------------------------------------------------------------------------

#define GEMM_ROWS(form, FORM, shape, SHAPE)                                                                                         \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, SHAPE::BLOCKS)                                                     \
        gemm_##form##_##shape(F32OrElem out, F32OrElem plus, Mat<const elem> a, Mat<const elem> b, Mat<const elem> term_a,          \
                              Mat<const elem> term_b, Rows rows, int n, int k, int ranks, float scale, const int* offsets,          \
                              int groups) {                                                                                         \
        gemm_rows_tile<FORM, SHAPE>(out, plus, {a, b, k}, {term_a, term_b, ranks}, rows, n, scale, offsets, groups);                \
    }
#define GEMM_TN(shape, SHAPE)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, SHAPE::BLOCKS)                                                     \
        gemm_tn_##shape(F32OrElem out, F32OrElem plus, Mat<const elem> a, Mat<const elem> b, Rows rows, int m, int n, float scale,  \
                        const int* offsets, int groups, int split_k) {                                                              \
        gemm_tn_tile<SHAPE>(out, plus, a, b, rows, m, n, scale, offsets, groups, split_k);                                          \
    }
GEMM_ROWS(nt, NT, large, Large)
GEMM_ROWS(nt, NT, medium, Medium)
GEMM_ROWS(nt, NT, small, Small)
GEMM_ROWS(nt, NT, narrow, Narrow)
GEMM_ROWS(nt, NT, narrow32, Narrow32)
GEMM_ROWS(nt, NT, narrow64, Narrow64)
GEMM_ROWS(nt, NT, shallow, Shallow)
GEMM_ROWS(nn, NN, large, Large)
GEMM_ROWS(nn, NN, medium, Medium)
GEMM_ROWS(nn, NN, small, Small)
GEMM_ROWS(nn, NN, narrow, Narrow)
GEMM_ROWS(nn, NN, narrow32, Narrow32)
GEMM_ROWS(nn, NN, narrow64, Narrow64)
GEMM_ROWS(nn, NN, shallow, Shallow)
GEMM_TN(medium, Medium)
GEMM_TN(small, Small)
GEMM_TN(flat, Flat)
GEMM_TN(flat32, Flat32)
GEMM_TN(flat64, Flat64)
GEMM_TN(tall, Tall)

// Split-K reduction: out = plus + scale * sum of each group's partials, in ascending order. Grid (ceil(m * n / 256), groups),
// 256 threads, one output per thread. Reads the partials once: bound by memory.
extern "C" __global__ void __launch_bounds__(256) gemm_tn_sum(F32OrElem out, F32OrElem plus, const float* partials, Rows rows, int m,
                                                              int n, float scale, const int* offsets, int split_k) {
    i64 i = global_thread(), slab = i64(m) * n;
    if (i >= slab) return;
    int group = blockIdx.y;
    int first = offsets == nullptr ? 0 : offsets[group], end = offsets == nullptr ? rows.count() : offsets[group + 1];
    if (first == end && plus.at == out.at) return;
    partials += (first / split_k + group) * slab + i;
    float sum = 0.0f;
    for (; first < end; first += split_k, partials += slab) sum += *partials;
    i64 row = i64(group) * m + i / n, col = i % n;
    store(out, row, col, (plus.at == nullptr ? 0.0f : load(plus, row, col)) + scale * sum);
}
