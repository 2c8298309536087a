/* The loop around a neuron's timestep on a CPU. @WORDS@ are replaced by the text that equations.py generates.

   Arrays are (T, M, C), C fastest; element i of a timestep belongs to channel i % C. The text of the equations works
   on vectors of LANES neighbouring neurons (a type that GCC and Clang lower to whatever the processor has); a chunk of
   a few vectors goes through all timesteps before the next one. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef @SCALAR@ scalar;
typedef @INTEGER@ integer; /* as wide as a scalar */
typedef @STORED@ stored;
#define LANES ((int)(64 / sizeof(scalar)))
#define VECTORS 4
#define CHUNK (LANES * VECTORS)
#define ALWAYS static inline __attribute__((always_inline))

typedef scalar real __attribute__((vector_size(64)));
typedef integer mask __attribute__((vector_size(64)));
typedef stored stored_vector __attribute__((vector_size(64 / sizeof(scalar) * sizeof(stored))));
typedef uint8_t byte_vector __attribute__((vector_size(64 / sizeof(scalar))));

ALWAYS real pick(mask where, real yes, real no) { return (real)((where & (mask)yes) | (~where & (mask)no)); }
ALWAYS real number(scalar value) { return (real){0} + value; }

#if @IS_BFLOAT16@
typedef uint32_t wide __attribute__((vector_size(64)));
ALWAYS real widen(stored_vector bits) { return (real)(__builtin_convertvector(bits, wide) << 16); }
ALWAYS stored_vector narrow(real value) { /* to nearest, ties to even; NaN stays NaN */
  const wide bits = (wide)value;
  const wide rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const wide nan = (wide)((bits & 0x7fffffffu) > 0x7f800000u);
  return __builtin_convertvector((nan & ((bits >> 16) | 0x40u)) | (~nan & rounded), stored_vector);
}
#else
ALWAYS real widen(stored_vector value) { return (real)value; }
ALWAYS stored_vector narrow(real value) { return (stored_vector)value; }
#endif

/* A vector of which n elements lie in memory; the others are 0 and are not written. */
ALWAYS real load(const stored *from, int n) {
  stored_vector value = {0};
  if (n == LANES) memcpy(&value, from, sizeof value);
  else memcpy(&value, from, (size_t)n * sizeof(stored));
  return widen(value);
}
ALWAYS void store(stored *to, real value, int n) {
  const stored_vector narrowed = narrow(value);
  if (n == LANES) memcpy(to, &narrowed, sizeof narrowed);
  else memcpy(to, &narrowed, (size_t)n * sizeof(stored));
}

/* The same past the caches, where a result is larger than they are: its old content is then not read first. */
#define FAR_BYTES (8 << 20)
ALWAYS void store_far(stored *to, real value, int n, int far) {
#if defined(__AVX512F__)
  if (far && n == LANES && ((uintptr_t)to & (sizeof(stored_vector) - 1)) == 0) {
    const stored_vector narrowed = narrow(value);
#if @IS_BFLOAT16@
    _mm256_stream_si256((__m256i *)to, (__m256i)narrowed);
#else
    _mm512_stream_si512((__m512i *)to, (__m512i)narrowed);
#endif
    return;
  }
#endif
  (void)far;
  store(to, value, n);
}
ALWAYS void finish_far(void) {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

ALWAYS real load_real(const scalar *from, int n) {
  real value = {0};
  if (n == LANES) memcpy(&value, from, sizeof value);
  else memcpy(&value, from, (size_t)n * sizeof(scalar));
  return value;
}
ALWAYS void store_real(scalar *to, real value, int n) {
  if (n == LANES) memcpy(to, &value, sizeof value);
  else memcpy(to, &value, (size_t)n * sizeof(scalar));
}
ALWAYS mask load_bytes(const uint8_t *from, int n) {
  byte_vector value = {0};
  if (n == LANES) memcpy(&value, from, sizeof value);
  else memcpy(&value, from, (size_t)n);
  return __builtin_convertvector(value, mask);
}
ALWAYS void store_bytes(uint8_t *to, mask value, int n) {
  const byte_vector narrowed = __builtin_convertvector(value, byte_vector);
  if (n == LANES) memcpy(to, &narrowed, sizeof narrowed);
  else memcpy(to, &narrowed, (size_t)n);
}

ALWAYS mask inside(int n) {
  mask lanes;
  for (int l = 0; l < LANES; l++) lanes[l] = l < n ? -1 : 0;
  return lanes;
}

/* What the text of the equations calls. */
#define NUMBER(value) ((scalar)value)
#define SPLAT(value) number(value)
ALWAYS real real_step(real x) { return (real)((mask)(x >= 0) & (mask)number(1)); }

#if @IS_DOUBLE@
ALWAYS real real_exp(real x) {
  for (int l = 0; l < LANES; l++) x[l] = exp(x[l]);
  return x;
}
ALWAYS real real_tanh(real x) {
  for (int l = 0; l < LANES; l++) x[l] = tanh(x[l]);
  return x;
}
#else
ALWAYS real real_exp(real x) { /* within 2 units in the last place on [-87, 88] */
  x = pick(x > 88.0f, number(88.0f), x);
  x = pick(x < -87.0f, number(-87.0f), x);
  const real shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the sum rounds to an integer */
  const real n = shifted - 12582912.0f;
  const real r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  real p = r * 1.38888889e-3f + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = (p * r) * r + r + 1.0f;
  return p * (real)(((mask)shifted << 23) + 0x3f800000); /* 2^n: the integer is in the low bits of the shifted sum */
}
ALWAYS real real_tanh(real x) {
  for (int l = 0; l < LANES; l++) x[l] = tanhf(x[l]);
  return x;
}
#endif
ALWAYS real real_sigmoid(real x) { return 1 / (1 + real_exp(-x)); }

#define EACH_VECTOR _Pragma("GCC unroll 4") for (int j = 0; j < VECTORS; j++)
#define LEFT (n - j * LANES) /* elements from vector j on; whole chunks make it a constant */
#define WIDTH (LEFT < LANES ? LEFT : LANES)

ALWAYS real current(const stored *x, const scalar *scale, const scalar *shift, int64_t c, int affine, int n) {
  const real raw = load(x, n);
  return affine ? raw * load_real(scale + c, n) + load_real(shift + c, n) : raw;
}

/* Spikes of one chunk of n elements, all timesteps. `affine` and `n` are constants wherever a call can make them so. */
ALWAYS void forward_chunk(const stored *restrict x, int64_t step, const scalar *restrict scale,
                          const scalar *restrict shift, const double *restrict k, stored *restrict spikes,
                          uint8_t *restrict bytes, const uint8_t *addend, int64_t T, int64_t size, int64_t i,
                          int64_t c0, mask *fired, int far, const int affine, const int n) {
  @CONSTANTS@
  @DECLARE_STATES@
  for (int64_t t = 0; t < T; t++) {
    EACH_VECTOR {
      if (LEFT <= 0) break;
      const int64_t at = t * size + i + j * LANES;
      const real x_ = current(x + t * step + i + j * LANES, scale, shift, c0 + j * LANES, affine, WIDTH);
      @LOAD_STATES@
      @FORWARD@
      @SAVE_STATES@
      mask out = __builtin_convertvector(s, mask);
      if (WIDTH < LANES) out &= inside(WIDTH); /* lanes beyond the end may fire where a threshold is not above 0 */
      *fired += out;
      if (addend) out += load_bytes(addend + at, WIDTH);
      if (spikes) store_far(spikes + at, __builtin_convertvector(out, real), WIDTH, far);
      if (bytes) store_bytes(bytes + at, out, WIDTH);
    }
  }
}

/* Spikes of elements [lo, hi) of each timestep; returns how many fired. `scale` may be NULL. With an `addend`,
   the sum of spikes and addend is written. `step` is the distance of two timesteps of x, 0 if they are the same. */
int64_t neuron_forward(const stored *x, int64_t step, const scalar *scale, const scalar *shift, const double *k,
                       stored *spikes, uint8_t *bytes, const uint8_t *addend, int64_t T, int64_t size, int64_t C,
                       int64_t lo, int64_t hi) {
  int64_t count = 0;
  mask fired = {0};
  const int far = T * size * (int64_t)sizeof(stored) >= FAR_BYTES;
  for (int64_t i = lo, unread = 0; i < hi;) {
    const int64_t c = i % C;
    int64_t n = C - c < hi - i ? C - c : hi - i;
    if (n > CHUNK) n = CHUNK;
#define FORWARD(affine, n) \
  forward_chunk(x, step, scale, shift, k, spikes, bytes, addend, T, size, i, c, &fired, far, affine, n)
    if (n == CHUNK) scale ? FORWARD(1, CHUNK) : FORWARD(0, CHUNK);
    else scale ? FORWARD(1, (int)n) : FORWARD(0, (int)n);
    i += n;
    unread += T * VECTORS;
    if (unread > (1 << 30) || i >= hi) { /* before a lane could overflow */
      for (int l = 0; l < LANES; l++) count += fired[l];
      fired = (mask){0};
      unread = 0;
    }
  }
  finish_far();
  return count;
}

/* Derivatives of one chunk: forward again, keeping the states before each timestep in `kept`, then back. */
ALWAYS void backward_chunk(const stored *restrict x, int64_t step, const scalar *restrict scale,
                           const scalar *restrict shift, const scalar *restrict centre, const double *restrict k,
                           const stored *restrict g, void *restrict gx, real *restrict kept, scalar *restrict sums,
                           double *restrict gk, int64_t T, int64_t size, int64_t C, int64_t i, int64_t c0,
                           int far, const int affine, const int learned, const int n) {
  @CONSTANTS@
  {
    @DECLARE_STATES@
    for (int64_t t = 0; t < T; t++) {
      EACH_VECTOR {
        if (LEFT <= 0) break;
        const real x_ = current(x + t * step + i + j * LANES, scale, shift, c0 + j * LANES, affine, WIDTH);
        real *kt = kept + (t * VECTORS + j) * @N_STATES@;
        @LOAD_STATES@
        @KEEP_STATES@
        if (t == T - 1) continue;
        @FORWARD@
        @SAVE_STATES@
      }
    }
  }
  @DECLARE_STATE_GRADIENTS@
  @DECLARE_LEARNED@
  real total[VECTORS] = {{0}}; /* over timesteps that share one x */
  for (int64_t t = T - 1; t >= 0; t--) {
    EACH_VECTOR {
      if (LEFT <= 0) break;
      const int64_t at = t * size + i + j * LANES, c = c0 + j * LANES;
      const real raw = load(x + t * step + i + j * LANES, WIDTH);
      const real x_ = affine ? raw * load_real(scale + c, WIDTH) + load_real(shift + c, WIDTH) : raw;
      const real gs = load(g + at, WIDTH);
      const real *kt = kept + (t * VECTORS + j) * @N_STATES@;
      @RESTORE_STATES@
      @FORWARD@
      @LOAD_STATE_GRADIENTS@
      @BACKWARD@
      @SAVE_STATE_GRADIENTS@
      if (learned) { @LEARN@ }
      if (affine) {
        store_real(sums + c, load_real(sums + c, WIDTH) + gx_, WIDTH);
        const real product = gx_ * (raw - load_real(centre + c, WIDTH));
        store_real(sums + C + c, load_real(sums + C + c, WIDTH) + product, WIDTH);
      }
      if (step == 0) total[j] += gx_;
      else if (affine) store_real((scalar *)gx + at, gx_, WIDTH);
      else store_far((stored *)gx + at, gx_, WIDTH, far);
    }
  }
  EACH_VECTOR {
    if (LEFT <= 0) break;
    if (learned)
      for (int l = 0; l < WIDTH; l++) { @COLLECT@ }
    if (step == 0 && affine) store_real((scalar *)gx + i + j * LANES, total[j], WIDTH);
    else if (step == 0) store((stored *)gx + i + j * LANES, total[j], WIDTH);
  }
}

/* Derivatives by x, from those by the spikes `g`, of blocks [first, last) of `block` elements each.

   Without `scale`, gx has the type of x. With it, gx is the derivative by the scaled and shifted x as a scalar, and
   partial[b] receives for each channel, in double, the sums of gx and of gx * (x - centre) over block b.
   `learned_sums[b]` receives the derivatives by the constants if it is not NULL. Returns 1 without memory. */
int neuron_backward(const stored *x, int64_t step, const scalar *scale, const scalar *shift, const scalar *centre,
                    const double *k, const stored *g, void *gx, double *partial, double *learned_sums, int64_t T,
                    int64_t size, int64_t C, int64_t block, int64_t first, int64_t last) {
  real *kept = aligned_alloc(64, (size_t)T * VECTORS * @N_STATES@ * sizeof(real));
  scalar *sums = scale ? malloc((size_t)C * 2 * sizeof(scalar)) : NULL;
  if (!kept || (scale && !sums)) {
    free(kept);
    free(sums);
    return 1;
  }
  const int far = T * size * (int64_t)sizeof(stored) >= FAR_BYTES;
  for (int64_t b = first; b < last; b++) {
    const int64_t lo = b * block, hi = lo + block < size ? lo + block : size;
    double *gk = learned_sums ? learned_sums + b * @N_CONSTANTS@ : NULL;
    if (scale) memset(sums, 0, (size_t)C * 2 * sizeof(scalar));
    for (int64_t i = lo; i < hi;) {
      const int64_t c = i % C;
      int64_t n = C - c < hi - i ? C - c : hi - i;
      if (n > CHUNK) n = CHUNK;
#define BACKWARD(affine, learned, n) \
  backward_chunk(x, step, scale, shift, centre, k, g, gx, kept, sums, gk, T, size, C, i, c, far, affine, learned, n)
      if (gk) scale ? BACKWARD(1, 1, (int)n) : BACKWARD(0, 1, (int)n);
      else if (n == CHUNK) scale ? BACKWARD(1, 0, CHUNK) : BACKWARD(0, 0, CHUNK);
      else scale ? BACKWARD(1, 0, (int)n) : BACKWARD(0, 0, (int)n);
      i += n;
    }
    if (scale)
      for (int64_t j = 0; j < 2 * C; j++) partial[b * 2 * C + j] = (double)sums[j];
  }
  free(kept);
  free(sums);
  finish_far();
  return 0;
}

/* Per channel and block of rows: sums of x - pivot and of its square; x is (R, C). A few rows are summed as scalars,
   then in double. */
#define FEW 16
void channel_sums(const stored *x, const scalar *pivot, double *partial, int64_t R, int64_t C, int64_t block,
                  int64_t first, int64_t last) {
  for (int64_t b = first; b < last; b++) {
    const int64_t lo = b * block, hi = lo + block < R ? lo + block : R;
    for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
      const int n = C - c0 < CHUNK ? (int)(C - c0) : CHUNK;
      double *total = partial + b * 2 * C + c0;
      for (int l = 0; l < n; l++) total[l] = total[C + l] = 0;
      for (int64_t few = lo; few < hi; few += FEW) {
        real sum[VECTORS] = {{0}}, square[VECTORS] = {{0}};
        for (int64_t r = few; r < few + FEW && r < hi; r++)
          EACH_VECTOR {
            if (LEFT <= 0) break;
            const real d = load(x + r * C + c0 + j * LANES, WIDTH) - load_real(pivot + c0 + j * LANES, WIDTH);
            sum[j] += d;
            square[j] += d * d;
          }
        for (int l = 0; l < n; l++) {
          total[l] += (double)sum[l / LANES][l % LANES];
          total[C + l] += (double)square[l / LANES][l % LANES];
        }
      }
    }
  }
}

/* Derivative by the input of a batch normalisation, rows [lo, hi): gain (g - offset - (x - mean) slope). */
void norm_backward(const scalar *g, const stored *x, stored *gx, const scalar *mean, const scalar *gain,
                   const scalar *offset, const scalar *slope, int64_t C, int64_t lo, int64_t hi) {
  for (int64_t r = lo; r < hi; r++)
    for (int64_t c = 0; c < C; c += LANES) {
      const int n = C - c < LANES ? (int)(C - c) : LANES;
      const real away = load(x + r * C + c, n) - load_real(mean + c, n);
      const real left = load_real(g + r * C + c, n) - load_real(offset + c, n) - away * load_real(slope + c, n);
      store(gx + r * C + c, load_real(gain + c, n) * left, n);
    }
}
