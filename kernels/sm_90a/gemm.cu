// Matrix products on Hopper: out = plus + scale * (product + term), as in ../gemm.cu, for n > 64 and k > 64.
//
//     nt   out[m,n] = a[m,k] * b[n,k]^T                 y  = x * W^T      b is a weight
//     nn   out[m,n] = a[m,k] * b[k,n]                   dx = dy * W       b is a weight
//
// The term is an adapter's product of depth `ranks` (0: no term). Its k16 steps follow those of the product, from its own tensor
// maps, which are encoded alike: term_a like a, term_b like b.
//
// All other products (tn, and x * A^T or dy * B of adapters) use the sm_80 kernels. Form, n and k decide which kernel serves a product, but the
// number of rows does not: wgmma may sum 16 terms in a different order than mma.sync, so the results may differ in bits. Each
// output is one chain of k16 steps in ascending order, rounded once at the store. So all tiles below give the same bits, and the
// host chooses the fastest.
//
// Layout   a, b, out, plus, offsets, groups and rows are as in ../gemm.cu. The host encodes a tensor map of a, one of b (3
//          dimensions, groups last) and, if `boxes` is set, one of out. Maps cover the capacity instead of the live rows, because a
//          captured graph keeps its maps. Boxes, innermost dimension first: a 64 x 128; b 64 x BN / 2 x 1 in nt and 64 x 64 x 1 in
//          nn; out 64 x 64. All boxes have 128-byte swizzle.
// Rows     Rows of a beyond rows.count() are read but do not matter: a row of out depends only on its own row of a. Rows of out
//          beyond rows.count(), or beyond the group, are never written.
// Bound    2mnk operations on mk + nk + mn elements: tensor cores, and the power limit of an H200.
//
// A block has one warpgroup that loads, with a single thread, and two that multiply, each 64 x BN of a tile of 128 x BN. Slices of
// 64 in k pass through a ring of STAGES slots. `full` barriers count the loaded bytes, `empty` barriers count the warps that have
// read a slot. The ring does not drain between tiles: the next tile is loaded while a tile is stored. Two blocks can form a
// cluster: their tiles are adjacent in m and share b, and each block loads one half of b for both.
//
// Blocks are persistent: each computes every gridDim-th tile. Within a group, tiles are ordered in bands of 2048 rows, so that the
// operands of all running blocks fit into L2.
//
// Launch   grid min(multiprocessors, tiles), a multiple of CLUSTER; 384 threads; dynamic shared memory in bytes:
//
//          kernel                BN  STAGES  CLUSTER   bytes   serves
//          gemm_<form>_256x2    256       4        2  230464   many rows
//          gemm_<form>_256      256       4        1  230464   groups
//          gemm_<form>_192      192       4        1  197696   fewer tiles: see Tile::of in src/device/cuda/sm_90a/gemm.rs
//          gemm_<form>_128      128       6        1  230496   fewer tiles

#include "wgmma.cuh"

enum Form { NT, NN };

constexpr int BM = 128, BK = 64, WARPGROUP = 128, THREADS = 3 * WARPGROUP;
constexpr int BOX = 64 * 64 * 2;  // bytes of 64 rows of 128 bytes
constexpr int SLOTS = 2;          // boxes of staging memory per warpgroup

template <int WIDTH, int RING, int BLOCKS> struct Shape {
    static constexpr int BN = WIDTH, STAGES = RING, CLUSTER = BLOCKS;
    static constexpr int SLICE_A = BM * BK * 2, SLICE_B = BN * BK * 2, SLICE = SLICE_A + SLICE_B;
    static constexpr int BAND = 2048 / (CLUSTER * BM);
};

// ---- The order of tiles -------------------------------------------------------------------------------------------------

// The first row and column of a tile, the end of its group's rows, and the group.
struct Tile {
    int row, col, end, group;
};

// Iterates over the tiles in ascending units. A unit is CLUSTER tiles that are adjacent in m.
template <class S> struct Walk {
    const int* offsets;
    int groups, cols;  // cols: number of tiles in n
    int begin, end;    // rows of the group
    int group, before; // units of earlier groups

    __device__ Walk(const int* offsets, int groups, Rows rows, int n) : offsets(offsets), groups(groups), cols((n + S::BN - 1) / S::BN) {
        group = before = begin = 0;
        end = offsets == nullptr ? rows.count() : offsets[1];
        if (offsets != nullptr) begin = offsets[0];
    }
    __device__ int height() const { return (end - begin + S::CLUSTER * BM - 1) / (S::CLUSTER * BM); }

    // The tile of block `rank` in `unit`; false if there is none.
    __device__ bool find(int unit, int rank, Tile& tile) {
        while (unit - before >= height() * cols) {
            before += height() * cols;
            if (++group >= groups) return false;
            begin = end, end = offsets[group + 1];
        }
        int within = unit - before, band = within / (S::BAND * cols) * S::BAND, place = within % (S::BAND * cols);
        int rows = min(S::BAND, height() - band);
        tile = {begin + ((band + place % rows) * S::CLUSTER + rank) * BM, place / rows * S::BN, end, group};
        return true;
    }
};

// ---- The ring -----------------------------------------------------------------------------------------------------------

// Position in the ring: the slot, and the parity of its barriers' phase.
template <class S> struct Place {
    int slot = 0;
    u32 parity = 0;
    __device__ void next() {
        if (++slot == S::STAGES) slot = 0, parity ^= 1;
    }
};

// Shared-memory addresses of the ring.
template <class S> struct Ring {
    static constexpr int STAGING = 2 * SLOTS * BOX, BYTES = 1024 + S::STAGES * (S::SLICE + 16) + STAGING;
    u32 base;
    __device__ u32 a(int slot) const { return base + slot * S::SLICE; }
    __device__ u32 b(int slot) const { return a(slot) + S::SLICE_A; }
    __device__ u32 staging(int warpgroup) const { return base + S::STAGES * S::SLICE + warpgroup * SLOTS * BOX; }
    __device__ u32 full(int slot) const { return base + S::STAGES * S::SLICE + STAGING + slot * 8; }
    __device__ u32 empty(int slot) const { return full(S::STAGES + slot); }
};

// ---- Load ---------------------------------------------------------------------------------------------------------------

// Tensor maps of the operands of a product, and its depth.
struct Factors {
    const TensorMap &a, &b;
    int k;
};

// Loads the slices of a tile's product. Called by one thread.
template <Form FORM, class S> __device__ inline void load_slices(Ring<S> ring, Place<S>& place, const Factors& of, Tile tile, int rank) {
    constexpr unsigned short BOTH = 3;
    constexpr int BOX_B = FORM == NT ? S::SLICE_B / 2 : BOX, BOXES = S::SLICE_B / BOX_B;
    static_assert(BOXES % S::CLUSTER == 0, "each block of a cluster loads as many boxes of b");
#pragma unroll 1
    for (int at = 0; at < of.k; at += BK, place.next()) {
        mbarrier_wait(ring.empty(place.slot), place.parity ^ 1);
        u32 full = ring.full(place.slot);
        // In a cluster, this includes the half of b that the other block loads.
        mbarrier_expect(full, S::SLICE);
        tma_load(ring.a(place.slot), of.a, at, tile.row, full);
#pragma unroll
        for (int i = 0; i < BOXES / S::CLUSTER; i++) {
            int box = rank * (BOXES / S::CLUSTER) + i;
            u32 to = ring.b(place.slot) + box * BOX_B;
            int x = FORM == NT ? at : tile.col + box * 64, y = FORM == NT ? tile.col + box * (S::BN / 2) : at;
            if constexpr (S::CLUSTER == 1) tma_load(to, of.b, x, y, tile.group, full);
            else tma_load_multicast(to, of.b, x, y, tile.group, full, BOTH);
        }
    }
}

// Loads the slices of all tiles of this block. Called by one thread.
template <Form FORM, class S>
__device__ inline void load_tiles(Ring<S> ring, const Factors& product, const Factors& term, Walk<S> walk, int rank) {
    Place<S> place;
    Tile tile;
    for (int unit = blockIdx.x / S::CLUSTER; walk.find(unit, rank, tile); unit += gridDim.x / S::CLUSTER) {
        load_slices<FORM>(ring, place, product, tile, rank);
        load_slices<FORM>(ring, place, term, tile, rank);
    }
}

// ---- Store --------------------------------------------------------------------------------------------------------------

// The epilogue's parameters. Both ways to store a tile give the same bits.
struct Target {
    F32OrElem out, plus;
    float scale;
    int n;

    __device__ float of(float sum) const { return scale * sum; }
    __device__ float of(float sum, float add) const { return __fmaf_rn(scale, sum, add); }
};

// Rounds and stores the 64 x BN sums of a warpgroup with the copy engine. Boxes of 64 columns alternate between the SLOTS of the
// staging memory, so that one is written while the other is copied out. All 64 rows must exist; the map clips columns beyond n.
template <class S>
__device__ inline void store_boxes(const float (&sum)[S::BN / 2], const TensorMap& map, u32 staging, int barrier, const Target& target,
                                   int row, int col) {
    int lane = threadIdx.x % WARP, line = threadIdx.x / WARP % 4 * 16 + lane % 16;
    bool one = threadIdx.x % WARPGROUP == 0;
#pragma unroll
    for (int box = 0; box < S::BN / 64; box++) {
        u32 slot = staging + box % SLOTS * BOX;
        // The previous tile's last box may be in either slot, so the first box waits for all reads.
        if (one) box == 0 ? tma_store_wait_read<0>() : tma_store_wait_read<SLOTS - 1>();
        warpgroup_sync(barrier);
        auto pair = [&](int i) { return narrow_pair(target.of(sum[box * 32 + 2 * i]), target.of(sum[box * 32 + 2 * i + 1])); };
#pragma unroll
        for (int j = 0; j < 4; j++)
            stmatrix_x4(slot + swizzled<8>(line, 2 * j + lane / 16), pair(4 * j), pair(4 * j + 1), pair(4 * j + 2), pair(4 * j + 3));
        fence_proxy_async();
        warpgroup_sync(barrier);
        if (one) tma_store(map, slot, col + box * 64, row);
    }
}

// Whether all packs of an operand start at multiples of 16 bytes. True for an absent operand.
__device__ inline bool aligned(F32OrElem m) { return (u64(m.at) % 16 | u64(m.ld) % PACK) == 0; }

// Loads or stores eight columns of one row, of which the first `cols` exist.
__device__ inline Pack load_some(F32OrElem m, i64 row, int col, int cols, bool whole) {
    Pack pack = {};
    i64 at = row * m.ld + col;
    if (whole && m.is_f32) {
        const float4* p = reinterpret_cast<const float4*>(static_cast<const float*>(m.at) + at);
        float4 low = p[0], high = p[1];
        return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    }
    if (whole) return load(static_cast<const elem*>(m.at) + at);
#pragma unroll
    for (int i = 0; i < PACK; i++)
        if (i < cols) pack.v[i] = load(m, row, col + i);
    return pack;
}
__device__ inline void store_some(F32OrElem m, i64 row, int col, int cols, bool whole, const Pack& pack) {
    i64 at = row * m.ld + col;
    if (whole && m.is_f32) {
        float4* p = reinterpret_cast<float4*>(static_cast<float*>(m.at) + at);
        p[0] = make_float4(pack.v[0], pack.v[1], pack.v[2], pack.v[3]), p[1] = make_float4(pack.v[4], pack.v[5], pack.v[6], pack.v[7]);
    } else if (whole) {
        store(static_cast<elem*>(m.at) + at, pack);
    } else {
#pragma unroll
        for (int i = 0; i < PACK; i++)
            if (i < cols) store(m, row, col + i, pack.v[i]);
    }
}

// Stores the sums with ordinary stores: f32 results, products with plus, partial tiles, and results that have no map. The sums pass
// through the staging memory as f32, 64 columns at a time. Each warp handles its own 16 rows, with eight lanes per row.
template <class S>
__device__ inline void store_packs(const float (&sum)[S::BN / 2], u32 staging, int barrier, const Target& target, int row, int col,
                                   int end) {
    extern __shared__ unsigned char shared[];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP % 4, g = lane / 4, t = lane % 4;
    float* staged = reinterpret_cast<float*>(shared + (staging - shared_address(shared))) + warp * 16 * 64;
    // Swizzles pieces of 16 bytes within each row, so that the 8 rows of a fragment are in different banks.
    auto piece = [&](int r, int c) { return staged + r * 64 + (c ^ r % 8) * 4; };
    if (threadIdx.x % WARPGROUP == 0) tma_store_wait_read<0>();
    warpgroup_sync(barrier);
    bool packs = aligned(target.out) && aligned(target.plus), added = target.plus.at != nullptr;
#pragma unroll
    for (int box = 0; box < S::BN / 64; box++) {
#pragma unroll
        for (int i = 0; i < 16; i++) {
            float* to = piece(g + i % 2 * 8, i / 2 * 2 + t / 2) + t % 2 * 2;
            *reinterpret_cast<float2*>(to) = make_float2(sum[box * 32 + 2 * i], sum[box * 32 + 2 * i + 1]);
        }
        __syncwarp();
        int c = lane % 8, at = col + box * 64 + c * PACK, cols = target.n - at;
        bool whole = packs && cols >= PACK;
#pragma unroll 1
        for (int r = lane / 8; r < 16; r += 4) {
            i64 to = row + warp * 16 + r;
            if (to >= end || cols <= 0) break;
            Pack add = {};
            if (added) add = load_some(target.plus, to, at, cols, whole);
            float4 low = *reinterpret_cast<float4*>(piece(r, 2 * c)), high = *reinterpret_cast<float4*>(piece(r, 2 * c + 1));
            Pack x = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
            for (int i = 0; i < PACK; i++) x.v[i] = added ? target.of(x.v[i], add.v[i]) : target.of(x.v[i]);
            store_some(target.out, to, at, cols, whole, x);
        }
        __syncwarp();
    }
}

// ---- Multiply -----------------------------------------------------------------------------------------------------------

// Multiplies and stores rows 64 * warpgroup .. + 63 of all tiles of this block. Called by both computing warpgroups.
template <Form FORM, class S>
__device__ inline void multiply_tiles(Ring<S> ring, const TensorMap& out, bool boxes, const Target& target, Walk<S> walk, int rank,
                                      int k, int ranks) {
    constexpr int STEP_B = FORM == NT ? STEP_K_MAJOR : STEP_MN_MAJOR;
    int warpgroup = threadIdx.x / WARPGROUP - 1, lane = threadIdx.x % WARP;
    auto release = [&](int slot) {
        if (lane < S::CLUSTER) mbarrier_arrive(ring.empty(slot), lane);
    };
    // Defined once before the loop, because the first wgmma of a tile overwrites it (keep = 0). If it were cleared for each tile,
    // ptxas would serialize the wgmma.
    float sum[S::BN / 2] = {};
    Place<S> place;
    Tile tile;
    for (int unit = blockIdx.x / S::CLUSTER; walk.find(unit, rank, tile); unit += gridDim.x / S::CLUSTER) {
        int last = 0;
        // Unrolling does not make it faster, and ptxas would take minutes.
#pragma unroll 1
        for (int at = 0; at < k; at += BK, place.next()) {
            mbarrier_wait(ring.full(place.slot), place.parity);
            u64 a = k_major(ring.a(place.slot) + warpgroup * BOX);
            u64 b = FORM == NT ? k_major(ring.b(place.slot)) : mn_major(ring.b(place.slot));
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < BK / 16; i++) wgmma<FORM == NN>(sum, a + i * STEP_K_MAJOR, b + i * STEP_B, at | i);
            wgmma_commit();
            if (at > 0) {
                wgmma_wait<1>();
                release(last);
            }
            last = place.slot;
        }
        // The term. A loop of its own: a branch in the one above would make all products slower.
#pragma unroll 1
        for (int left = ranks; left > 0; left -= BK, place.next()) {
            mbarrier_wait(ring.full(place.slot), place.parity);
            u64 a = k_major(ring.a(place.slot) + warpgroup * BOX);
            u64 b = FORM == NT ? k_major(ring.b(place.slot)) : mn_major(ring.b(place.slot));
            wgmma_fence();
#pragma unroll 1
            for (int i = 0; i < min(left, BK); i += 16, a += STEP_K_MAJOR, b += STEP_B) wgmma<FORM == NN>(sum, a, b, 1);
            wgmma_commit();
            wgmma_wait<1>();
            release(last);
            last = place.slot;
        }
        wgmma_wait_for<0>(sum);
        release(last);

        int row = tile.row + warpgroup * 64;
        if (boxes && row + 64 <= tile.end) store_boxes<S>(sum, out, ring.staging(warpgroup), 1 + warpgroup, target, row, tile.col);
        else store_packs<S>(sum, ring.staging(warpgroup), 1 + warpgroup, target, row, tile.col, tile.end);
    }
    if (threadIdx.x % WARPGROUP == 0) tma_store_wait();
}

template <Form FORM, class S>
__device__ inline void gemm(const Factors& product, const Factors& term, const TensorMap& out, int boxes, const Target& target,
                            Rows rows, const int* offsets, int groups) {
    extern __shared__ unsigned char shared[];
    // Swizzle atoms must start at multiples of 1024 bytes.
    Ring<S> ring = {(shared_address(shared) + 1023) & ~1023u};
    int rank = blockIdx.x % S::CLUSTER;
    if (threadIdx.x == 0) {
        for (int slot = 0; slot < S::STAGES; slot++) {
            mbarrier_init(ring.full(slot), 1);
            mbarrier_init(ring.empty(slot), S::CLUSTER * 2 * WARPGROUP / WARP);
        }
        fence_mbarrier_init();
        prefetch_tensormap(product.a), prefetch_tensormap(product.b);
        if (term.k > 0) prefetch_tensormap(term.a), prefetch_tensormap(term.b);
        if (boxes) prefetch_tensormap(out);
    }
    cluster_sync();
    Walk<S> walk(offsets, groups, rows, target.n);
    // 128 * 40 + 256 * 232 registers, of 65536.
    if (threadIdx.x < WARPGROUP) {
        setmaxnreg_dec<40>();
        if (threadIdx.x == 0) load_tiles<FORM>(ring, product, term, walk, rank);
    } else {
        setmaxnreg_inc<232>();
        multiply_tiles<FORM>(ring, out, boxes, target, walk, rank, product.k, term.k);
    }
    // A block must not exit while the other one still writes to its memory or uses its barriers.
    __syncwarp();
    cluster_sync();
}

// ---- Kernels: gemm_<form>_<BN>[x<CLUSTER>] ------------------------------------------------------------------------------

// Single blocks have no cluster attribute, because even a cluster of one makes a launch up to 15 % slower.
#define PAIRS __cluster_dims__(2, 1, 1)
#define GEMM(form, FORM, shape, BN, STAGES, CLUSTER, DIMENSIONS)                                                               \
    extern "C" __global__ void DIMENSIONS __launch_bounds__(THREADS, 1)                                                        \
        gemm_##form##_##shape(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,                        \
                              const __grid_constant__ TensorMap term_a, const __grid_constant__ TensorMap term_b,              \
                              const __grid_constant__ TensorMap map, int boxes, F32OrElem out, F32OrElem plus, Rows rows,      \
                              int n, int k, int ranks, float scale, const int* offsets, int groups) {                          \
        gemm<FORM, Shape<BN, STAGES, CLUSTER>>({a, b, k}, {term_a, term_b, ranks}, map, boxes, {out, plus, scale, n}, rows,    \
                                               offsets, groups);                                                               \
    }
GEMM(nt, NT, 256x2, 256, 4, 2, PAIRS)
GEMM(nt, NT, 256, 256, 4, 1, )
GEMM(nt, NT, 192, 192, 4, 1, )
GEMM(nt, NT, 128, 128, 6, 1, )
GEMM(nn, NN, 256x2, 256, 4, 2, PAIRS)
GEMM(nn, NN, 256, 256, 4, 1, )
GEMM(nn, NN, 192, 192, 4, 1, )
GEMM(nn, NN, 128, 128, 6, 1, )
