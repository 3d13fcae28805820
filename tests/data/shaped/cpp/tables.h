#pragma once

int mlc_table(int index);
