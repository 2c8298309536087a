/* Kernels on spikes and sums of spikes: small non-negative integers in bytes, channels last.
 *
 * A layer adds the weight row of every event, once per unit of its value. Weights lie in panels of 128 bytes per
 * input (32 float or 64 int16 outputs), cut into tiles that stay in the L1 cache while all pixels of a block visit
 * them. Every output is one chain of additions whose order follows from the packed weights alone, so its bits do
 * not depend on the batch, the number of threads, the output slice or the vector width.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error kernels on spikes are written for little-endian processors
#endif

#define ROW 128 /* bytes of a weight row in a panel */

/* Pixels summed side by side, so that their independent chains hide the latency of an addition. */
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define LANE 64
#define GROUP 8
#elif defined(__AVX2__)
#define LANE 32
#define GROUP 2
#else
#define LANE 16
#define GROUP 1
#endif
#define PER (ROW / LANE) /* vectors of a weight row */
#define UNROLL _Pragma("GCC unroll 16")

typedef float floats __attribute__((vector_size(LANE), aligned(4), may_alias));
typedef int16_t shorts __attribute__((vector_size(LANE), aligned(2), may_alias));
typedef int32_t ints __attribute__((vector_size(LANE), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(LANE), aligned(4), may_alias));
typedef uint8_t bytes32 __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint8_t bytes64 __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint16_t words64 __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint32_t offsets8 __attribute__((vector_size(32), aligned(4), may_alias));

enum { OK = 0, NO_MEMORY = 1, TOO_LARGE = 2 };

/* ---- lists of events */

static offsets8 positions[256] __attribute__((aligned(64))); /* of the set bits of a byte, times ROW */

__attribute__((constructor)) static void fill_positions(void)
{
    for (int mask = 0; mask < 256; mask++) {
        uint32_t row[8] = {0};
        for (int bit = 0, n = 0; bit < 8; bit++)
            if (mask >> bit & 1)
                row[n++] = bit * ROW;
        memcpy(&positions[mask], row, sizeof row);
    }
}

/* Append `origin` plus ROW times the position of every event among n bytes; a value v is v events. Up to 7 entries
 * after the end are overwritten. */
static uint32_t *list_events(const uint8_t *x, int64_t n, uint32_t origin, uint32_t *out)
{
    const uint64_t low = 0x0101010101010101u, high = 0x7f7f7f7f7f7f7f7fu;
    offsets8 at = (offsets8){0} + origin;
    for (int64_t i = 0; i < n; i += 8, at += 8 * ROW) {
        uint64_t word = 0;
        if (n - i >= 8)
            memcpy(&word, x + i, 8);
        else
            for (int64_t j = i; j < n; j++)
                word |= (uint64_t)x[j] << 8 * (j - i);
        do {
            uint64_t set = (((word & high) + high) | word) >> 7 & low; /* 1 in every byte that is not 0 */
            *(offsets8 *)out = positions[set * 0x0102040810204080u >> 56] + at;
            out += set * low >> 56;
            word -= set;
        } while (__builtin_expect(word != 0, 0));
    }
    return out;
}

/* Sum of n bytes; adds the count of those that are not 0 to *nonzero. */
static int64_t sum_bytes(const uint8_t *x, int64_t n, int64_t *nonzero)
{
    const uint64_t low = 0x0101010101010101u, high = 0x7f7f7f7f7f7f7f7fu, even = 0x00ff00ff00ff00ffu;
    int64_t sum = 0, count = 0, i = 0;
    while (i + 64 <= n) {
        int64_t stop = i + 64 * 120 < n ? i + 64 * 120 : n; /* 120 additions fit into every lane */
        words64 pairs = {0};
        bytes64 hits = {0};
        for (; i + 64 <= stop; i += 64) {
            words64 two = *(const words64 *)(x + i);
            pairs += (two & 0xff) + (two >> 8);
            hits -= (bytes64)(*(const bytes64 *)(x + i) != 0);
        }
        words64 both = (words64)hits;
        both = (both & 0xff) + (both >> 8);
        uint32_t lane_sum = 0, lane_count = 0;
        for (int lane = 0; lane < 32; lane++) {
            lane_sum += pairs[lane];
            lane_count += both[lane];
        }
        sum += lane_sum;
        count += lane_count;
    }
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, x + i, 8);
        sum += ((word & even) + (word >> 8 & even)) * 0x0001000100010001u >> 48;
        count += ((((word & high) + high) | word) >> 7 & low) * low >> 56;
    }
    for (; i < n; i++) {
        sum += x[i];
        count += x[i] != 0;
    }
    *nonzero += count;
    return sum;
}

/* Sum of n bytes. */
static int64_t sum_only(const uint8_t *x, int64_t n)
{
    int64_t sum = 0, i = 0;
    while (i + 64 <= n) {
        int64_t stop = i + 64 * 120 < n ? i + 64 * 120 : n;
        words64 pairs = {0};
        for (; i + 64 <= stop; i += 64) {
            words64 two = *(const words64 *)(x + i);
            pairs += (two & 0xff) + (two >> 8);
        }
        for (int lane = 0; lane < 32; lane++)
            sum += pairs[lane];
    }
    for (; i < n; i++)
        sum += x[i];
    return sum;
}

int spike_row_sums(const uint8_t *x, int32_t *sums, int32_t *nonzero, int64_t columns, int64_t first, int64_t stop)
{
    for (int64_t row = first; row < stop; row++) {
        int64_t count = 0;
        if (!nonzero) {
            sums[row] = (int32_t)sum_only(x + row * columns, columns);
            continue;
        }
        sums[row] = (int32_t)sum_bytes(x + row * columns, columns, &count);
        nonzero[row] = (int32_t)count;
    }
    return OK;
}

/* ---- sums of weight rows for GROUP pixels */

typedef struct {
    uint32_t start, n; /* events of the pixels under one kernel row */
    int32_t image, line;
} Run;

typedef struct {
    const uint32_t *list[GROUP];
    uint32_t n[GROUP];
    float *y[GROUP];
    uint32_t least, most;
} Group;

static const char zeros[2 * ROW] __attribute__((aligned(64))); /* weights of a row, or sums of an int16 row */

/* Weights of event i of pixel g, zeros if it has no such event; without a branch, which would be mispredicted. */
static inline const char *row_or_zeros(const char *weights, const Group *group, int g, size_t i)
{
    size_t present = -(size_t)(i < group->n[g]);
    uintptr_t row = (uintptr_t)weights + group->list[g][i & present], nothing = (uintptr_t)zeros;
    return (const char *)(nothing + ((row - nothing) & present));
}

/* What the compiler knows of memory ends here: it must not carry pointers of a group through the innermost loop,
 * where all registers are taken. */
#define FORGET __asm__ volatile("" ::: "memory")

static __attribute__((noinline)) void add_floats(const char *weights, const Group *group, int fresh)
{
    floats a[GROUP][PER];
    const uint32_t *list[GROUP];
    UNROLL for (int g = 0; g < GROUP; g++) {
        const float *from = fresh ? (const float *)zeros : group->y[g];
        UNROLL for (int p = 0; p < PER; p++)
            a[g][p] = *(const floats *)(from + p * (LANE / 4));
    }
    FORGET;
    UNROLL for (int g = 0; g < GROUP; g++)
        list[g] = group->list[g];
    size_t i = 0, least = group->least;
    for (; i + 2 <= least; i += 2)
        UNROLL for (int g = 0; g < GROUP; g++) {
            uint64_t two; /* offsets in one load: loads are what limits this loop */
            memcpy(&two, list[g] + i, sizeof two);
            const char *row = weights + (uint32_t)two, *next = weights + (two >> 32);
            UNROLL for (int p = 0; p < PER; p++)
                a[g][p] += *(const floats *)(row + p * LANE);
            UNROLL for (int p = 0; p < PER; p++)
                a[g][p] += *(const floats *)(next + p * LANE);
        }
    FORGET;
    for (size_t most = group->most; i < most; i++)
        UNROLL for (int g = 0; g < GROUP; g++) {
            const char *row = row_or_zeros(weights, group, g, i);
            UNROLL for (int p = 0; p < PER; p++)
                a[g][p] += *(const floats *)(row + p * LANE);
        }
    UNROLL for (int g = 0; g < GROUP; g++)
        UNROLL for (int p = 0; p < PER; p++)
            *(floats *)(group->y[g] + p * (LANE / 4)) = a[g][p];
}

/* The same for int16 weights of at most 127, flushed to y, whole numbers in float, every 256 events. The 64 outputs of
 * a row lie in the order 0, 32, 1, 33, ..., so that the halves of 32-bit lanes are neighbours in y. */
static __attribute__((noinline)) void add_shorts(const char *weights, const Group *group, int fresh)
{
    size_t i = 0, least = group->least, most = group->most;
    do {
        shorts a[GROUP][PER];
        const uint32_t *list[GROUP];
        UNROLL for (int g = 0; g < GROUP; g++) {
            list[g] = group->list[g];
            UNROLL for (int p = 0; p < PER; p++)
                a[g][p] = (shorts){0};
        }
        FORGET;
        size_t stop = most - i > 256 ? i + 256 : most, full = stop < least ? stop : least;
        for (; i + 2 <= full; i += 2)
            UNROLL for (int g = 0; g < GROUP; g++) {
                uint64_t two; /* offsets in one load: loads are what limits this loop */
                memcpy(&two, list[g] + i, sizeof two);
                const char *row = weights + (uint32_t)two, *next = weights + (two >> 32);
                UNROLL for (int p = 0; p < PER; p++)
                    a[g][p] += *(const shorts *)(row + p * LANE);
                UNROLL for (int p = 0; p < PER; p++)
                    a[g][p] += *(const shorts *)(next + p * LANE);
            }
        FORGET;
        for (; i < stop; i++)
            UNROLL for (int g = 0; g < GROUP; g++) {
                const char *row = row_or_zeros(weights, group, g, i);
                UNROLL for (int p = 0; p < PER; p++)
                    a[g][p] += *(const shorts *)(row + p * LANE);
            }
        UNROLL for (int g = 0; g < GROUP; g++)
            UNROLL for (int p = 0; p < PER; p++) {
                floats *y = (floats *)(group->y[g] + p * (LANE / 4)), *second = y + PER;
                const floats *from = fresh ? (const floats *)zeros : y;
                floats low = __builtin_convertvector((ints)((words)a[g][p] << 16) >> 16, floats);
                floats high = __builtin_convertvector((ints)a[g][p] >> 16, floats);
                floats sum = from[PER] + high;
                *y = from[0] + low;
                *second = sum;
            }
        fresh = 0;
    } while (i < most);
}

/* ---- convolutions; a linear layer is one of 1x1 images */

typedef struct {
    const uint8_t *x;     /* (images, height, width, c_in) */
    const char *weights;  /* [panel][tile][k][k][tile channels][ROW bytes] */
    float *y;             /* (images, height, width, c_out) */
    const float *scales;  /* c_out for int16 weights, else NULL */
    int64_t height, width, c_in, c_out, kernel, tile, tiles; /* tiles of the packed tensor */
    int64_t block; /* images whose lists are built at once */
} Layer;

/* Order runs by their number of events, roughly: groups of like length waste little. */
static void sort_runs(const Run *runs, Run *sorted, int64_t n)
{
    enum { BINS = 64 };
    uint32_t at[BINS + 1] = {0}, most = 1;
    for (int64_t i = 0; i < n; i++)
        most = runs[i].n > most ? runs[i].n : most;
    uint32_t factor = (uint32_t)(((uint64_t)(BINS - 1) << 16) / most); /* most * factor < 2^22 */
    for (int64_t i = 0; i < n; i++)
        at[((uint64_t)runs[i].n * factor >> 16) + 1]++;
    for (int bin = 0; bin < BINS; bin++)
        at[bin + 1] += at[bin];
    for (int64_t i = 0; i < n; i++)
        sorted[at[(uint64_t)runs[i].n * factor >> 16]++] = runs[i];
}

/* List the events of `images` images and sort the runs of every tile and column. */
static void list_block(const Layer *layer, const uint8_t *x, int64_t images, uint32_t *lists, uint32_t *starts,
                       Run *runs, Run *scratch)
{
    int64_t lines = images * layer->height, width = layer->width, c_in = layer->c_in, pad = layer->kernel / 2;
    uint32_t *end = lists;
    for (int64_t c = 0; c < c_in; c += layer->tile) {
        int64_t n = c_in - c < layer->tile ? c_in - c : layer->tile;
        for (int64_t line = 0; line < lines; line++) {
            uint32_t *start = starts + line * (width + 1);
            for (int64_t w = 0; w < width; w++) {
                start[w] = (uint32_t)(end - lists);
                end = list_events(x + (line * width + w) * c_in + c, n, (uint32_t)(w * layer->tile * ROW), end);
            }
            start[width] = (uint32_t)(end - lists);
        }
        for (int64_t w = 0; w < width; w++, runs += lines) {
            int64_t from = w - pad > 0 ? w - pad : 0, to = w + pad + 1 < width ? w + pad + 1 : width;
            for (int64_t line = 0; line < lines; line++) {
                const uint32_t *start = starts + line * (width + 1);
                scratch[line] = (Run){start[from], start[to] - start[from], (int32_t)(line / layer->height),
                                      (int32_t)(line % layer->height)};
            }
            sort_runs(scratch, runs, lines);
        }
    }
}

/* Weights that are visited next, some lines of which are fetched into the L2 cache with every group. */
typedef struct {
    const char *at, *end;
    int64_t lines;
} Ahead;

/* Add one kernel row of one tile to all outputs of one image column. */
static void visit_column(const Layer *layer, const char *weights, const uint32_t *lists, const Run *runs, int64_t n,
                         int64_t shift, float *y, int64_t stride, int fresh, Ahead *ahead)
{
    int64_t height = layer->height, step = layer->width * stride;
    float nowhere[ROW / 2] = {0};
    for (int64_t i = 0; i < n;) {
        Group group;
        int g = 0;
        group.least = UINT32_MAX;
        group.most = 0;
        for (; i < n && g < GROUP; i++) {
            int64_t line = runs[i].line + shift;
            if (line < 0 || line >= height)
                continue;
            group.list[g] = lists + runs[i].start;
            group.n[g] = runs[i].n;
            group.y[g] = y + (runs[i].image * height + line) * step;
            group.least = runs[i].n < group.least ? runs[i].n : group.least;
            group.most = runs[i].n > group.most ? runs[i].n : group.most;
            g++;
        }
        if (!g || (!group.most && !fresh))
            continue;
        for (int line = 0; line < ahead->lines && ahead->at < ahead->end; line++, ahead->at += 64)
            __builtin_prefetch(ahead->at, 0, 2);
        for (int rest = g; rest < GROUP; rest++) { /* the same pixel again, to nowhere */
            group.list[rest] = group.list[g - 1];
            group.n[rest] = group.n[g - 1];
            group.y[rest] = nowhere;
        }
        if (layer->scales)
            add_shorts(weights, &group, fresh);
        else
            add_floats(weights, &group, fresh);
    }
}

/* Kernel rows in order of visit: the middle comes first, since it reaches every pixel. */
static int64_t kernel_line(int64_t kernel, int64_t order)
{
    return order ? order - (order <= kernel / 2) : kernel / 2;
}

/* Weights visited after kernel row `order` of channel `c`'s tile: in this tile, the next tile or the next panel. */
static const char *next_line(const Layer *layer, const char *weights, int64_t c, int64_t order)
{
    int64_t k = layer->kernel, bytes = k * layer->tile * ROW, skipped = layer->tiles - c / layer->tile;
    if (order + 1 < k)
        return weights + kernel_line(k, order + 1) * bytes;
    return weights + (c + layer->tile < layer->c_in ? 1 : skipped) * k * bytes + kernel_line(k, 0) * bytes;
}

static void run_panel(const Layer *layer, int64_t panel, int64_t images, const uint32_t *lists, const Run *runs,
                      float *y, float *sums)
{
    int64_t columns = layer->scales ? ROW / 2 : ROW / 4, first = panel * columns;
    int64_t n = layer->c_out - first < columns ? layer->c_out - first : columns;
    int64_t lines = images * layer->height, pixels = lines * layer->width, k = layer->kernel, pad = k / 2;
    int64_t line_bytes = k * layer->tile * ROW;
    const char *weights = layer->weights + panel * layer->tiles * k * line_bytes;
    float *out = layer->scales || n < columns ? sums : y + first;
    int64_t stride = out == sums ? columns : layer->c_out;
    for (int64_t c = 0; c < layer->c_in; c += layer->tile, weights += k * line_bytes, runs += lines * layer->width)
        for (int64_t order = 0; order < k; order++) {
            int64_t line = kernel_line(k, order);
            int fresh = !c && !order;
            const char *now = weights + line * line_bytes, *next = next_line(layer, weights, c, order);
            Ahead ahead = {next, next + line_bytes, line_bytes / 64 * GROUP / pixels + 1};
            for (int64_t w = 0; w < layer->width; w++)
                visit_column(layer, now - (w - pad) * layer->tile * ROW, lists,
                             runs + w * lines, lines, pad - line, out + w * stride, stride, fresh, &ahead);
        }
    if (out != sums)
        return;
    float scales[ROW / 2];
    for (int64_t j = 0; j < columns; j++)
        scales[j] = layer->scales && j < n ? layer->scales[first + j] : 1.0f;
    for (int64_t pixel = 0; pixel < pixels; pixel++, sums += columns) {
        float *restrict to = y + first + pixel * layer->c_out;
        if (n == ROW / 2)
            for (int64_t j = 0; j < ROW / 2; j++)
                to[j] = sums[j] * scales[j];
        else
            for (int64_t j = 0; j < n; j++)
                to[j] = sums[j] * scales[j];
    }
}

static int run_layer(const Layer *layer, int64_t first, int64_t stop)
{
    int64_t pixels = layer->height * layer->width, columns = layer->scales ? ROW / 2 : ROW / 4;
    int64_t block = layer->block < stop - first ? layer->block : stop - first;
    int64_t tiles = (layer->c_in + layer->tile - 1) / layer->tile, lines = block * layer->height;
    uint32_t *lists = NULL, *starts = malloc((lines * (layer->width + 1) + 1) * sizeof *starts);
    Run *runs = malloc((tiles * block * pixels + lines + 1) * sizeof *runs);
    float *sums = malloc((block * pixels * columns + 1) * sizeof *sums);
    int64_t room = 0, nonzero = 0;
    int status = starts && runs && sums ? OK : NO_MEMORY;
    for (int64_t image = first; image < stop && status == OK; image += block) {
        int64_t images = stop - image < block ? stop - image : block;
        const uint8_t *x = layer->x + image * pixels * layer->c_in;
        int64_t events = sum_bytes(x, images * pixels * layer->c_in, &nonzero);
        if (events >= UINT32_MAX - 8)
            status = TOO_LARGE;
        else if (events + 8 > room) {
            room = events + events / 4 + 8;
            free(lists);
            lists = malloc(room * sizeof *lists);
            status = lists ? OK : NO_MEMORY;
        }
        if (status != OK)
            break;
        list_block(layer, x, images, lists, starts, runs, runs + tiles * block * pixels);
        float *y = layer->y + image * pixels * layer->c_out;
        for (int64_t panel = 0; panel * columns < layer->c_out; panel++)
            run_panel(layer, panel, images, lists, runs, y, sums);
    }
    free(lists);
    free(starts);
    free(runs);
    free(sums);
    return status;
}

int spike_layer(const uint8_t *x, const char *weights, float *y, const float *scales,
                int64_t height, int64_t width, int64_t c_in, int64_t c_out, int64_t kernel, int64_t tile,
                int64_t tiles, int64_t block, int64_t first, int64_t stop)
{
    Layer layer = {x, weights, y, scales, height, width, c_in, c_out, kernel, tile, tiles, block};
    return run_layer(&layer, first, stop);
}

/* ---- attention */

#define SCALE 0.125f /* ATTENTION_SCALE of the network */

#define ATTENTION(NAME, NUMBER)                                                                                      \
    typedef NUMBER NAME##_row __attribute__((vector_size(32 * sizeof(NUMBER)), aligned(4), may_alias));              \
    /* One head: kv = k^T v and then q kv, in whole numbers; returns the sum of the result, from column sums of q. */\
    static int64_t NAME(const uint8_t *q, const uint8_t *k, const uint8_t *v, int64_t stride, float *restrict y,     \
                        int64_t n, int64_t width, int64_t dim, NAME##_row *kv, const uint32_t *q_sums,               \
                        uint32_t *list)                                                                              \
    {                                                                                                                \
        int64_t parts = (dim + 31) / 32, total = 0;                                                                  \
        NUMBER lanes[32] = {0};                                                                                      \
        memset(kv, 0, dim * parts * sizeof *kv);                                                                     \
        for (int64_t token = 0; token < n; token++) {                                                                \
            int64_t events = list_events(k + token * stride, dim, 0, list) - list;                                   \
            for (int64_t part = 0; part < parts; part++) {                                                           \
                const uint8_t *from = v + token * stride + part * 32;                                                \
                int64_t used = dim - part * 32 < 32 ? dim - part * 32 : 32;                                          \
                bytes32 spikes = {0};                                                                                \
                if (used == 32)                                                                                      \
                    memcpy(&spikes, from, 32);                                                                       \
                else                                                                                                 \
                    memcpy(&spikes, from, used);                                                                     \
                NAME##_row value = __builtin_convertvector(spikes, NAME##_row);                                      \
                for (int64_t event = 0; event < events; event++)                                                     \
                    kv[list[event] / ROW * parts + part] += value;                                                   \
            }                                                                                                        \
        }                                                                                                            \
        for (int64_t token = 0; token < n; token++) {                                                                \
            int64_t events = list_events(q + token * stride, dim, 0, list) - list;                                   \
            for (int64_t part = 0; part < parts; part++) {                                                           \
                NAME##_row sum = {0};                                                                                \
                for (int64_t event = 0; event < events; event++)                                                     \
                    sum += kv[list[event] / ROW * parts + part];                                                     \
                memcpy(lanes, &sum, sizeof sum);                                                                     \
                float *to = y + token * width + part * 32;                                                           \
                if (dim - part * 32 >= 32)                                                                           \
                    for (int64_t j = 0; j < 32; j++)                                                                 \
                        to[j] = (float)lanes[j] * SCALE;                                                             \
                else                                                                                                 \
                    for (int64_t j = 0; j < dim - part * 32; j++)                                                    \
                        to[j] = (float)lanes[j] * SCALE;                                                             \
            }                                                                                                        \
        }                                                                                                            \
        for (int64_t row = 0; row < dim; row++)                                                                      \
            for (int64_t part = 0; part < parts; part++) {                                                           \
                int64_t sum = 0;                                                                                     \
                memcpy(lanes, &kv[row * parts + part], sizeof lanes);                                                \
                for (int64_t j = 0; j < 32; j++)                                                                     \
                    sum += lanes[j];                                                                                 \
                total += sum * q_sums[row];                                                                          \
            }                                                                                                        \
        return total;                                                                                                \
    }

ATTENTION(mix_shorts, int16_t)
ATTENTION(mix_ints, int32_t)

/* Column sums of q and k; returns the bitwise or of all bytes. */
static uint8_t column_sums(const uint8_t *q, const uint8_t *k, const uint8_t *v, int64_t stride, int64_t n,
                           int64_t width, uint32_t *restrict sums)
{
    uint8_t all = 0;
    memset(sums, 0, 2 * width * sizeof *sums);
    for (int64_t token = 0; token < n; token++, q += stride, k += stride, v += stride)
        for (int64_t j = 0; j < width; j++) {
            sums[j] += q[j];
            sums[width + j] += k[j];
            all |= q[j] | k[j] | v[j];
        }
    return all;
}

/* 32 bits from up to 32 bytes of {0, 1}. */
static inline uint32_t bits_of(const uint8_t *x, int64_t n)
{
    uint32_t bits = 0;
    int64_t i = 0;
    n = n < 32 ? n : 32;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, x + i, 8);
        bits |= (uint32_t)(word * 0x0102040810204080u >> 56) << i;
    }
    for (; i < n; i++)
        bits |= (uint32_t)x[i] << i;
    return bits;
}

#define WORDS (LANE / 4)

/* One head: add the number of entries of q k^T above 0 to met[1], and the spikes of v that they meet to met[0].
 * Tokens of k and v lie side by side in the lanes of vectors; those beyond the last one are silent. */
static void count_met(const uint8_t *q, const uint8_t *k, const uint8_t *v, int64_t stride, int64_t n, int64_t dim,
                      uint32_t *restrict scratch, int64_t *met)
{
    int64_t parts = (dim + 31) / 32, vectors = (n + WORDS - 1) / WORDS, padded = vectors * WORDS;
    uint32_t *values = scratch + parts * padded;
    memset(scratch, 0, (parts + 1) * padded * sizeof *scratch);
    for (int64_t token = 0; token < n; token++)
        for (int64_t part = 0; part < parts; part++) {
            scratch[part * padded + token] = bits_of(k + token * stride + part * 32, dim - part * 32);
            values[token] += __builtin_popcount(bits_of(v + token * stride + part * 32, dim - part * 32));
        }
    words spikes = {0}, entries = {0};
    for (int64_t token = 0; token < n; token++) {
        uint32_t query = bits_of(q + token * stride, dim);
        for (int64_t j = 0; query && parts == 1 && j < padded; j += WORDS) {
            words hit = (words)((*(const words *)(scratch + j) & query) != 0);
            spikes += *(const words *)(values + j) & hit;
            entries -= hit;
        }
        for (int64_t j = 0; parts > 1 && j < padded; j += WORDS) {
            words shared = {0};
            for (int64_t part = 0; part < parts; part++)
                shared |= *(const words *)(scratch + part * padded + j)
                          & bits_of(q + token * stride + part * 32, dim - part * 32);
            words hit = (words)(shared != 0);
            spikes += *(const words *)(values + j) & hit;
            entries -= hit;
        }
        if (token % 256 && token + 1 < n)
            continue;
        for (int lane = 0; lane < WORDS; lane++) { /* before a lane could overflow */
            met[0] += spikes[lane];
            met[1] += entries[lane];
        }
        spikes = entries = (words){0};
    }
}

/* q, k, v: (groups, n, width) with a stride between tokens. totals, unless NULL: (groups, 4), the sums of q k^T and
 * of q k^T v, the latter with every entry of q k^T above 0 taken as 1, and the number of these entries. */
int spike_attention(const uint8_t *q, const uint8_t *k, const uint8_t *v, int64_t stride, float *y, int64_t n,
                    int64_t width, int64_t heads, int64_t *totals, int64_t first, int64_t stop)
{
    int64_t dim = width / heads;
    mix_ints_row *kv = malloc(dim * ((dim + 31) / 32) * sizeof *kv);
    uint32_t *list = malloc((dim + 8) * sizeof *list), *sums = malloc(2 * width * sizeof *sums);
    uint32_t *scratch = malloc(((dim + 31) / 32 + 1) * (n + WORDS) * sizeof *scratch);
    int status = kv && list && sums && scratch ? OK : NO_MEMORY;
    for (int64_t group = first; group < stop && status == OK; group++) {
        int64_t at = group * n * stride, mixed = 0;
        if (column_sums(q + at, k + at, v + at, stride, n, width, sums) > 1)
            status = TOO_LARGE;
        for (int64_t head = 0; head < heads && status == OK; head++) {
            int64_t in = at + head * dim;
            float *out = y + group * n * width + head * dim;
            if (n * dim <= INT16_MAX) /* the largest entry of q k^T v */
                mixed += mix_shorts(q + in, k + in, v + in, stride, out, n, width, dim, (mix_shorts_row *)kv,
                                    sums + head * dim, list);
            else
                mixed += mix_ints(q + in, k + in, v + in, stride, out, n, width, dim, kv, sums + head * dim, list);
            if (totals)
                count_met(q + in, k + in, v + in, stride, n, dim, scratch, totals + 4 * group + 2);
        }
        for (int64_t j = 0; totals && j < width; j++)
            totals[4 * group] += (int64_t)sums[j] * sums[width + j];
        if (totals)
            totals[4 * group + 1] = mixed;
    }
    free(kv);
    free(list);
    free(sums);
    free(scratch);
    return status;
}

/* ---- pooling and means */

static inline uint8_t larger(uint8_t a, uint8_t b)
{
    return a > b ? a : b;
}

/* Largest of 3x3 values, stride 2, padding 1. */
int spike_max_pool(const uint8_t *x, uint8_t *y, int64_t height, int64_t width, int64_t channels, int64_t first,
                   int64_t stop)
{
    int64_t line = width * channels;
    uint8_t *column = malloc(line + 1); /* the largest of three lines */
    if (!column)
        return NO_MEMORY;
    y += first * ((height + 1) / 2) * ((width + 1) / 2) * channels;
    for (int64_t image = first; image < stop; image++)
        for (int64_t h = 0; h < height; h += 2) {
            const uint8_t *middle = x + (image * height + h) * line;
            const uint8_t *above = h ? middle - line : middle, *below = h + 1 < height ? middle + line : middle;
            for (int64_t i = 0; i < line; i++)
                column[i] = larger(larger(above[i], below[i]), middle[i]);
            for (int64_t w = 0; w < width; w += 2, y += channels) {
                const uint8_t *centre = column + w * channels;
                const uint8_t *left = w ? centre - channels : centre;
                const uint8_t *right = w + 1 < width ? centre + channels : centre;
                for (int64_t c = 0; c < channels; c++)
                    y[c] = larger(larger(left[c], right[c]), centre[c]);
            }
        }
    free(column);
    return OK;
}

/* x (steps, images, tokens, width) to means (images, width) over steps and tokens. */
int spike_token_mean(const uint8_t *x, float *y, int64_t steps, int64_t images, int64_t tokens, int64_t width,
                     int64_t first, int64_t stop)
{
    uint64_t *sums = malloc((width + 1) * sizeof *sums);
    uint16_t *part = malloc((width + 1) * sizeof *part);
    int status = sums && part ? OK : NO_MEMORY;
    for (int64_t image = first; image < stop && status == OK; image++) {
        memset(sums, 0, width * sizeof *sums);
        for (int64_t t = 0; t < steps; t++)
            for (int64_t token = 0; token < tokens; token += 256) {
                const uint8_t *row = x + ((t * images + image) * tokens + token) * width;
                memset(part, 0, width * sizeof *part);
                for (int64_t end = tokens - token < 256 ? tokens - token : 256; end > 0; end--, row += width)
                    for (int64_t j = 0; j < width; j++)
                        part[j] += row[j];
                for (int64_t j = 0; j < width; j++)
                    sums[j] += part[j];
            }
        for (int64_t j = 0; j < width; j++)
            y[image * width + j] = (float)((double)sums[j] / (double)(steps * tokens));
    }
    free(sums);
    free(part);
    return status;
}
