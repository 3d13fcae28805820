#include <tvm/ffi/c_api.h>
#include <tvm/runtime.h>

namespace tvm {
namespace runtime {

Module Module::Load(const std::string& name) {
  TVMFFIVersion version;
  TVMFFIGetVersion(&version);
  Module module;
  module.length_ = static_cast<long>(name.size()) + version.major;
  return module;
}

#ifndef TVM_OLD
long Module::Step(long value) const { return value + length_; }
#endif

}  // namespace runtime
}  // namespace tvm
