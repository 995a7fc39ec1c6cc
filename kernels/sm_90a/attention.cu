// Attention on Hopper for heads of 64 and 128 elements. Formulas, layouts and rounding are those of ../attention.cu; products run
// on wgmma, and the copy engine loads the tiles.
//
// Blocks are persistent. A job is 128 rows of one head: queries (forward, dq) or keys (dk and dv). One warp loads, and two
// warpgroups compute 64 rows each, while tiles of the other side stream through a ring. p and ds stay in registers, because the
// accumulators of one product have the layout of operand a of the next.
//
// Tiles    The last tile of a job ends at the largest hi of its rows, and the others descend from there to the smallest lo. So no
//          tile extends beyond the live rows, where a NaN could be multiplied by a p or ds of zero. Up to 127 rows below the
//          smallest lo are multiplied by zero, so they must be finite; rows below 0 are loaded as zeros. A tile that is fully
//          visible to all 64 rows of a warpgroup needs no mask.
// Jobs     The first job of a block has the block's number, and a global counter gives out the others, so blocks with small jobs
//          compute more of them. The result does not depend on which block computes a job. Jobs of the same rows and different
//          heads have consecutive numbers, so they find k and v in L2. The largest jobs of a causal document come first. dk, dv
//          and dq share a kernel: blocks without a job of keys already compute queries while the last jobs of keys run.
//
// Bound    wgmma. 4 D operations for each visible (query, key, head) forward, and 14 D backward (10 D as usually counted).
// Order    One warpgroup computes each sum, over tiles in descending order, and head by head for dk and dv. So every run gives the
//          same bits.
//
// Launch   kernel           grid: min(multiprocessors, jobs)                                    threads  dynamic shared memory
//          attention_D      jobs: heads * ceil(rows.capacity / 128)                                 384      1792 D
//          attention_bwd_D  jobs: these and kv_heads * ceil(keys.capacity / 128)                    384      1792 D
//          attention_delta_D of ../attention.cu computes delta before attention_bwd_D. Maps have boxes of 64 rows x 64 elements
//          and cover all rows of a buffer, live or not. Launches of one module must not overlap, because they share counters.

#include "wgmma.cuh"

constexpr int GROUP = 128, THREADS = 3 * GROUP;  // threads of a warpgroup; one loads, two compute
constexpr int HALF = 64, BLOCK = 2 * HALF;       // rows of a warpgroup; rows of a job
constexpr int BOX = 64 * 128;                    // bytes of a box: 64 rows of 64 elements
constexpr float LOG2E = 1.4426950408889634f;
constexpr int FAR = 1 << 30;

__device__ inline float minus_infinity() { return __int_as_float(0xff800000); }

// ---- Jobs ------------------------------------------------------------------------------------------------------------------

// The visible range of several rows: first .. end is the smallest range that contains all of theirs, and all_first .. all_end is
// the part that all of them see.
struct Seen {
    int first, end;
    int all_first, all_end;
    __device__ bool some_of(int tile, int size) const { return tile < end && first < tile + size; }
    __device__ bool all_of(int tile, int size) const { return all_first <= tile && tile + size <= all_end; }
};

// Computes it for 64 rows from `row` on. Rows from `live` on do not exist. Called by a whole warp.
__device__ inline Seen seen_by(const int* lo, const int* hi, int row, int live) {
    // Rows that do not exist see nothing. They need no mask because they are never stored.
    Seen seen = {FAR, -FAR, -FAR, FAR};
#pragma unroll
    for (int i = 0; i < HALF; i += WARP) {
        int r = row + i + threadIdx.x % WARP;
        if (r < live) {
            int from = lo[r], to = max(from, hi[r]);
            if (from < to) seen.first = min(seen.first, from), seen.end = max(seen.end, to);
            seen.all_first = max(seen.all_first, from);
            seen.all_end = min(seen.all_end, to);
        }
    }
    seen.first = __reduce_min_sync(0xffffffff, seen.first);
    seen.end = __reduce_max_sync(0xffffffff, seen.end);
    seen.all_first = __reduce_max_sync(0xffffffff, seen.all_first);
    seen.all_end = __reduce_min_sync(0xffffffff, seen.all_end);
    return seen;
}

// 128 rows of one head.
struct Job {
    int head;
    int row;     // the first row; -1: no more jobs
    Seen by[2];  // the visible range of each half of the rows
    __device__ int end() const { return max(by[0].end, by[1].end); }
    // Tiles of `size` rows, the last of which ends at end().
    __device__ int tiles(int size) const {
        int first = min(by[0].first, by[1].first);
        return first < end() ? (end() - first + size - 1) / size : 0;
    }
};

// Number of requests for another job, for the forward and the backward kernel.
__device__ int asked[2];

// Returns the number of the next job; there is none if it is `jobs` or more. There is one request per job, so the last request
// resets the counter for the next launch.
__device__ inline int next_job(int kernel, int jobs) {
    int taken = 0;
    if (threadIdx.x % WARP == 0) {
        taken = atomicAdd(&asked[kernel], 1);
        if (taken == jobs - 1) asked[kernel] = 0;
    }
    return grid_blocks() + __shfl_sync(0xffffffff, taken, 0);
}

// ---- Shared memory ---------------------------------------------------------------------------------------------------------

// A ring of slots between producer and consumers, which visit them in the same order. Each slot has two barriers.
template <int SLOTS> struct Ring {
    u32 barriers;
    int slot;
    u32 phase;
    __device__ explicit Ring(u32 barriers) : barriers(barriers), slot(0), phase(0) {}
    __device__ u32 full() const { return barriers + slot * 16; }
    __device__ u32 empty() const { return full() + 8; }
    __device__ void wait_full() const { mbarrier_wait(full(), phase); }
    __device__ void wait_empty() const { mbarrier_wait(empty(), phase ^ 1); }
    __device__ void next() {
        if (++slot == SLOTS) slot = 0, phase ^= 1;
    }
};

// Shared memory: for each of JOBS concurrent jobs, OWN tiles of its 128 rows; SLOTS slots of SLOT bytes for the streamed tiles; and
// staging memory for the results of each computing warp.
template <int D, int OWN, int JOBS, int SLOTS, int SLOT> struct Layout {
    static constexpr int TILE = BLOCK * D * 2, STAGING = 16 * D * 2;
    static constexpr int STREAM = JOBS * OWN * TILE, STORES = STREAM + SLOTS * SLOT, BYTES = STORES + 8 * STAGING;

    __device__ static u32 base() {
        extern __shared__ __align__(1024) unsigned char shared[];
        return shared_address(shared);
    }
    __device__ static u32 own(int job, int i) { return base() + (job * OWN + i) * TILE; }
    __device__ static u32 slot(int i) { return base() + STREAM + i * SLOT; }
    __device__ static u32 staging() { return base() + STORES + (threadIdx.x - GROUP) / WARP * STAGING; }
    __device__ static Job& job(int i) {
        __shared__ Job told[JOBS];
        return told[i];
    }
    // Two barriers per job, two per slot, and one for the own tiles of each job.
    __device__ static u32 barriers() {
        __shared__ u64 all[3 * JOBS + 2 * SLOTS];
        return shared_address(all);
    }
    __device__ static Ring<JOBS> jobs() { return Ring<JOBS>(barriers()); }
    __device__ static Ring<SLOTS> stream() { return Ring<SLOTS>(barriers() + JOBS * 16); }
    __device__ static u32 own_full(int job) { return barriers() + (JOBS + SLOTS) * 16 + job * 8; }

    // Live rows of the jobs' side. In shared memory, to save registers.
    __device__ static int& live() {
        __shared__ int count;
        return count;
    }
    // Number of jobs for this number of heads.
    __device__ static int count(int heads) { return (live() + BLOCK - 1) / BLOCK * heads; }

    // `copies` threads fill a slot in addition to the copy engine; `readers` warps read each job.
    __device__ static void init(const Rows& rows, int copies, int readers) {
        if (threadIdx.x == 0) {
            live() = rows.count();
            for (int i = 0; i < JOBS + SLOTS; i++) {
                mbarrier_init(barriers() + i * 16, i < JOBS ? 1 : 1 + copies);
                mbarrier_init(barriers() + i * 16 + 8, i < JOBS ? readers : 8);
            }
            for (int i = 0; i < JOBS; i++) mbarrier_init(own_full(i), 1);
            fence_mbarrier_init();
        }
        __syncthreads();
    }
    // Passes a job to the other warps, after they have finished the previous job in the slot.
    __device__ static void announce(const Ring<JOBS>& jobs, const Job& next) {
        jobs.wait_empty();
        if (threadIdx.x == 0) {
            job(jobs.slot) = next;
            mbarrier_arrive(jobs.full());
        }
    }
};

// Arrives once for the warp, after all of its lanes.
__device__ inline void release(u32 bar) {
    __syncwarp();
    if (threadIdx.x % WARP == 0) mbarrier_arrive(bar);
}

// Loads ROWS x D elements as D / 64 consecutive columns of boxes.
template <int D, int ROWS> __device__ inline void load_tile(u32 to, const TensorMap& map, int col, int row, u32 bar) {
#pragma unroll
    for (int c = 0; c < D / 64; c++)
#pragma unroll
        for (int r = 0; r < ROWS / 64; r++) tma_load(to + (c * (ROWS / 64) + r) * BOX, map, col + c * 64, row + r * 64, bar);
}

// Fills the next slot with ROWS x D elements.
template <int D, int ROWS, class Shared, class Stream>
__device__ inline void stream_tile(Stream& stream, const TensorMap& map, int col, int row) {
    stream.wait_empty();
    if (threadIdx.x == 0) {
        mbarrier_expect(stream.full(), ROWS * D * 2);
        load_tile<D, ROWS>(Shared::slot(stream.slot), map, col, row, stream.full());
    }
    stream.next();
}

// ---- Products of a warpgroup -----------------------------------------------------------------------------------------------

// s[64, N] = a * b^T over D elements. a is 64 rows of a tile of 128, b is a tile of N rows.
template <int D, int N> __device__ inline void scores(float (&s)[N / 2], u32 a, u32 b) {
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        wgmma<false>(s, k_major(a + i / 4 * (BLOCK * 128)) + i % 4 * STEP_K_MAJOR,
                     k_major(b + i / 4 * (N * 128)) + i % 4 * STEP_K_MAJOR, i);
}

// sum[64, D] += p[64, N] * b. b is a tile of N rows.
template <int D, int N> __device__ inline void add_product(float (&sum)[D / 2], const u32 (&p)[N / 16][4], u32 b) {
#pragma unroll
    for (int i = 0; i < N / 16; i++) wgmma<true>(sum, p[i], descriptor(b, N * 128, 1024) + i * STEP_MN_MAJOR, 1);
}

// Rounds sums to elements, in the layout of operand a of the next product.
template <int N> __device__ inline void as_operand(u32 (&p)[N / 8][4], const float (&s)[N]) {
#pragma unroll
    for (int i = 0; i < N / 2; i++) p[i / 4][i % 4] = narrow_pair(s[2 * i], s[2 * i + 1]);
}

template <int N> __device__ inline void clear(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = 0.0f;
}

// A thread holds sums of rows g and g + 8 of its warp's 16. Returns the index of such a row in the whole matrix.
__device__ inline int own_row(int row, int half) {
    return row + (threadIdx.x - GROUP) / WARP * 16 + half * 8 + threadIdx.x % WARP / 4;
}

// Tells for each of a thread's sums in a tile whether its query sees its key.
struct Mask {
    u32 from[2], count[2];
    // range: of the thread's two rows; tile: the tile's first column.
    __device__ Mask(const int2 (&range)[2], int tile) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            from[half] = range[half].x - tile - threadIdx.x % 4 * 2;
            count[half] = range[half].y - range[half].x;
        }
    }
    __device__ bool operator()(int i) const { return u32(i / 4 * 8 + i % 2) - from[i / 2 % 2] < count[i / 2 % 2]; }
};

// Loads the visible ranges of a thread's two rows. Rows that do not exist see nothing.
__device__ inline void load_ranges(int2 (&range)[2], const int* lo, const int* hi, int row, int live) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int r = own_row(row, half);
        range[half] = make_int2(0, 0);
        if (r < live) range[half] = make_int2(lo[r], max(lo[r], hi[r]));
    }
}

// Stores the 16 x D sums of a warp as elements, except rows that do not exist. They pass through the warp's staging memory, so that
// whole rows are written. out starts at the head; row is the first row of the job.
template <int D> __device__ inline void store_rows(u32 staging, const float (&sum)[D / 2], Mat<elem> out, int row, int live) {
    constexpr int CHUNKS = D / PACK, STEP = WARP / CHUNKS;
    int lane = recomputed(u32(threadIdx.x)) % WARP, chunk = lane % CHUNKS;
    row += (threadIdx.x - GROUP) / WARP * 16;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < D / 16; j++)
        stmatrix_x4(staging + swizzled<CHUNKS>(lane % 16, j * 2 + lane / 16), narrow_pair(sum[8 * j], sum[8 * j + 1]),
                    narrow_pair(sum[8 * j + 2], sum[8 * j + 3]), narrow_pair(sum[8 * j + 4], sum[8 * j + 5]),
                    narrow_pair(sum[8 * j + 6], sum[8 * j + 7]));
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16; i += STEP) {
        int r = i + lane / CHUNKS;
        uint4 pack = load_shared_16(staging + swizzled<CHUNKS>(r, chunk));
        if (row + r < live) *reinterpret_cast<uint4*>(out.row(row + r) + chunk * PACK) = pack;
    }
}

// ---- Forward ---------------------------------------------------------------------------------------------------------------

constexpr int KEYS = 128;  // keys of a tile
template <int D> using ForwardLayout = Layout<D, 1, 2, 4, KEYS * D * 2>;

// One step of the online softmax: turns scores into p, relative to exp(m) for the largest score m so far. `shrink` receives the
// factors for sums relative to the previous m. l is this thread's part of the sum of p.
__device__ inline void softmax(float (&s)[KEYS / 2], float (&m)[2], float (&l)[2], float (&shrink)[2], float scale2) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top[2] = {m[half], minus_infinity()};
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int c = 0; c < 2; c++) top[c] = fmaxf(top[c], s[4 * j + 2 * half + c]);
        float most = fmaxf(top[0], top[1]);
        // The four lanes of a group share a row.
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, 2));
        // If nothing was visible so far, the reference can be any finite number.
        float base = most == minus_infinity() ? 0.0f : most * scale2;
        shrink[half] = exp2_approx(m[half] * scale2 - base);
        m[half] = most;
        float part[2] = {l[half] * shrink[half], 0.0f};
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                float p = exp2_approx(s[4 * j + 2 * half + c] * scale2 - base);
                s[4 * j + 2 * half + c] = p;
                part[c] += p;
            }
        l[half] = part[0] + part[1];
    }
}

// Two products are in flight: queries with a tile of keys, and p with the values of the previous tile. The second runs during the
// softmax of the first. This pipeline does not drain between jobs: the first scores of the next job are issued before the last
// product of this one.
template <int D>
__device__ inline void forward(Mat<elem> out, Mat<float> lse, const TensorMap& q, const TensorMap& k, const TensorMap& v,
                               const int* lo, const int* hi, Rows rows, int heads, int kv_heads, float scale) {
    using Shared = ForwardLayout<D>;
    Shared::init(rows, 0, 8);
    auto jobs = Shared::jobs();
    auto stream = Shared::stream();

    if (threadIdx.x < GROUP) {
        setmaxnreg_dec<24>();
        if (threadIdx.x >= WARP) return;
        // The values of a tile are loaded after the keys of the next one.
        int due_col = -1, due_row = 0;
        auto load_due = [&]() {
            if (due_col >= 0) stream_tile<D, KEYS, Shared>(stream, v, due_col, due_row);
            due_col = -1;
        };
        for (int number = blockIdx.x; number < Shared::count(heads); number = next_job(0, Shared::count(heads))) {
            int head = number % heads, row = (Shared::count(1) - 1 - number / heads) * BLOCK, live = Shared::live();
            Job job = {head, row, {seen_by(lo, hi, row, live), seen_by(lo, hi, row + HALF, live)}};
            Shared::announce(jobs, job);
            if (threadIdx.x == 0) {
                mbarrier_expect(Shared::own_full(jobs.slot), Shared::TILE);
                load_tile<D, BLOCK>(Shared::own(jobs.slot, 0), q, head * D, row, Shared::own_full(jobs.slot));
            }
            jobs.next();
            int tiles = job.tiles(KEYS), tile = job.end(), col = head / (heads / int(recomputed(u32(kv_heads)))) * D;
            if (tiles == 0) load_due();
#pragma unroll 1
            for (; tiles > 0; tiles--) {
                tile -= KEYS;
                stream_tile<D, KEYS, Shared>(stream, k, col, tile);
                load_due();
                due_col = col, due_row = tile;
            }
        }
        load_due();
        Shared::announce(jobs, {0, -1});
        return;
    }

    setmaxnreg_inc<240>();
    int group = threadIdx.x / GROUP - 1;
    float scale2 = scale * LOG2E;  // exponentials are powers of two
    float o[D / 2], s[KEYS / 2];
    u32 p[KEYS / 16][4];
    clear(o), clear(s);
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) p[i / 4][i % 4] = 0;
    int head, row, tiles, tile;
    Seen seen;
    int2 range[2];
    u32 k_empty = 0;
    // Takes the next job and issues its first scores. If there is no job, or it has no tiles, they are computed from stale shared
    // memory and not used: with a wgmma on one branch only, ptxas would serialize all of them.
    auto begin = [&]() {
        jobs.wait_full();
        const Job& job = Shared::job(jobs.slot);
        head = job.head, row = job.row, seen = job.by[group], tiles = job.tiles(KEYS), tile = job.end() - KEYS;
        if (row >= 0) {
            load_ranges(range, lo, hi, row, Shared::live());
            mbarrier_wait(Shared::own_full(jobs.slot), jobs.phase);
        }
        if (tiles > 0) stream.wait_full();
        wgmma_fence();
        scores<D, KEYS>(s, Shared::own(jobs.slot, 0) + group * BOX, Shared::slot(stream.slot));
        wgmma_commit();
        k_empty = stream.empty();
        if (tiles > 0) stream.next();
    };
    // Turns the tile's scores into p.
    float m[2], l[2], shrink[2];
    auto to_p = [&]() {
        if (!seen.all_of(tile, KEYS)) {
            Mask seen_pair(range, tile);
#pragma unroll
            for (int i = 0; i < KEYS / 2; i++)
                if (!seen_pair(i)) s[i] = minus_infinity();
        }
        softmax(s, m, l, shrink, scale2);
    };
    begin();
    wgmma_wait_for<0>(s);
    if (tiles > 0) release(k_empty);
    while (row >= 0) {
#pragma unroll
        for (int half = 0; half < 2; half++) m[half] = minus_infinity(), l[half] = 0.0f;
        clear(o);
        if (tiles > 0) {
            to_p();
            as_operand(p, s);
        }
#pragma unroll 1
        for (int i = 1; i < tiles; i++) {
            tile -= KEYS;
            k_empty = stream.empty();
            stream.wait_full();
            wgmma_fence();
            scores<D, KEYS>(s, Shared::own(jobs.slot, 0) + group * BOX, Shared::slot(stream.slot));
            wgmma_commit();
            stream.next();
            stream.wait_full();
            add_product<D, KEYS>(o, p, Shared::slot(stream.slot));
            wgmma_commit();
            wgmma_wait_for<1>(s);
            release(k_empty);
            to_p();
            wgmma_wait_for<0>(o);
            release(stream.empty());
            stream.next();
#pragma unroll
            for (int j = 0; j < D / 2; j++) o[j] *= shrink[j / 2 % 2];
            as_operand(p, s);
        }

        // The last product of this job, and the first scores of the next one.
        release(jobs.empty());
        jobs.next();
        int done_head = head, done_row = row;
        bool some = tiles > 0;
        begin();
        if (some) stream.wait_full();
        add_product<D, KEYS>(o, p, Shared::slot(stream.slot));
        wgmma_commit();
        wgmma_wait_for<0>(o);
        wgmma_wait_for<0>(s);
        if (tiles > 0) release(k_empty);
        if (some) release(stream.empty()), stream.next();

        // Store
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = l[half] + __shfl_xor_sync(0xffffffff, l[half], 1);
            total += __shfl_xor_sync(0xffffffff, total, 2);
            float inverse = 1.0f / total;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) o[4 * j + 2 * half + c] = total == 0.0f ? 0.0f : o[4 * j + 2 * half + c] * inverse;
            int r = own_row(done_row, half);
            if (threadIdx.x % 4 == 0 && r < Shared::live())
                lse.row(r)[done_head] = total == 0.0f ? minus_infinity() : m[half] * scale + logf(total);
        }
        store_rows<D>(Shared::staging(), o, {out.at + done_head * D, out.ld}, done_row, Shared::live());
    }
}

// ---- Backward: keys and values ---------------------------------------------------------------------------------------------

constexpr int QUERIES = 64;  // queries of a tile
// A slot holds q, dout, lse and delta of the queries.
template <int D> using KeysLayout = Layout<D, 2, 1, 3, 2 * QUERIES * D * 2 + 1024>;
template <int D> using QueriesLayout = Layout<D, 2, 1, 4, KEYS * D * 2>;

// Jobs of dk and dv have the first numbers, followed by those of dq.
template <int D> __device__ inline int backward_jobs(int heads, int kv_heads) {
    return KeysLayout<D>::count(kv_heads) + QueriesLayout<D>::count(heads);
}

// Loads the tiles. Called by the loading warp.
template <int D>
__device__ inline void load_for_keys(int& number, const TensorMap& q, const TensorMap& k, const TensorMap& v, const TensorMap& dout,
                                     const int* qlo, const int* qhi, int heads, int kv_heads) {
    using Shared = KeysLayout<D>;
    constexpr int TILE = QUERIES * D * 2;
    auto jobs = Shared::jobs();
    auto stream = Shared::stream();
    for (; number < Shared::count(kv_heads); number = next_job(1, backward_jobs<D>(heads, kv_heads))) {
        // In a causal document, the first keys are visible to the most queries.
        int head = number % kv_heads, row = number / kv_heads * BLOCK, live = Shared::live();
        Job job = {head, row, {seen_by(qlo, qhi, row, live), seen_by(qlo, qhi, row + HALF, live)}};
        Shared::announce(jobs, job);
        if (threadIdx.x == 0) {
            mbarrier_expect(Shared::own_full(0), 2 * Shared::TILE);
            load_tile<D, BLOCK>(Shared::own(0, 0), k, head * D, row, Shared::own_full(0));
            load_tile<D, BLOCK>(Shared::own(0, 1), v, head * D, row, Shared::own_full(0));
        }
        jobs.next();
        int shared_by = heads / int(recomputed(u32(kv_heads)));
        int col = head * shared_by * D, tiles = job.tiles(QUERIES), end = job.end(), tile = end;
#pragma unroll 1
        for (int visits = tiles * shared_by; visits > 0; visits--) {
            tile -= QUERIES;
            stream.wait_empty();
            if (threadIdx.x == 0) {
                u32 to = Shared::slot(stream.slot);
                mbarrier_expect(stream.full(), 2 * TILE);
                load_tile<D, QUERIES>(to, q, col, tile, stream.full());
                load_tile<D, QUERIES>(to + TILE, dout, col, tile, stream.full());
            }
            stream.next();
            if (tile == end - tiles * QUERIES) tile = end, col += D;
        }
    }
    Shared::announce(jobs, {0, -1});
}

// Copies lse and delta. Called by a second warp.
template <int D> __device__ inline void load_statistics(Mat<const float> lse, Mat<const float> delta, int heads, int kv_heads) {
    using Shared = KeysLayout<D>;
    constexpr int TILE = QUERIES * D * 2;
    auto jobs = Shared::jobs();
    auto stream = Shared::stream();
    int lane = threadIdx.x % WARP, shared_by = heads / kv_heads;
    while (true) {
        jobs.wait_full();
        const Job& job = Shared::job(0);
        int head = job.head * shared_by, tiles = job.tiles(QUERIES), end = job.end(), tile = end;
        bool over = job.row < 0;
        release(jobs.empty());
        jobs.next();
        if (over) return;
#pragma unroll 1
        for (int visits = tiles * shared_by; visits > 0; visits--) {
            tile -= QUERIES;
            stream.wait_empty();
#pragma unroll
            for (int half = 0; half < QUERIES; half += WARP) {
                int row = tile + half + lane;
                u32 to = Shared::slot(stream.slot) + 2 * TILE + (half + lane) * 4;
                cp_async_4(to, lse.row(row) + head, row >= 0);
                cp_async_4(to + QUERIES * 4, delta.row(row) + head, row >= 0);
            }
            mbarrier_arrive_after_cp_async(stream.full());
            stream.next();
            if (tile == end - tiles * QUERIES) tile = end, head++;
        }
    }
}

// Scores are computed transposed, [keys, queries], for all query heads that share the key head and all tiles of queries that see
// the keys.
template <int D>
__device__ inline void gradients_of_keys(Mat<elem> dk, Mat<elem> dv, const int* qlo, const int* qhi, int heads, int kv_heads,
                                         float scale) {
    using Shared = KeysLayout<D>;
    constexpr int TILE = QUERIES * D * 2;
    auto jobs = Shared::jobs();
    auto stream = Shared::stream();
    int group = threadIdx.x / GROUP - 1;
    float scale2 = scale * LOG2E;
    u32 own_k = Shared::own(0, 0) + group * BOX, own_v = Shared::own(0, 1) + group * BOX;
    float sum_k[D / 2], sum_v[D / 2], s[QUERIES / 2], dp[QUERIES / 2];
    u32 p[QUERIES / 16][4], ds[QUERIES / 16][4];
    clear(s);
    while (true) {
        jobs.wait_full();
        const Job& job = Shared::job(0);
        if (job.row < 0) break;
        Seen seen = job.by[group];
        int tiles = job.tiles(QUERIES), end = job.end(), tile = end;
        clear(sum_k), clear(sum_v);
        u32 used = 0;  // barrier of the slot whose products may be in flight
        mbarrier_wait(Shared::own_full(0), jobs.phase);
#pragma unroll 1
        for (int visits = tiles * (heads / kv_heads); visits > 0; visits--) {
            tile -= QUERIES;
            int first = tile;
            if (tile == end - tiles * QUERIES) tile = end;
            u32 tile_q = Shared::slot(stream.slot), tile_dout = tile_q + TILE, empty = stream.empty();
            stream.wait_full();
            stream.next();
            if (!seen.some_of(first, QUERIES)) {
                release(empty);
                continue;
            }

            // Compute: scores and the gradient of p, [keys, queries]
            wgmma_fence();
            scores<D, QUERIES>(s, own_k, tile_q);
            wgmma_commit();
            wgmma_wait<1>();
            if (used) release(used);
            // Cleared so that the old values of dp need no registers while ds is multiplied.
            clear(dp);
            wgmma_fence();
            scores<D, QUERIES>(dp, own_v, tile_dout);
            wgmma_commit();

            // Compute: p. `statistics` are those of queries 8j + 2t and 8j + 2t + 1.
            u32 statistics = tile_q + 2 * TILE + threadIdx.x % 4 * 8;
            wgmma_wait_for<1>(s);
#pragma unroll
            for (int j = 0; j < QUERIES / 8; j++) {
                float2 of_lse = load_shared_8(statistics + j * 32);
#pragma unroll
                for (int c = 0; c < 4; c++)
                    s[4 * j + c] = exp2_approx(s[4 * j + c] * scale2 - (c % 2 ? of_lse.y : of_lse.x) * LOG2E);
            }
            if (!seen.all_of(first, QUERIES)) {
                // Reloaded for each tile, to save registers.
                int2 range[2];
                load_ranges(range, qlo, qhi, job.row, Shared::live());
                Mask seen_pair(range, first);
#pragma unroll
                for (int i = 0; i < QUERIES / 2; i++)
                    if (!seen_pair(i)) s[i] = 0.0f;
            }
            as_operand(p, s);
            wgmma_fence();
            add_product<D, QUERIES>(sum_v, p, tile_dout);
            wgmma_commit();

            // Compute: ds
            wgmma_wait_for<1>(dp);
#pragma unroll
            for (int j = 0; j < QUERIES / 8; j++) {
                float2 of_delta = load_shared_8(statistics + QUERIES * 4 + j * 32);
#pragma unroll
                for (int c = 0; c < 4; c++) dp[4 * j + c] = s[4 * j + c] * (dp[4 * j + c] - (c % 2 ? of_delta.y : of_delta.x));
            }
            as_operand(ds, dp);
            wgmma_fence();
            add_product<D, QUERIES>(sum_k, ds, tile_q);
            wgmma_commit();
            used = empty;
        }
        wgmma_wait_for<0>(sum_k);
        wgmma_wait_for<0>(sum_v);
        if (used) release(used);
        int head = job.head, row = job.row;
        release(jobs.empty());
        jobs.next();

        // Store
#pragma unroll
        for (int j = 0; j < D / 2; j++) sum_k[j] *= scale;
        store_rows<D>(Shared::staging(), sum_k, {dk.at + head * D, dk.ld}, row, Shared::live());
        store_rows<D>(Shared::staging(), sum_v, {dv.at + head * D, dv.ld}, row, Shared::live());
    }
}

// ---- Backward: queries -----------------------------------------------------------------------------------------------------

// Loads the tiles. Called by the loading warp.
template <int D>
__device__ inline void load_for_queries(int number, const TensorMap& q, const TensorMap& k, const TensorMap& v,
                                        const TensorMap& dout, const int* lo, const int* hi, int heads, int kv_heads) {
    using Shared = QueriesLayout<D>;
    auto jobs = Shared::jobs();
    auto stream = Shared::stream();
    for (; number < backward_jobs<D>(heads, kv_heads); number = next_job(1, backward_jobs<D>(heads, kv_heads))) {
        int job_number = number - KeysLayout<D>::count(kv_heads);
        int head = job_number % heads, row = (Shared::count(1) - 1 - job_number / heads) * BLOCK, live = Shared::live();
        Job job = {head, row, {seen_by(lo, hi, row, live), seen_by(lo, hi, row + HALF, live)}};
        Shared::announce(jobs, job);
        if (threadIdx.x == 0) {
            mbarrier_expect(Shared::own_full(0), 2 * Shared::TILE);
            load_tile<D, BLOCK>(Shared::own(0, 0), q, head * D, row, Shared::own_full(0));
            load_tile<D, BLOCK>(Shared::own(0, 1), dout, head * D, row, Shared::own_full(0));
        }
        jobs.next();
        int col = head / (heads / int(recomputed(u32(kv_heads)))) * D, tile = job.end();
#pragma unroll 1
        for (int tiles = job.tiles(KEYS); tiles > 0; tiles--) {
            tile -= KEYS;
            stream_tile<D, KEYS, Shared>(stream, k, col, tile);
            stream_tile<D, KEYS, Shared>(stream, v, col, tile);
        }
    }
    Shared::announce(jobs, {0, -1});
}

template <int D>
__device__ inline void gradients_of_queries(Mat<elem> dq, Mat<const float> lse, Mat<const float> delta, const int* lo,
                                            const int* hi, int heads, int kv_heads, float scale) {
    using Shared = QueriesLayout<D>;
    auto jobs = Shared::jobs();
    auto stream = Shared::stream();
    int group = threadIdx.x / GROUP - 1;
    float scale2 = scale * LOG2E;
    u32 own_q = Shared::own(0, 0) + group * BOX, own_dout = Shared::own(0, 1) + group * BOX;
    float sum[D / 2], s[KEYS / 2], dp[KEYS / 2];
    u32 ds[KEYS / 16][4];
    clear(s), clear(dp);
    while (true) {
        jobs.wait_full();
        const Job& job = Shared::job(0);
        int head = job.head, row = job.row;
        if (row < 0) break;
        Seen seen = job.by[group];
        int tile = job.end();
        int2 range[2];
        load_ranges(range, lo, hi, row, Shared::live());
        float row_lse[2] = {}, row_delta[2] = {};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = own_row(row, half);
            if (r < Shared::live()) row_lse[half] = lse.row(r)[head] * LOG2E, row_delta[half] = delta.row(r)[head];
        }
        clear(sum);
        u32 used = 0;  // barrier of the slot whose product may be in flight
        mbarrier_wait(Shared::own_full(0), jobs.phase);
#pragma unroll 1
        for (int tiles = job.tiles(KEYS); tiles > 0; tiles--) {
            tile -= KEYS;

            // Compute: scores and the gradient of p, [queries, keys]
            u32 tile_k = Shared::slot(stream.slot), k_empty = stream.empty();
            stream.wait_full();
            wgmma_fence();
            scores<D, KEYS>(s, own_q, tile_k);
            wgmma_commit();
            wgmma_wait<1>();
            if (used) release(used);
            stream.next();
            stream.wait_full();
            scores<D, KEYS>(dp, own_dout, Shared::slot(stream.slot));
            wgmma_commit();

            // Compute: ds
            wgmma_wait_for<1>(s);
#pragma unroll
            for (int j = 0; j < KEYS / 2; j++) s[j] = exp2_approx(s[j] * scale2 - row_lse[j / 2 % 2]);
            if (!seen.all_of(tile, KEYS)) {
                Mask seen_pair(range, tile);
#pragma unroll
                for (int j = 0; j < KEYS / 2; j++)
                    if (!seen_pair(j)) s[j] = 0.0f;
            }
            wgmma_wait_for<0>(dp);
            release(stream.empty());
            stream.next();
#pragma unroll
            for (int j = 0; j < KEYS / 2; j++) dp[j] = s[j] * (dp[j] - row_delta[j / 2 % 2]);
            as_operand(ds, dp);

            // Compute: gradient
            wgmma_fence();
            add_product<D, KEYS>(sum, ds, tile_k);
            wgmma_commit();
            used = k_empty;
        }
        wgmma_wait_for<0>(sum);
        if (used) release(used);
        release(jobs.empty());
        jobs.next();

        // Store
#pragma unroll
        for (int j = 0; j < D / 2; j++) sum[j] *= scale;
        store_rows<D>(Shared::staging(), sum, {dq.at + head * D, dq.ld}, row, Shared::live());
    }
}

// A block computes jobs of keys until all are taken, then jobs of queries.
template <int D>
__device__ inline void backward(Mat<elem> dq, Mat<elem> dk, Mat<elem> dv, const TensorMap& q, const TensorMap& k,
                                const TensorMap& v, const TensorMap& dout, Mat<const float> lse, Mat<const float> delta,
                                const int* lo, const int* hi, const int* qlo, const int* qhi, Rows rows, Rows keys, int heads,
                                int kv_heads, float scale) {
    __shared__ u64 keys_done;
    if (threadIdx.x == 0) mbarrier_init(shared_address(&keys_done), 8);
    KeysLayout<D>::init(keys, WARP, 9);
    QueriesLayout<D>::init(rows, 0, 8);
    if (threadIdx.x < GROUP) {
        setmaxnreg_dec<24>();
        if (threadIdx.x < WARP) {
            int number = blockIdx.x;
            load_for_keys<D>(number, q, k, v, dout, qlo, qhi, heads, kv_heads);
            mbarrier_wait(shared_address(&keys_done), 0);
            load_for_queries<D>(number, q, k, v, dout, lo, hi, heads, kv_heads);
        } else if (threadIdx.x < 2 * WARP) {
            load_statistics<D>(lse, delta, heads, kv_heads);
        }
    } else {
        setmaxnreg_inc<240>();
        gradients_of_keys<D>(dk, dv, qlo, qhi, heads, kv_heads, scale);
        // The copy engine will overwrite memory that these warps have written.
        fence_proxy_async();
        release(shared_address(&keys_done));
        gradients_of_queries<D>(dq, lse, delta, lo, hi, heads, kv_heads, scale);
    }
}

// ---- Kernels ---------------------------------------------------------------------------------------------------------------

#define ATTENTION(D)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                  \
        attention_##D(Mat<elem> out, Mat<float> lse, const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k,\
                      const __grid_constant__ TensorMap v, const int* lo, const int* hi, Rows rows, int heads, int kv_heads,  \
                      float scale) {                                                                                          \
        forward<D>(out, lse, q, k, v, lo, hi, rows, heads, kv_heads, scale);                                                  \
    }                                                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                  \
        attention_bwd_##D(Mat<elem> dq, Mat<elem> dk, Mat<elem> dv, const __grid_constant__ TensorMap q,                      \
                          const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,                           \
                          const __grid_constant__ TensorMap dout, Mat<const float> lse, Mat<const float> delta, const int* lo,\
                          const int* hi, const int* qlo, const int* qhi, Rows rows, Rows keys, int heads, int kv_heads,       \
                          float scale) {                                                                                      \
        backward<D>(dq, dk, dv, q, k, v, dout, lse, delta, lo, hi, qlo, qhi, rows, keys, heads, kv_heads, scale);             \
    }
ATTENTION(64)
ATTENTION(128)
