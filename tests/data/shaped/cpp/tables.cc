#include "tables.h"

int mlc_table(int index) { return index * index; }
