/* The loop around a neuron's timestep on a GPU. @WORDS@ are replaced by the text that equations.py generates.

   Arrays are (T, M, C), C fastest; element i of a timestep belongs to channel i % C. A thread takes VECTORS
   neighbouring neurons through all timesteps, then those `lanes` further on. Lanes are a multiple of C, so a thread
   stays with its channels: scales sit in registers, and sums over rows need no other thread. Each lane leaves its
   sums in double, and the caller adds lanes in a fixed order. `whole` says that groups of VECTORS neighbours are
   aligned and complete, in every timestep. No header is included: NVRTC has none. Defining BUCKET compiles the
   backward kernel for so many timesteps, otherwise all other kernels: each is built when it is first needed. */
typedef @SCALAR@ scalar;
typedef @SCALAR@ real;
typedef @STORED@ stored;
#define VECTORS @WIDTH@
#define TILE 4 /* timesteps whose loads are under way together */
#define MAX_ROWS 16 /* rows whose sums are taken in the type of the arithmetic */
#define ALWAYS __device__ __forceinline__

struct alignas(sizeof(stored) * VECTORS) Stored {
  stored lane[VECTORS];
};
struct alignas(VECTORS) Bytes {
  unsigned char lane[VECTORS];
};

#if @IS_BFLOAT16@
ALWAYS real widen(stored bits) {
  union { unsigned bits; float value; } both;
  both.bits = (unsigned)bits << 16;
  return both.value;
}
ALWAYS stored narrow(real value) { /* to nearest, ties to even; NaN stays NaN */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  stored rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
  return rounded;
#else
  union { float value; unsigned bits; } both;
  both.value = value;
  if (value != value) return (stored)((both.bits >> 16) | 0x40u);
  return (stored)((both.bits + 0x7fffu + ((both.bits >> 16) & 1u)) >> 16);
#endif
}
#elif @IS_FLOAT16@ && defined(__CUDA_ARCH__)
ALWAYS real widen(stored bits) {
  real value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
ALWAYS stored narrow(real value) {
  stored rounded;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
  return rounded;
}
#elif @IS_FLOAT16@ /* a host that compiles this text brings its own */
ALWAYS real widen(stored bits);
ALWAYS stored narrow(real value);
#else
ALWAYS real widen(stored value) { return value; }
ALWAYS stored narrow(real value) { return value; }
#endif

/* Neighbours i.. of a timestep; those beyond its end are 0 and are not written. */
template <class Group, class Element>
ALWAYS Group load(const Element *from, long long i, long long size, bool whole) {
  if (whole) return *(const Group *)(from + i);
  Group group = {};
#pragma unroll
  for (int j = 0; j < VECTORS; j++)
    if (i + j < size) group.lane[j] = from[i + j];
  return group;
}
template <class Group, class Element>
ALWAYS void store(Element *to, const Group &group, long long i, long long size, bool whole) {
  if (whole) {
    *(Group *)(to + i) = group;
    return;
  }
#pragma unroll
  for (int j = 0; j < VECTORS; j++)
    if (i + j < size) to[i + j] = group.lane[j];
}

/* What the text of the equations calls. */
#define NUMBER(value) ((scalar)value)
#define SPLAT(value) (value)
ALWAYS real real_step(real x) { return x >= 0 ? (real)1 : (real)0; }
#if @IS_DOUBLE@
ALWAYS real real_exp(real x) { return exp(x); }
ALWAYS real real_tanh(real x) { return tanh(x); }
#else
ALWAYS real real_exp(real x) { return expf(x); }
ALWAYS real real_tanh(real x) { return tanhf(x); }
#endif
ALWAYS real real_sigmoid(real x) { return 1 / (1 + real_exp(-x)); }

#define EACH_NEURON _Pragma("unroll") for (int j = 0; j < VECTORS; j++)
#define THREAD ((long long)blockIdx.x * blockDim.x + threadIdx.x)

/* A value per channel for each lane of this thread; `otherwise` without values. */
ALWAYS void of_channels(real *lanes, const scalar *values, long long first, long long C, real otherwise) {
  EACH_NEURON lanes[j] = values ? values[(first + j) % C] : otherwise;
}

/* Sums of each lane, to row lane / C of (rows, 2, C). */
ALWAYS void leave(double *partial, const double (*sums)[VECTORS], long long first, long long C) {
  EACH_NEURON {
    const long long row = (first + j) / C, c = (first + j) % C;
    partial[2 * row * C + c] = sums[0][j];
    partial[(2 * row + 1) * C + c] = sums[1][j];
  }
}

#ifndef BUCKET

/* Adds up what threads counted: one atomic addition of integers per block. */
ALWAYS void add_up(unsigned long long *total, unsigned long long fired) {
  __shared__ unsigned long long warps[32];
  for (int away = 16; away > 0; away /= 2) fired += __shfl_down_sync(0xffffffffu, fired, away);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = fired;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (unsigned warp = 1; warp < (blockDim.x + 31) / 32; warp++) fired += warps[warp];
  atomicAdd(total, fired);
}

/* Spikes. `scale` may be NULL, and so may any output but the count. With an `addend`, the sum of spikes and addend is
   written. `step` is the distance of two timesteps of x, 0 if they are the same. */
extern "C" __global__ void neuron_forward(const stored *__restrict__ x, long long step, const scalar *scale,
                                          const scalar *shift, stored *__restrict__ spikes,
                                          unsigned char *__restrict__ bytes, const unsigned char *__restrict__ addend,
                                          unsigned long long *count, long long T, long long size, long long C,
                                          long long threads, long long aligned@K_PARAMETERS@) {
  const double k[] = {@K_VALUES@};
  @CONSTANTS@
  const long long first = THREAD * VECTORS, lanes = threads * VECTORS;
  const bool affine = scale, whole = VECTORS == 1 || aligned;
  real gain[VECTORS], bias[VECTORS];
  of_channels(gain, scale, first, C, 1);
  of_channels(bias, shift, first, C, 0);
  unsigned long long fired = 0;
  for (long long i = THREAD < threads ? first : size; i < size; i += lanes) {
    @DECLARE_STATES@
    for (long long tile = 0; tile < T; tile += TILE) {
      Stored near[TILE];
      Bytes added[TILE] = {};
#pragma unroll
      for (int a = 0; a < TILE; a++)
        if (tile + a < T) {
          near[a] = load<Stored>(x + (tile + a) * step, i, size, whole);
          if (addend) added[a] = load<Bytes>(addend + (tile + a) * size, i, size, whole);
        }
#pragma unroll
      for (int a = 0; a < TILE; a++) {
        const long long t = tile + a;
        if (t >= T) break;
        Stored out;
        Bytes out_bytes;
        EACH_NEURON {
          const real raw = widen(near[a].lane[j]);
          const real x_ = affine ? raw * gain[j] + bias[j] : raw;
          @LOAD_STATES@
          @FORWARD@
          @SAVE_STATES@
          const int spike = s != 0;
          if (i + j < size) fired += spike; /* lanes beyond the end may fire where a threshold is not above 0 */
          out_bytes.lane[j] = (unsigned char)(spike + added[a].lane[j]);
          out.lane[j] = narrow((real)out_bytes.lane[j]);
        }
        if (spikes) store(spikes + t * size, out, i, size, whole);
        if (bytes) store(bytes + t * size, out_bytes, i, size, whole);
      }
    }
  }
  add_up(count, fired);
}

/* Per channel, sums of x - pivot and of its square, pivot being the first row; x is (R, C), size = R C. */
extern "C" __global__ void channel_sums(const stored *__restrict__ x, double *partial, long long size, long long C,
                                        long long threads, long long aligned) {
  const long long first = THREAD * VECTORS, lanes = threads * VECTORS;
  const bool whole = VECTORS == 1 || aligned;
  if (THREAD >= threads) return;
  real pivot[VECTORS];
  EACH_NEURON pivot[j] = widen(x[(first + j) % C]);
  double sums[2][VECTORS] = {};
  for (long long i = first; i < size;) {
    real sum[VECTORS] = {}, square[VECTORS] = {};
#pragma unroll 4
    for (int row = 0; row < MAX_ROWS && i < size; row++, i += lanes) {
      const Stored near = load<Stored>(x, i, size, whole);
      EACH_NEURON {
        const real away = i + j < size ? widen(near.lane[j]) - pivot[j] : 0;
        sum[j] += away;
        square[j] += away * away;
      }
    }
    EACH_NEURON {
      sums[0][j] += (double)sum[j];
      sums[1][j] += (double)square[j];
    }
  }
  leave(partial, sums, first, C);
}

/* Derivative by the input of a batch normalisation: gain (g - offset - (x - mean) slope). */
extern "C" __global__ void norm_backward(const scalar *__restrict__ g, const stored *__restrict__ x,
                                         stored *__restrict__ gx, const scalar *mean, const scalar *gain,
                                         const scalar *offset, const scalar *slope, long long size, long long C,
                                         long long threads, long long aligned) {
  const long long first = THREAD * VECTORS, lanes = threads * VECTORS;
  const bool whole = VECTORS == 1 || aligned;
  if (THREAD >= threads) return;
  real means[VECTORS], gains[VECTORS], offsets[VECTORS], slopes[VECTORS];
  of_channels(means, mean, first, C, 0);
  of_channels(gains, gain, first, C, 0);
  of_channels(offsets, offset, first, C, 0);
  of_channels(slopes, slope, first, C, 0);
#pragma unroll 4
  for (long long i = first; i < size; i += lanes) {
    const Stored near = load<Stored>(x, i, size, whole);
    Stored out;
    EACH_NEURON {
      const real incoming = i + j < size ? g[i + j] : 0;
      const real away = widen(near.lane[j]) - means[j];
      out.lane[j] = narrow(gains[j] * (incoming - offsets[j] - away * slopes[j]));
    }
    store(gx, out, i, size, whole);
  }
}

#else

/* Derivatives by x, from those by the spikes `g`: forward again, keeping the states before each timestep, then back.

   BUCKET is a number of timesteps, T or more, for which currents and states stay in registers; BUCKET 0 takes any T
   and keeps states in `scratch`, (T, lanes, states). Without `scale`, gx has the type of x. With it, gx is the
   derivative by the scaled and shifted x as a real, and `partial` receives for each channel the sums of gx and of
   gx * (x - centre). `learned` receives the derivatives by the constants, (constants, lanes), if it is not NULL. */
extern "C" __global__ void neuron_backward(const stored *__restrict__ x, long long step, const scalar *scale,
                                           const scalar *shift, const scalar *centre, const stored *__restrict__ g,
                                           void *gx, double *partial, double *learned, real *scratch, long long T,
                                           long long size, long long C, long long threads,
                                           long long aligned@K_PARAMETERS@) {
  constexpr int KEPT = BUCKET ? BUCKET : 1, UNROLLED = BUCKET ? BUCKET / TILE : 1;
  const double k[] = {@K_VALUES@};
  @CONSTANTS@
  const long long first = THREAD * VECTORS, lanes = threads * VECTORS;
  const bool affine = scale, whole = VECTORS == 1 || aligned;
  if (THREAD >= threads) return;
  real gain[VECTORS], bias[VECTORS], middle[VECTORS];
  of_channels(gain, scale, first, C, 1);
  of_channels(bias, shift, first, C, 0);
  of_channels(middle, centre, first, C, 0);
  double sums[2][VECTORS] = {}, by_constant[VECTORS][@N_CONSTANTS@ + 1] = {};
  const int tiles = BUCKET ? BUCKET / TILE : (int)((T + TILE - 1) / TILE);
  for (long long i = first; i < size; i += lanes) {
    Stored near[BUCKET ? BUCKET : TILE];
    real kept[KEPT][VECTORS][@N_STATES@ + 0];
    {
      @DECLARE_STATES@
#pragma unroll(UNROLLED)
      for (int tile = 0; tile < tiles; tile++) {
#pragma unroll
        for (int a = 0; a < TILE; a++) {
          const int t = tile * TILE + a;
          if (t < T) near[BUCKET ? t : a] = load<Stored>(x + t * step, i, size, whole);
        }
#pragma unroll
        for (int a = 0; a < TILE; a++) {
          const int t = tile * TILE + a;
          if (t >= T) break;
          EACH_NEURON {
            const real raw = widen(near[BUCKET ? t : a].lane[j]);
            const real x_ = affine ? raw * gain[j] + bias[j] : raw;
            real *kt = BUCKET ? kept[BUCKET ? t : 0][j] : scratch + (t * lanes + first + j) * @N_STATES@;
            @LOAD_STATES@
            @KEEP_STATES@
            if (t + 1 < T) {
              @FORWARD@
              @SAVE_STATES@
            }
          }
        }
      }
    }
    @DECLARE_STATE_GRADIENTS@
    @DECLARE_LEARNED@
    real total[VECTORS] = {}, product[VECTORS] = {}; /* over timesteps */
#pragma unroll(UNROLLED)
    for (int tile = tiles - 1; tile >= 0; tile--) {
      Stored incoming[TILE];
#pragma unroll
      for (int a = 0; a < TILE; a++) {
        const int t = tile * TILE + a;
        if (t >= T) break;
        incoming[a] = load<Stored>(g + t * size, i, size, whole);
        if (!BUCKET) near[a] = load<Stored>(x + t * step, i, size, whole);
      }
#pragma unroll
      for (int a = TILE - 1; a >= 0; a--) {
        const int t = tile * TILE + a;
        if (t >= T) continue;
        Stored out;
        EACH_NEURON {
          const real raw = widen(near[BUCKET ? t : a].lane[j]);
          const real x_ = affine ? raw * gain[j] + bias[j] : raw;
          const real gs = widen(incoming[a].lane[j]);
          const real *kt = BUCKET ? kept[BUCKET ? t : 0][j] : scratch + (t * lanes + first + j) * @N_STATES@;
          @RESTORE_STATES@
          @FORWARD@
          @LOAD_STATE_GRADIENTS@
          @BACKWARD@
          @SAVE_STATE_GRADIENTS@
          @LEARN@
          total[j] += gx_;
          product[j] += gx_ * (raw - middle[j]);
          out.lane[j] = narrow(gx_);
          if (affine && step && i + j < size) ((real *)gx)[t * size + i + j] = gx_;
        }
        if (!affine && step) store((stored *)gx + t * size, out, i, size, whole);
      }
    }
    EACH_NEURON {
      if (i + j >= size) break;
      sums[0][j] += (double)total[j];
      sums[1][j] += (double)product[j];
      @COLLECT@
      if (step == 0 && affine) ((real *)gx)[i + j] = total[j];
      else if (step == 0) ((stored *)gx)[i + j] = narrow(total[j]);
    }
  }
  if (partial) leave(partial, sums, first, C);
  if (learned) EACH_NEURON
      for (int n = 0; n < @N_CONSTANTS@; n++) learned[n * lanes + first + j] = by_constant[j][n];
}
#endif
