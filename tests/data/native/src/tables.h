#pragma once

#if defined(_WIN32)
#define MLC_EXPORT extern "C" __declspec(dllexport)
#else
#define MLC_EXPORT extern "C" __attribute__((visibility("default")))
#endif

MLC_EXPORT int mlc_table(int index);
