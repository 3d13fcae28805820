#include "tables.h"

MLC_EXPORT int mlc_table(int index) { return index * index; }
