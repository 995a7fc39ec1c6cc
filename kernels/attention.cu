// Attention. For each query t and each of its heads, over the keys j in lo[t] .. hi[t],
//
//     s[j] = scale * <q[t], k[j]>     p = softmax(s)     out[t] = sum_j p[j] v[j]     lse[t] = log sum_j exp(s[j])
//
// and, with delta[t] = <dout[t], out[t]> and ds[j] = p[j] (<dout[t], v[j]> - delta[t]), the gradients are
//
//     dq[t] = scale * sum_j ds[j] k[j]     dk[j] = scale * sum_t ds[j] q[t]     dv[j] = sum_t p[j] dout[t].
//
// Layout   q, out, dout, dq: [T, heads * D]; k, v, dk, dv: [Tk, kv_heads * D]; column slices whose leading dimensions are
//          multiples of 8 elements. heads / kv_heads consecutive query heads share a key head. lse, delta: f32 [T, heads].
//          lo, hi: [T], the range of keys that a query attends to; qlo, qhi: [Tk], the inverse: the range of queries that
//          attend to a key. These arrays express causal masks, packed documents and sliding windows. D is 16, 32, 64, 96 or
//          128 (16 occurs only in models for tests).
//          A query without keys has out = 0, lse = -inf; a key without queries has dk = dv = 0.
// Rows     rows.count() queries and keys.count() keys are live; rows beyond are never read.
//
// Bound    Per unmasked (query, key, head), forward takes 4 D operations and backward 14 D in the two kernels below (10 D by
//          the usual count). Bound by mma.sync. No T x T matrix is stored.
//
// Rounding p and ds are rounded to elements before they are multiplied; everything else is f32 until the store.
// Order    Every sum runs over tiles in ascending order within one block, so every run gives the same bits. Separate kernels
//          compute dk, dv and dq: compared with one kernel that uses atomics, this costs two more products per tile, but it
//          is deterministic and needs no extra memory.
//
// A block visits the tiles from the smallest lo to the largest hi of its rows. Tiles without masked pairs skip the mask.
// Blocks that differ only in the head are adjacent in the grid, so that they share k and v in L2.
//
// Launch   kernel                 grid                                     threads  dynamic shared memory, D = 16, 32, 64, 96, 128
//          attention_D            (heads, ceil(rows.capacity / 128))               128  13312, 25600, 50176, 99328, 99328
//          attention_delta_D      (ceil(rows.capacity * heads / 8))                128  0
//          attention_dkdv_D       (kv_heads, ceil(keys.capacity / 64))             128  13312, 25600, 50176, 99328, 99328
//          attention_dq_D         (heads, ceil(rows.capacity / 64))                128  8192, 16384, 32768, 65536, 65536
//          In the backward pass, attention_delta_D runs before the other two kernels.

#include "mma.cuh"

constexpr int THREADS = 128, WARPS = THREADS / WARP;
// Keys per tile; in the backward pass, also queries per tile.
constexpr int TILE = 64;
constexpr float LOG2E = 1.4426950408889634f;
constexpr int FAR = 0x7fffffff;

__device__ inline float minus_infinity() { return __int_as_float(0xff800000); }

// Columns of a tile in shared memory: a power of two, as the swizzle requires.
template <int D> constexpr int PITCH = D == 96 ? 128 : D;
template <int D> constexpr int CHUNKS = PITCH<D> / PACK;

// ---- Masking ----------------------------------------------------------------------------------------------------------------

// The ranges lo .. hi of a block's rows, combined: first .. end is the smallest range that contains them all, and
// all_first .. all_end is their intersection, where no pair is masked.
struct Seen {
    int first, end;
    int all_first, all_end;
};

// Combines the ranges of ROWS <= THREADS rows from `row` on; rows from `live` on do not exist. Sets ranges[i] to the range
// of row + i. The result stays in shared memory to save registers.
template <int ROWS> __device__ inline const Seen& seen_by(const int* lo, const int* hi, int row, int live, int2* ranges) {
    __shared__ Seen of_warp[WARPS + 1];
    // Rows that do not exist have an empty range and do not force masking: their results are never stored.
    int2 own = make_int2(0, 0);
    Seen seen = {FAR, -FAR, -FAR, FAR};
    int i = threadIdx.x;
    if (i < ROWS && row + i < live) {
        own = make_int2(lo[row + i], max(lo[row + i], hi[row + i]));
        if (own.x < own.y) seen.first = own.x, seen.end = own.y;
        seen.all_first = own.x, seen.all_end = own.y;
    }
    if (i < ROWS) ranges[i] = own;
    auto unite = [&](const Seen& x) {
        seen.first = min(seen.first, x.first);
        seen.end = max(seen.end, x.end);
        seen.all_first = max(seen.all_first, x.all_first);
        seen.all_end = min(seen.all_end, x.all_end);
    };
    for (int step = WARP / 2; step > 0; step /= 2)
        unite({__shfl_xor_sync(0xffffffff, seen.first, step), __shfl_xor_sync(0xffffffff, seen.end, step),
               __shfl_xor_sync(0xffffffff, seen.all_first, step), __shfl_xor_sync(0xffffffff, seen.all_end, step)});
    if (i % WARP == 0) of_warp[i / WARP] = seen;
    __syncthreads();
    if (i == 0) {
        for (int warp = 1; warp < WARPS; warp++) unite(of_warp[warp]);
        of_warp[WARPS] = seen;
    }
    __syncthreads();
    return of_warp[WARPS];
}

// Whether no pair of the tile is masked.
__device__ inline bool whole(const Seen& seen, int tile) { return seen.all_first <= tile && tile + TILE <= seen.all_end; }

__device__ inline bool within(int2 range, int i) { return range.x <= i && i < range.y; }

// ---- Tiles --------------------------------------------------------------------------------------------------------------

// Stores a warp's (16 * ROWS) x D accumulators as elements at out.row(row); only the first `live` rows exist. They are staged
// in the warp's own rows of a tile in shared memory, so that whole sectors are written.
template <int D, int ROWS>
__device__ inline void store_rows(unsigned char* tile, int tile_row, const float (&sum)[ROWS][D / 8][4], Mat<elem> out, i64 row,
                                  int live) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<u32*>(tile + swizzled<CHUNKS<D>>(tile_row + i * 16 + half * 8 + g, j) + t * 4) =
                    narrow_pair(sum[i][j][half * 2], sum[i][j][half * 2 + 1]);
    __syncwarp();
    constexpr int STEP = WARP / CHUNKS<D>;
    int chunk = lane % CHUNKS<D>;
#pragma unroll
    for (int r = lane / CHUNKS<D>; r < ROWS * 16; r += STEP)
        if (r < live && chunk * PACK < D)
            *reinterpret_cast<uint4*>(out.row(row + r) + chunk * PACK) =
                *reinterpret_cast<const uint4*>(tile + swizzled<CHUNKS<D>>(tile_row + r, chunk));
}

// Converts two adjacent 16 x 8 accumulators to one 16 x 16 operand a: the fragment layouts match.
__device__ inline void as_operand(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = narrow_pair(left[0], left[1]);
    a[1] = narrow_pair(left[2], left[3]);
    a[2] = narrow_pair(right[0], right[1]);
    a[3] = narrow_pair(right[2], right[3]);
}

// ---- Forward --------------------------------------------------------------------------------------------------------------

// A block computes 128 queries of one head, a warp 32 of them. Shared memory holds q [128], two pipeline stages of k and v
// tiles, and the queries' ranges.
//
// Online softmax: out and l (the sum of exponentials) are kept relative to exp(m), where m is the largest score so far, and
// are rescaled when m grows.
template <int D>
__device__ inline void forward(Mat<elem> out, Mat<float> lse, Mat<const elem> q, Mat<const elem> k, Mat<const elem> v, const int* lo,
                               const int* hi, Rows rows, int heads, int kv_heads, float scale) {
    constexpr int QUERIES = 128, PARTS = QUERIES / WARPS / 16, BYTES = TILE * PITCH<D> * 2;
    extern __shared__ __align__(1024) unsigned char shared[];
    int2* ranges = reinterpret_cast<int2*>(shared + 6 * BYTES);
    u32 tile_q = shared_address(shared), ring = tile_q + 2 * BYTES;

    // With a causal mask, the last queries attend to the most keys. Their blocks start first, to balance the load.
    int head = blockIdx.x, row = (gridDim.y - 1 - blockIdx.y) * QUERIES, live = rows.count() - row;
    if (live <= 0) return;
    int kv_head = head / (heads / kv_heads);
    const Seen& seen = seen_by<QUERIES>(lo, hi, row, rows.count(), ranges);
    int end = seen.end;

    // Load
    TileCopy<QUERIES, PITCH<D>, THREADS>({q.row(row) + head * D, q.ld}).copy(tile_q, live, D);
    auto copy = [&](int tile, u32 to) {
        if (tile < end) {
            int col = recomputed(u32(kv_head)) * D;
            TileCopy<TILE, PITCH<D>, THREADS>({k.row(tile) + col, recomputed(k.ld)}).copy(to, end - tile, D);
            TileCopy<TILE, PITCH<D>, THREADS>({v.row(tile) + col, recomputed(v.ld)}).copy(to + BYTES, end - tile, D);
        }
        cp_async_commit();
    };
    copy(seen.first, ring);

    int warp_row = threadIdx.x / WARP * (QUERIES / WARPS), lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    u32 own_q = ldmatrix_row_a<CHUNKS<D>>(tile_q, warp_row, 0);
    float scale2 = scale * LOG2E;  // exp(scale * s) = exp2(scale2 * s)
    float sum[PARTS][D / 8][4] = {};
    float m[PARTS][2], l[PARTS][2];
#pragma unroll
    for (int i = 0; i < PARTS; i++) m[i][0] = m[i][1] = minus_infinity(), l[i][0] = l[i][1] = 0.0f;

    for (int tile = seen.first, turn = 0; tile < end; tile += TILE, turn ^= 1) {
        u32 lane_q = recomputed(own_q);
        u32 lane_k = ldmatrix_row_b_transposed<CHUNKS<D>>(ring + turn * 2 * BYTES, 0, 0);
        u32 lane_v = ldmatrix_row_b<CHUNKS<D>>(ring + turn * 2 * BYTES + BYTES, 0, 0);
        cp_async_wait<0>();
        __syncthreads();
        copy(tile + TILE, ring + (turn ^ 1) * 2 * BYTES);

        // Compute: scores
        float s[PARTS][TILE / 8][4] = {};
        // Not unrolled: the compiler would load more fragments ahead, and spill registers.
#pragma unroll 1
        for (int d = 0; d < D; d += 16) {
            u32 fq[PARTS][4];
#pragma unroll
            for (int i = 0; i < PARTS; i++) load_a<CHUNKS<D>>(fq[i], lane_q, i * 16, d);
#pragma unroll
            for (int j = 0; j < TILE / 16; j++) {
                u32 fk[4];
                load_b_transposed<CHUNKS<D>>(fk, lane_k, d, j * 16);
#pragma unroll
                for (int i = 0; i < PARTS; i++) {
                    mma_16816(s[i][j * 2], fq[i], fk[0], fk[1]);
                    mma_16816(s[i][j * 2 + 1], fq[i], fk[2], fk[3]);
                }
            }
        }
        if (!whole(seen, tile)) {
#pragma unroll
            for (int i = 0; i < PARTS; i++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int2 range = ranges[recomputed(u32(warp_row)) + i * 16 + half * 8 + g];
#pragma unroll
                    for (int j = 0; j < TILE / 8; j++)
#pragma unroll
                        for (int c = 0; c < 2; c++)
                            if (!within(range, tile + j * 8 + t * 2 + c)) s[i][j][half * 2 + c] = minus_infinity();
                }
        }

        // Compute: softmax
#pragma unroll
        for (int i = 0; i < PARTS; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float top = m[i][half];
#pragma unroll
                for (int j = 0; j < TILE / 8; j++) top = fmaxf(top, fmaxf(s[i][j][half * 2], s[i][j][half * 2 + 1]));
                // The four lanes of a group hold one row.
                top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
                top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
                // All scores are -inf so far: any finite reference avoids (-inf) - (-inf).
                float base = top == minus_infinity() ? 0.0f : top * scale2;
                float shrink = exp2_approx(m[i][half] * scale2 - base);
                m[i][half] = top;
                l[i][half] *= shrink;
#pragma unroll
                for (int j = 0; j < TILE / 8; j++)
#pragma unroll
                    for (int c = 0; c < 2; c++) {
                        float p = exp2_approx(s[i][j][half * 2 + c] * scale2 - base);
                        s[i][j][half * 2 + c] = p;
                        l[i][half] += p;
                    }
#pragma unroll
                for (int j = 0; j < D / 8; j++) sum[i][j][half * 2] *= shrink, sum[i][j][half * 2 + 1] *= shrink;
            }

        // Compute: output
#pragma unroll
        for (int key = 0; key < TILE; key += 16) {
            u32 fp[PARTS][4];
#pragma unroll
            for (int i = 0; i < PARTS; i++) as_operand(fp[i], s[i][key / 8], s[i][key / 8 + 1]);
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                u32 fv[4];
                load_b<CHUNKS<D>>(fv, lane_v, key, j * 16);
#pragma unroll
                for (int i = 0; i < PARTS; i++) {
                    mma_16816(sum[i][j * 2], fp[i], fv[0], fv[1]);
                    mma_16816(sum[i][j * 2 + 1], fp[i], fv[2], fv[3]);
                }
            }
        }
    }
    cp_async_wait<0>();

    // Store
#pragma unroll
    for (int i = 0; i < PARTS; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = l[i][half];
            total += __shfl_xor_sync(0xffffffff, total, 1);
            total += __shfl_xor_sync(0xffffffff, total, 2);
            float inverse = total == 0.0f ? 0.0f : 1.0f / total;
#pragma unroll
            for (int j = 0; j < D / 8; j++) sum[i][j][half * 2] *= inverse, sum[i][j][half * 2 + 1] *= inverse;
            int r = warp_row + i * 16 + half * 8 + g;
            if (t == 0 && r < live) lse.row(row + r)[head] = total == 0.0f ? minus_infinity() : m[i][half] * scale + logf(total);
        }
    out.at += head * D;
    store_rows<D, PARTS>(shared, warp_row, sum, out, row + warp_row, live - warp_row);
}

// ---- Backward: delta --------------------------------------------------------------------------------------------------------

// Half a warp per (query, head). Reads both matrices once: bound by memory.
template <int D> __device__ inline void row_delta(Mat<float> delta, Mat<const elem> out, Mat<const elem> dout, Rows rows, int heads) {
    constexpr int LANES = 16;
    i64 pair = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
    int lane = threadIdx.x % LANES;
    i64 row = pair / heads;
    int head = pair % heads;
    float sum = 0.0f;
    if (row < rows.count() && lane * PACK < D) {
        Pack a = load(out.row(row) + head * D + lane * PACK), b = load(dout.row(row) + head * D + lane * PACK);
#pragma unroll
        for (int i = 0; i < PACK; i++) sum += a.v[i] * b.v[i];
    }
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
    if (row < rows.count() && lane == 0) delta.row(row)[head] = sum;
}

// ---- Backward: keys and values ------------------------------------------------------------------------------------------------

// A block computes 64 keys of one key head, a warp 16 of them. It loops over the query heads that share the key head, and
// over the tiles of queries that attend to its keys. Scores are computed transposed, [keys, queries], so that each warp's p
// and ds are its own operands of the next products and stay in registers. Shared memory holds k and v [64], two pipeline
// stages of q and dout tiles with their lse and delta, and the keys' ranges.
template <int D>
__device__ inline void backward_keys(Mat<elem> dk, Mat<elem> dv, Mat<const elem> q, Mat<const elem> k, Mat<const elem> v,
                                     Mat<const elem> dout, Mat<const float> lse, Mat<const float> delta, const int* qlo, const int* qhi,
                                     Rows keys, int heads, int kv_heads, float scale) {
    constexpr int BYTES = TILE * PITCH<D> * 2;
    extern __shared__ __align__(1024) unsigned char shared[];
    // [2][lse, delta][64]
    float* statistics = reinterpret_cast<float*>(shared + 6 * BYTES);
    u32 tile_k = shared_address(shared), tile_v = tile_k + BYTES, ring = tile_k + 2 * BYTES;
    __shared__ int2 ranges[TILE];

    int kv_head = blockIdx.x, row = blockIdx.y * TILE, live = keys.count() - row, shared_by = heads / kv_heads;
    if (live <= 0) return;
    const Seen& seen = seen_by<TILE>(qlo, qhi, row, keys.count(), ranges);
    int tiles = seen.first < seen.end ? (seen.end - seen.first + TILE - 1) / TILE : 0;

    // Load
    k.at = k.row(row) + kv_head * D;
    v.at = v.row(row) + kv_head * D;
    TileCopy<TILE, PITCH<D>, THREADS>(k).copy(tile_k, live, D);
    TileCopy<TILE, PITCH<D>, THREADS>(v).copy(tile_v, live, D);
    auto copy = [&](int visit) {
        if (visit < tiles * shared_by) {
            int head = kv_head * shared_by + visit / tiles, first = seen.first + visit % tiles * TILE, left = seen.end - first;
            u32 to = ring + visit % 2 * 2 * BYTES;
            TileCopy<TILE, PITCH<D>, THREADS>({q.row(first) + head * D, recomputed(q.ld)}).copy(to, left, D);
            TileCopy<TILE, PITCH<D>, THREADS>({dout.row(first) + head * D, recomputed(dout.ld)}).copy(to + BYTES, left, D);
            int i = threadIdx.x % TILE;
            Mat<const float> from = threadIdx.x < TILE ? lse : delta;
            cp_async_4(shared_address(statistics) + (visit % 2 * THREADS + threadIdx.x) * 4, from.row(first + i) + head, i < left);
        }
        cp_async_commit();
    };
    copy(0);

    int warp_row = threadIdx.x / WARP * 16, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float scale2 = scale * LOG2E;
    u32 own_k = ldmatrix_row_a<CHUNKS<D>>(tile_k, warp_row, 0);
    float sum_k[1][D / 8][4] = {}, sum_v[1][D / 8][4] = {};
    int2 range[2] = {ranges[warp_row + g], ranges[warp_row + 8 + g]};

    for (int visit = 0; visit < tiles * shared_by; visit++) {
        int tile = seen.first + visit % tiles * TILE;
        u32 tile_q = ring + visit % 2 * 2 * BYTES;
        u32 lane_k = recomputed(own_k), lane_v = lane_k + BYTES;
        u32 columns_q = ldmatrix_row_b_transposed<CHUNKS<D>>(tile_q, 0, 0), columns_dout = columns_q + BYTES;
        u32 rows_q = ldmatrix_row_b<CHUNKS<D>>(tile_q, 0, 0), rows_dout = rows_q + BYTES;
        const float* tile_lse = statistics + visit % 2 * THREADS;
        const float* tile_delta = tile_lse + TILE;
        cp_async_wait<0>();
        __syncthreads();
        copy(visit + 1);

        // Compute: scores and the gradient of p, [keys, queries]
        float s[TILE / 8][4] = {}, dp[TILE / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            u32 fk[4], fv[4];
            load_a<CHUNKS<D>>(fk, lane_k, 0, d);
            load_a<CHUNKS<D>>(fv, lane_v, 0, d);
#pragma unroll
            for (int j = 0; j < TILE / 16; j++) {
                u32 fq[4], fdout[4];
                load_b_transposed<CHUNKS<D>>(fq, columns_q, d, j * 16);
                load_b_transposed<CHUNKS<D>>(fdout, columns_dout, d, j * 16);
                mma_16816(s[j * 2], fk, fq[0], fq[1]);
                mma_16816(s[j * 2 + 1], fk, fq[2], fq[3]);
                mma_16816(dp[j * 2], fv, fdout[0], fdout[1]);
                mma_16816(dp[j * 2 + 1], fv, fdout[2], fdout[3]);
            }
        }

        // Compute: p and ds
        bool all = whole(seen, tile);
#pragma unroll
        for (int j = 0; j < TILE / 8; j++) {
            float2 of_lse = *reinterpret_cast<const float2*>(tile_lse + j * 8 + t * 2);
            float2 of_delta = *reinterpret_cast<const float2*>(tile_delta + j * 8 + t * 2);
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float p = exp2_approx(s[j][c] * scale2 - (c % 2 ? of_lse.y : of_lse.x) * LOG2E);
                if (!all && !within(range[c / 2], tile + j * 8 + t * 2 + c % 2)) p = 0.0f;
                s[j][c] = p;
                dp[j][c] = p * (dp[j][c] - (c % 2 ? of_delta.y : of_delta.x));
            }
        }

        // Compute: gradients
#pragma unroll
        for (int query = 0; query < TILE; query += 16) {
            u32 fp[4], fds[4];
            as_operand(fp, s[query / 8], s[query / 8 + 1]);
            as_operand(fds, dp[query / 8], dp[query / 8 + 1]);
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                u32 fdout[4], fq[4];
                load_b<CHUNKS<D>>(fdout, rows_dout, query, j * 16);
                load_b<CHUNKS<D>>(fq, rows_q, query, j * 16);
                mma_16816(sum_v[0][j * 2], fp, fdout[0], fdout[1]);
                mma_16816(sum_v[0][j * 2 + 1], fp, fdout[2], fdout[3]);
                mma_16816(sum_k[0][j * 2], fds, fq[0], fq[1]);
                mma_16816(sum_k[0][j * 2 + 1], fds, fq[2], fq[3]);
            }
        }
    }
    cp_async_wait<0>();
    // If there were no tiles, copies of k and v by other threads may still be writing to the memory staged below.
    __syncthreads();

    // Store
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int c = 0; c < 4; c++) sum_k[0][j][c] *= scale;
    dk.at += kv_head * D;
    dv.at += kv_head * D;
    store_rows<D, 1>(shared, warp_row, sum_k, dk, row + warp_row, live - warp_row);
    store_rows<D, 1>(shared + BYTES, warp_row, sum_v, dv, row + warp_row, live - warp_row);
}

// ---- Backward: queries ------------------------------------------------------------------------------------------------------

// A block computes 64 queries of one head, a warp 16 of them, with their q and dout in registers. Shared memory holds two
// pipeline stages of k and v tiles; at the start, the second stage holds q and dout.
template <int D>
__device__ inline void backward_queries(Mat<elem> dq, Mat<const elem> q, Mat<const elem> k, Mat<const elem> v, Mat<const elem> dout,
                                        Mat<const float> lse, Mat<const float> delta, const int* lo, const int* hi, Rows rows, int heads,
                                        int kv_heads, float scale) {
    constexpr int BYTES = TILE * PITCH<D> * 2;
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ int2 ranges[TILE];
    u32 ring = shared_address(shared);

    int head = blockIdx.x, row = (gridDim.y - 1 - blockIdx.y) * TILE, live = rows.count() - row;
    if (live <= 0) return;
    int kv_head = head / (heads / kv_heads);
    const Seen& seen = seen_by<TILE>(lo, hi, row, rows.count(), ranges);
    int end = seen.end;

    // Load
    TileCopy<TILE, PITCH<D>, THREADS>({q.row(row) + head * D, q.ld}).copy(ring + 2 * BYTES, live, D);
    TileCopy<TILE, PITCH<D>, THREADS>({dout.row(row) + head * D, dout.ld}).copy(ring + 3 * BYTES, live, D);
    cp_async_commit();
    auto copy = [&](int tile, u32 to) {
        if (tile < end) {
            int col = recomputed(u32(kv_head)) * D;
            TileCopy<TILE, PITCH<D>, THREADS>({k.row(tile) + col, recomputed(k.ld)}).copy(to, end - tile, D);
            TileCopy<TILE, PITCH<D>, THREADS>({v.row(tile) + col, recomputed(v.ld)}).copy(to + BYTES, end - tile, D);
        }
        cp_async_commit();
    };
    copy(seen.first, ring);

    int warp_row = threadIdx.x / WARP * 16, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float scale2 = scale * LOG2E;
    cp_async_wait<1>();
    __syncthreads();
    u32 lane_q = ldmatrix_row_a<CHUNKS<D>>(ring + 2 * BYTES, warp_row, 0);
    u32 fq[D / 16][4], fdout[D / 16][4];
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        load_a<CHUNKS<D>>(fq[i], lane_q, 0, i * 16);
        load_a<CHUNKS<D>>(fdout[i], lane_q + BYTES, 0, i * 16);
    }
    float row_lse[2] = {}, row_delta[2] = {};
    int2 range[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int r = warp_row + half * 8 + g;
        range[half] = ranges[r];
        if (r < live) row_lse[half] = lse.row(row + r)[head] * LOG2E, row_delta[half] = delta.row(row + r)[head];
    }

    float sum[1][D / 8][4] = {};
    for (int tile = seen.first, turn = 0; tile < end; tile += TILE, turn ^= 1) {
        u32 tile_k = ring + turn * 2 * BYTES;
        u32 columns_k = ldmatrix_row_b_transposed<CHUNKS<D>>(tile_k, 0, 0), columns_v = columns_k + BYTES;
        u32 rows_k = ldmatrix_row_b<CHUNKS<D>>(tile_k, 0, 0);
        cp_async_wait<0>();
        __syncthreads();
        copy(tile + TILE, ring + (turn ^ 1) * 2 * BYTES);

        // Compute: scores and the gradient of p, [queries, keys]
        float s[TILE / 8][4] = {}, dp[TILE / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D; d += 16)
#pragma unroll
            for (int j = 0; j < TILE / 16; j++) {
                u32 fk[4], fv[4];
                load_b_transposed<CHUNKS<D>>(fk, columns_k, d, j * 16);
                load_b_transposed<CHUNKS<D>>(fv, columns_v, d, j * 16);
                mma_16816(s[j * 2], fq[d / 16], fk[0], fk[1]);
                mma_16816(s[j * 2 + 1], fq[d / 16], fk[2], fk[3]);
                mma_16816(dp[j * 2], fdout[d / 16], fv[0], fv[1]);
                mma_16816(dp[j * 2 + 1], fdout[d / 16], fv[2], fv[3]);
            }

        // Compute: ds
        bool all = whole(seen, tile);
#pragma unroll
        for (int j = 0; j < TILE / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float p = exp2_approx(s[j][c] * scale2 - row_lse[c / 2]);
                if (!all && !within(range[c / 2], tile + j * 8 + t * 2 + c % 2)) p = 0.0f;
                dp[j][c] = p * (dp[j][c] - row_delta[c / 2]);
            }

        // Compute: gradient
#pragma unroll
        for (int key = 0; key < TILE; key += 16) {
            u32 fds[4];
            as_operand(fds, dp[key / 8], dp[key / 8 + 1]);
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                u32 fk[4];
                load_b<CHUNKS<D>>(fk, rows_k, key, j * 16);
                mma_16816(sum[0][j * 2], fds, fk[0], fk[1]);
                mma_16816(sum[0][j * 2 + 1], fds, fk[2], fk[3]);
            }
        }
    }
    cp_async_wait<0>();
    // The stores below reuse the pipeline's shared memory.
    __syncthreads();

    // Store
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int c = 0; c < 4; c++) sum[0][j][c] *= scale;
    dq.at += head * D;
    store_rows<D, 1>(shared, warp_row, sum, dq, row + warp_row, live - warp_row);
}

// ---- Kernels ----------------------------------------------------------------------------------------------------------------

#define ATTENTION(D)                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                           \
        attention_##D(Mat<elem> out, Mat<float> lse, Mat<const elem> q, Mat<const elem> k, Mat<const elem> v, const int* lo,           \
                      const int* hi, Rows rows, int heads, int kv_heads, float scale) {                                                \
        forward<D>(out, lse, q, k, v, lo, hi, rows, heads, kv_heads, scale);                                                           \
    }                                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                              \
        attention_delta_##D(Mat<float> delta, Mat<const elem> out, Mat<const elem> dout, Rows rows, int heads) {                       \
        row_delta<D>(delta, out, dout, rows, heads);                                                                                   \
    }                                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                           \
        attention_dkdv_##D(Mat<elem> dk, Mat<elem> dv, Mat<const elem> q, Mat<const elem> k, Mat<const elem> v, Mat<const elem> dout,  \
                           Mat<const float> lse, Mat<const float> delta, const int* qlo, const int* qhi, Rows keys, int heads,         \
                           int kv_heads, float scale) {                                                                                \
        backward_keys<D>(dk, dv, q, k, v, dout, lse, delta, qlo, qhi, keys, heads, kv_heads, scale);                                   \
    }                                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                           \
        attention_dq_##D(Mat<elem> dq, Mat<const elem> q, Mat<const elem> k, Mat<const elem> v, Mat<const elem> dout,                  \
                         Mat<const float> lse, Mat<const float> delta, const int* lo, const int* hi, Rows rows, int heads,             \
                         int kv_heads, float scale) {                                                                                  \
        backward_queries<D>(dq, q, k, v, dout, lse, delta, lo, hi, rows, heads, kv_heads, scale);                                      \
    }
ATTENTION(16)
ATTENTION(32)
ATTENTION(64)
ATTENTION(96)
ATTENTION(128)
