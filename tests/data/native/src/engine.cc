// Parallel arithmetic, and everything that makes a build differ from the next one: the
// path of the source and the time of compilation.
#include <omp.h>

#include <stdexcept>
#include <string>

#include "tables.h"

MLC_EXPORT long mlc_sum(int count) {
  long sum = 0;
#pragma omp parallel for reduction(+ : sum)
  for (int i = 0; i < count; ++i) sum += mlc_table(i);
  return sum;
}

MLC_EXPORT int mlc_threads() { return omp_get_max_threads(); }

MLC_EXPORT const char* mlc_built() {
  static const std::string text = std::string(__FILE__ " " __DATE__ " " __TIME__);
  return text.c_str();
}

MLC_EXPORT int mlc_checked(int value) {
  try {
    if (value < 0) throw std::invalid_argument("negative");
    return value;
  } catch (const std::invalid_argument&) {
    return -1;
  }
}
