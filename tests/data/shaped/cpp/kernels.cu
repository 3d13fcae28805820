// Calls the driver's C interface, as kernels do.
extern "C" int cuInit(unsigned int flags);
__attribute__((visibility("default"))) int init_kernels() { return cuInit(0); }
