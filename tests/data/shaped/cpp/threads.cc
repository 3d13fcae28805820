// Parallel arithmetic.
#include <omp.h>

#define MLC_EXPORT extern "C" __attribute__((visibility("default")))

MLC_EXPORT long mlc_sum(int count) {
  long sum = 0;
#pragma omp parallel for reduction(+ : sum)
  for (int i = 0; i < count; ++i) sum += i * i;
  return sum;
}

MLC_EXPORT int mlc_threads() { return omp_get_max_threads(); }
